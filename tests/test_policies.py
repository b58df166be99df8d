"""The policy and its parts: what it is told, what it gives, and which nets it is made of."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import BasePolicy
from torch import nn
from torch.nn import functional as F
from toys import (
    ACTION_SPACE,
    AGENT_SPACE,
    DICT_SPACE,
    IMAGE_SIZE,
    N_ACTIONS,
    PIXELS_SPACE,
    SENTENCE_SPACE,
    SLOT_DIM,
    SLOTS,
    SPACES,
    START,
    STATE_DIM,
)

from ent_bc import TaskConditionedPolicy
from ent_bc.embedding import AttentionEncoder, MlpEncoder, SlotEncoder, TiledEncoder
from ent_bc.extractors import (
    AttentionExtractor,
    ConcatExtractor,
    SlotExtractor,
    SlotLayout,
    TaskFeaturesExtractor,
    TiledExtractor,
)
from ent_bc.layers import Convolutions, coordinate_grid, soft_argmax
from ent_bc.policies import MAX_SIGMA, MIN_SIGMA

KINDS = [(obs_type, net) for obs_type in SPACES for net in ("attention", "tiled")]
TOLD_SPACE = spaces.Dict({**DICT_SPACE.spaces, "sentence": SENTENCE_SPACE})
NO_SENTENCE = r"no sentence was given.*model\.embed\(demonstration\).*state=sentence"


def make_policy(
    obs_type: str = "state",
    architecture: str = "attention",
    *,
    space: spaces.Space[Any] | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> TaskConditionedPolicy:
    th.manual_seed(seed)
    if obs_type == "state":
        kwargs.setdefault("slots", SLOTS)
    kwargs.setdefault("net_arch", [32, 32])
    policy = TaskConditionedPolicy(
        space or SPACES[obs_type],
        kwargs.pop("action_space", ACTION_SPACE),
        lambda _: 1e-3,
        architecture=architecture,  # type: ignore[arg-type]
        **kwargs,
    )
    nn.init.normal_(policy.log_std_net.weight, std=0.1)  # as training soon makes it
    return policy


def some_obs(obs_type: str = "state", n: int = 4, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(256, size=(n, *PIXELS_SPACE.shape), dtype=np.uint8)
    agent_pos = rng.normal(size=(n, START)).astype(np.float32)
    return {
        "state": rng.normal(size=(n, STATE_DIM)).astype(np.float32),
        "pixels": pixels,
        "pixels_agent_pos": {"pixels": pixels, "agent_pos": agent_pos},
    }[obs_type]


def some_sentences(n: int = 4, seed: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, 20))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def tensors(obs: Any) -> Any:
    return {k: th.as_tensor(v) for k, v in obs.items()} if isinstance(obs, dict) else th.tensor(obs)


def row(obs: Any, index: int) -> Any:
    return {k: v[index] for k, v in obs.items()} if isinstance(obs, dict) else obs[index]


# --- what decides an action ---


@pytest.mark.parametrize(("obs_type", "architecture"), KINDS)
def test_mean_and_sigma_depend_on_observation_and_sentence(
    obs_type: str, architecture: str
) -> None:
    policy = make_policy(obs_type, architecture)
    with th.no_grad():
        base, other_obs, other_sentence = (
            policy.control(tensors(some_obs(obs_type, seed=s)), th.tensor(some_sentences(seed=t)))
            for s, t in ((0, 1), (2, 1), (0, 2))
        )
    for changed in (other_obs, other_sentence):
        assert ((base.mean - changed.mean).abs().amax(dim=1) > 0).all()
        assert ((base.log_std - changed.log_std).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("kwargs", [{}, {"min_sigma": 0.1}])
def test_sigma_stays_in_its_bounds(kwargs: dict[str, float]) -> None:
    policy = make_policy(**kwargs)
    bounds = {-100.0: kwargs.get("min_sigma", MIN_SIGMA), 100.0: MAX_SIGMA}
    for bias, bound in bounds.items():
        nn.init.constant_(policy.log_std_net.bias, bias)
        control = policy.control(tensors(some_obs()), th.tensor(some_sentences()))
        assert (control.log_std == math.log(bound)).all()


@pytest.mark.parametrize("told_by", ["argument", "observation"])
def test_a_blind_policy_does_not_listen(told_by: str) -> None:
    def control(blind: bool, seed: int) -> np.ndarray:
        obs, sentences = some_obs("pixels_agent_pos"), some_sentences(seed=seed)
        if told_by == "argument":
            policy = make_policy("pixels_agent_pos", blind=blind)
            return policy.predict(obs, sentences, deterministic=True)[0]
        policy = make_policy(space=TOLD_SPACE, slots=None, blind=blind)
        told = tensors({**obs, "sentence": sentences})
        assert not blind or th.equal(
            policy.predict_values(told),
            policy.predict_values({**told, "sentence": th.zeros(4, 20)}),
        )
        return policy.predict({**obs, "sentence": sentences}, deterministic=True)[0]

    assert np.array_equal(control(True, 1), control(True, 2))
    assert not np.array_equal(control(False, 1), control(False, 2))


@pytest.mark.parametrize("architecture", ["attention", "tiled"])
def test_frames_may_be_hwc_or_chw(architecture: str) -> None:
    chw = spaces.Box(0, 255, (3, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for of in (lambda box: box, lambda box: spaces.Dict({"pixels": box, "agent_pos": AGENT_SPACE})):
        first = make_policy(space=of(PIXELS_SPACE), slots=None, architecture=architecture)
        second = make_policy(space=of(chw), slots=None, architecture=architecture, seed=1)
        second.load_state_dict(first.state_dict())
        is_dict = isinstance(first.observation_space, spaces.Dict)
        obs = some_obs("pixels_agent_pos" if is_dict else "pixels")
        turned = (
            {**obs, "pixels": obs["pixels"].transpose(0, 3, 1, 2)}
            if is_dict
            else obs.transpose(0, 3, 1, 2)
        )
        actions, actions_turned = (
            policy.predict(o, some_sentences(), deterministic=True)[0]
            for policy, o in ((first, obs), (second, turned))
        )
        assert np.array_equal(actions, actions_turned)
        with th.no_grad():
            sentences, sentences_turned = (
                policy.embed(tensors(o), tensors(o)).sentences
                for policy, o in ((first, obs), (second, turned))
            )
        assert th.equal(sentences, sentences_turned)


# --- predict ---


@pytest.mark.parametrize(("obs_type", "architecture"), KINDS)
@pytest.mark.parametrize("deterministic", [True, False])
def test_actions_are_within_bounds(obs_type: str, architecture: str, deterministic: bool) -> None:
    policy = make_policy(obs_type, architecture)
    nn.init.constant_(policy.action_net.bias, 10.0)
    actions, _ = policy.predict(some_obs(obs_type), some_sentences(), deterministic=deterministic)
    assert actions.shape == (4, N_ACTIONS) and actions.dtype == np.float32
    assert ((actions >= -2) & (actions <= 2)).all()
    assert actions.max() > 1.5


def test_the_mean_can_reach_bounds_that_are_not_symmetric() -> None:
    low, high = np.array([-1.0, 0.0, 2.0], np.float32), np.array([1.0, 10.0, 3.0], np.float32)
    policy = make_policy(action_space=spaces.Box(low, high))
    for bias, bound in ((20.0, high), (-20.0, low)):
        nn.init.constant_(policy.action_net.bias, bias)
        actions, _ = policy.predict(some_obs(), some_sentences(), deterministic=True)
        np.testing.assert_array_equal(actions, np.tile(bound, (4, 1)))


@pytest.mark.parametrize(("obs_type", "architecture"), KINDS)
def test_one_observation_gives_what_it_gives_in_a_batch(obs_type: str, architecture: str) -> None:
    policy = make_policy(obs_type, architecture)
    obs, sentences = some_obs(obs_type), some_sentences()
    actions, _ = policy.predict(obs, sentences, deterministic=True)
    for i in range(4):
        action, _ = policy.predict(row(obs, i), sentences[i], deterministic=True)
        assert action.shape == (N_ACTIONS,)
        np.testing.assert_allclose(action, actions[i], atol=1e-5)


def test_one_sentence_is_broadcast_and_comes_back_unchanged() -> None:
    policy, sentence = make_policy(), some_sentences(1)[0]
    before = sentence.copy()
    actions, state = policy.predict(some_obs(), sentence, deterministic=True)
    assert state is sentence and np.array_equal(sentence, before)
    each, _ = policy.predict(some_obs(), np.tile(sentence, (4, 1)), deterministic=True)
    assert np.array_equal(actions, each)


def test_the_start_of_an_episode_does_not_matter() -> None:
    policy, sentences = make_policy(), some_sentences()
    actions = [
        policy.predict(some_obs(), sentences, episode_start=start, deterministic=True)[0]
        for start in (None, np.zeros(4, bool), np.ones(4, bool))
    ]
    assert np.array_equal(actions[0], actions[1]) and np.array_equal(actions[0], actions[2])


def test_a_sample_is_drawn_unless_the_mean_is_asked_for() -> None:
    policy = make_policy()
    nn.init.constant_(policy.log_std_net.bias, -3.0)
    drawn = [policy.predict(some_obs(), some_sentences())[0] for _ in range(200)]
    mean, _ = policy.predict(some_obs(), some_sentences(), deterministic=True)
    assert np.std(drawn, axis=0).min() > 0.005
    np.testing.assert_allclose(np.mean(drawn, axis=0), mean, atol=0.05)


def test_predicting_leaves_the_mode_as_it_was() -> None:
    policy = make_policy()
    for training in (True, False):
        policy.set_training_mode(training)
        policy.predict(some_obs(), some_sentences())
        assert policy.training is training


def test_no_sentence_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=NO_SENTENCE):
        make_policy().predict(some_obs())
    with pytest.raises(ValueError, match=NO_SENTENCE):
        make_policy("pixels_agent_pos").predict(some_obs("pixels_agent_pos"))
    told = make_policy(space=TOLD_SPACE, slots=None)
    with pytest.raises(ValueError, match=NO_SENTENCE):
        told.predict(some_obs("pixels_agent_pos"))
    with pytest.raises(ValueError, match=NO_SENTENCE):
        make_policy()(tensors(some_obs()))


@pytest.mark.parametrize("shape", [(19,), (3, 20), (1, 4, 20), ()])
def test_a_sentence_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as error:
        make_policy().predict(some_obs(), np.zeros(shape, np.float32))
    assert f"shape {shape}, expected (20,) for all environments or (4, 20)" in str(error.value)


def test_an_observation_without_a_key_is_named() -> None:
    obs = some_obs("pixels_agent_pos")
    del obs["agent_pos"]
    with pytest.raises(ValueError, match=r"lacks \['agent_pos'\]; it has \['pixels'\]"):
        make_policy("pixels_agent_pos").predict(obs, some_sentences())


# --- the sentence inside the observation, as stock trainers need it ---


def test_a_sentence_in_the_observation_is_as_good_as_one_in_the_call() -> None:
    policy = make_policy(space=TOLD_SPACE, slots=None)
    obs, sentences = some_obs("pixels_agent_pos"), some_sentences()
    told = {**obs, "sentence": sentences}
    by_observation, state = policy.predict(told, deterministic=True)
    assert state is None
    assert np.array_equal(by_observation, policy.predict(obs, sentences, deterministic=True)[0])
    # Where both are there, the call's counts.
    wrong = {**obs, "sentence": some_sentences(seed=9)}
    assert np.array_equal(by_observation, policy.predict(wrong, sentences, deterministic=True)[0])
    assert not np.array_equal(by_observation, policy.predict(wrong, deterministic=True)[0])
    with th.no_grad():
        actions, values, log_prob = policy(tensors(told), deterministic=True)
    np.testing.assert_allclose(np.clip(actions.numpy(), -2, 2), by_observation, atol=1e-6)
    assert values.shape == (4, 1) and log_prob.shape == (4,)


def test_evaluate_actions_always_tells_the_entropy() -> None:
    policy = make_policy(space=TOLD_SPACE, slots=None)
    told = tensors({**some_obs("pixels_agent_pos"), "sentence": some_sentences()})
    actions = th.zeros(4, N_ACTIONS)
    values, log_prob, entropy = policy.evaluate_actions(told, actions)
    control = policy.control(told)
    normal = th.distributions.Normal(control.mean, control.log_std.exp())
    assert entropy is not None
    th.testing.assert_close(entropy, normal.entropy().sum(dim=1))
    th.testing.assert_close(log_prob, normal.log_prob(actions).sum(dim=1))
    th.testing.assert_close(values, policy.predict_values(told))


class ToldEnv(gym.Env[Any, np.ndarray]):
    """Three steps of noise, with a sentence in the observation."""

    observation_space = TOLD_SPACE
    action_space = ACTION_SPACE

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 3
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        return self._observe(), -float(np.square(action).sum()), False, self._left == 0, {}

    def _observe(self) -> dict[str, np.ndarray]:
        obs = row(some_obs("pixels_agent_pos", 1, int(self.np_random.integers(100))), 0)
        return {**obs, "sentence": some_sentences(1)[0]}


def test_ppo_fine_tunes_the_policy() -> None:
    model = PPO(
        TaskConditionedPolicy,
        ToldEnv(),
        n_steps=8,
        batch_size=8,
        n_epochs=1,
        device="cpu",
        seed=0,
        policy_kwargs={"net_arch": [16]},
    )
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(8)
    changed = {
        key for key, value in model.policy.state_dict().items() if (value != before[key]).any()
    }
    assert {"action_net.weight", "log_std_net.bias"} <= changed
    assert any(key.startswith("value_net") for key in changed)


# --- the nets ---


def test_the_tiled_nets_are_the_papers() -> None:
    space = spaces.Dict(
        {
            "pixels": spaces.Box(0, 255, (125, 125, 3), np.uint8),
            "agent_pos": spaces.Box(-np.inf, np.inf, (20,), np.float32),
        }
    )
    torques = spaces.Box(-2, 2, (7,), np.float32)
    policy = TaskConditionedPolicy(space, torques, lambda _: 0.0, architecture="tiled")
    control = policy.features_extractor.net
    assert isinstance(control, TiledExtractor) and isinstance(policy.encoder, TiledEncoder)
    # Six channels to embed, three and the 20 of the sentence to control.
    for net, n_channels in ((policy.encoder.convolutions, 6), (control.convolutions, 23)):
        layers = [layer for layer in net if isinstance(layer, nn.Conv2d)]
        assert [layer.in_channels for layer in layers] == [n_channels, 16, 16, 16]
        for layer in layers:
            assert (layer.out_channels, layer.kernel_size, layer.stride) == (16, (5, 5), (2, 2))
        assert sum(isinstance(layer, nn.ELU) for layer in net) == 4
        assert sum(isinstance(layer, nn.GroupNorm) for layer in net) == 4
    heads = [policy.mlp_extractor, policy.encoder.head[1]]
    for head in heads:
        linear = [layer for layer in head if isinstance(layer, nn.Linear)]
        assert [layer.out_features for layer in linear] == [200, 200, 200]
        assert sum(isinstance(layer, nn.ELU) for layer in head) == 3
        assert sum(isinstance(layer, nn.LayerNorm) for layer in head) == 3
    # 125 -> 63 -> 32 -> 16 -> 8: 16 x 8 x 8 features, and agent_pos beside them.
    assert policy.features_extractor.features_dim == 16 * 8 * 8 + 20
    assert policy.encoder.head[-1].out_features == 20
    assert policy.action_net.out_features == policy.log_std_net.out_features == 7


@pytest.mark.parametrize(
    ("obs_type", "architecture", "slots", "net_class", "encoder_class"),
    [
        ("pixels", "attention", None, AttentionExtractor, AttentionEncoder),
        ("pixels_agent_pos", "tiled", None, TiledExtractor, TiledEncoder),
        ("state", "attention", SLOTS, SlotExtractor, SlotEncoder),
        ("state", "attention", None, ConcatExtractor, MlpEncoder),
        ("state", "tiled", SLOTS, ConcatExtractor, MlpEncoder),
    ],
)
def test_the_observation_decides_which_nets(
    obs_type: str, architecture: str, slots: Any, net_class: type, encoder_class: type
) -> None:
    policy = make_policy(obs_type, architecture, slots=slots)
    assert isinstance(policy.features_extractor, TaskFeaturesExtractor)
    assert type(policy.features_extractor.net) is net_class
    assert type(policy.encoder) is encoder_class


@pytest.mark.parametrize(("obs_type", "architecture"), KINDS)
def test_sentences_are_unit_vectors(obs_type: str, architecture: str) -> None:
    first, last = (tensors(some_obs(obs_type, seed=seed)) for seed in (0, 1))
    sentences = make_policy(obs_type, architecture).embed(first, last).sentences
    assert sentences.shape == (4, 20)
    th.testing.assert_close(sentences.norm(dim=1), th.ones(4))
    assert (sentences[0] - sentences[1]).abs().max() > 0


def test_the_order_of_slots_does_not_matter() -> None:
    policy, obs = make_policy(), some_obs()
    swapped = obs.copy()
    swapped[:, START : START + SLOT_DIM] = obs[:, START + SLOT_DIM :]
    swapped[:, START + SLOT_DIM :] = obs[:, START : START + SLOT_DIM]
    actions, actions_swapped = (
        policy.predict(o, some_sentences(), deterministic=True)[0] for o in (obs, swapped)
    )
    np.testing.assert_allclose(actions, actions_swapped, atol=1e-5)
    with th.no_grad():
        sentences, sentences_swapped = (
            policy.embed(th.tensor(o), th.tensor(o[::-1].copy())).sentences for o in (obs, swapped)
        )
    th.testing.assert_close(sentences, sentences_swapped)


def test_the_sentence_picks_the_slot_that_looks_like_it() -> None:
    extractor = make_policy().features_extractor
    obs = th.tensor(some_obs(n=1))
    with th.no_grad():
        slots = extractor.to_inputs(obs)["slots"]
        for wanted in range(2):
            looks = extractor.net.describe(slots)
            sentence = nn.functional.normalize(looks[:, wanted] - looks[:, 1 - wanted], dim=-1)
            extractor.net.sharpness.fill_(1e3)
            features = extractor.attend(obs, sentence).latent
            th.testing.assert_close(features[:, START : START + SLOT_DIM], slots[:, wanted])
            th.testing.assert_close(features[:, START + SLOT_DIM :], slots[:, 1 - wanted])


def test_soft_argmax_finds_a_peak() -> None:
    logits = th.zeros(1, 1, 8, 10)
    logits[0, 0, 6, 2] = 50.0
    weights, positions = soft_argmax(logits)
    th.testing.assert_close(weights.sum(dim=-1), th.ones(1, 1))
    # Centres of cells: x = (2 + 0.5) / 10 * 2 - 1, y = (6 + 0.5) / 8 * 2 - 1.
    th.testing.assert_close(positions[0, 0], th.tensor([-0.5, 0.625]))
    th.testing.assert_close(coordinate_grid(8, 10)[6 * 10 + 2], positions[0, 0])


def test_where_a_policy_looked_is_a_map_over_the_image() -> None:
    control = make_policy("pixels").control(
        tensors(some_obs("pixels")), th.tensor(some_sentences())
    )
    assert control.attention is not None
    assert control.attention.shape == (4, IMAGE_SIZE // 2, IMAGE_SIZE // 2)
    tiled = make_policy("pixels", "tiled")
    assert tiled.control(tensors(some_obs("pixels")), th.tensor(some_sentences())).attention is None


def test_asking_what_is_hidden_is_asking_how_places_look() -> None:
    # Plainly: a map of looks of every place, which queries are multiplied with.
    policy = make_policy("pixels")
    pixels, sentences = th.rand(3, 3, IMAGE_SIZE, IMAGE_SIZE), th.tensor(some_sentences(3))
    net, encoder = policy.features_extractor.net, policy.encoder
    assert isinstance(net, AttentionExtractor) and isinstance(encoder, AttentionEncoder)
    looks, free = net.local(pixels - 0.5).split([net.sentence_dim, net.n_free], dim=1)
    queries = net.query(sentences).unflatten(-1, (net.n_queried, net.sentence_dim))
    queries = th.cat([net.sharpness * sentences[:, None], queries], dim=1)
    queried = th.einsum("nkd,ndhw->nkhw", queries, looks)
    _, positions = soft_argmax(th.cat([queried, free], dim=1))
    features = net({"pixels": pixels, "sentence": sentences})
    th.testing.assert_close(features.latent, positions.flatten(1))
    assert features.attention is not None
    th.testing.assert_close(
        features.attention.flatten(1).log_softmax(-1), queried[:, 0].flatten(1).log_softmax(-1)
    )
    weights, _ = soft_argmax(encoder.where(th.cat([pixels, pixels.flip(0)], dim=1) - 0.5))
    described = F.normalize(th.einsum("np,ndp->nd", weights[:, 0], looks.flatten(2)), dim=-1)
    th.testing.assert_close(encoder(pixels, pixels.flip(0)).sentences, described)


@pytest.mark.parametrize(
    ("crop", "cut", "kept"),
    [
        ((0.25, 0, 0, 0), np.s_[:, : IMAGE_SIZE // 4], np.s_[:, IMAGE_SIZE // 4]),
        ((0, 0.25, 0, 0), np.s_[:, -IMAGE_SIZE // 4 :], np.s_[:, -IMAGE_SIZE // 4 - 1]),
        ((0, 0, 0.25, 0), np.s_[:, :, : IMAGE_SIZE // 4], np.s_[:, :, IMAGE_SIZE // 4]),
        ((0, 0, 0, 0.25), np.s_[:, :, -IMAGE_SIZE // 4 :], np.s_[:, :, -IMAGE_SIZE // 4 - 1]),
    ],
)
def test_the_cropped_part_of_an_image_does_not_matter(crop, cut, kept) -> None:
    policy = make_policy("pixels", crop=crop)
    obs = some_obs("pixels")
    other = obs.copy()
    other[cut] = 0
    actions, actions_other = (
        policy.predict(o, some_sentences(), deterministic=True)[0] for o in (obs, other)
    )
    assert np.array_equal(actions, actions_other)
    other[kept] = 0
    assert not np.array_equal(
        actions, policy.predict(other, some_sentences(), deterministic=True)[0]
    )


def test_places_move_with_the_crop() -> None:
    extractor = make_policy("pixels", crop=(0.25, 0, 0.5, 0.25)).features_extractor
    places = th.tensor(
        [[0.5, 1.0], [0.0, -0.5], [0.25, 0.25]]
    )  # bottom right, upper left and middle of the crop
    expected = th.tensor([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]])
    th.testing.assert_close(extractor.crop_positions(places), expected)


def test_vectors_are_normalised_by_what_was_seen() -> None:
    extractor = make_policy().features_extractor
    rng = np.random.default_rng(0)
    seen = (3 + 5 * rng.normal(size=(500, STATE_DIM))).astype(np.float32)
    seen[:, 0] = 7.0  # constant
    extractor.fit_normalisation(th.tensor(seen))
    inputs = extractor.to_inputs(th.tensor(seen))
    th.testing.assert_close(inputs["vector"][:, 0], th.zeros(500))
    for values in (inputs["vector"][:, 1:], inputs["slots"].flatten(0, 1)):
        assert values.mean(dim=0).abs().max() < 1e-4
        th.testing.assert_close(values.std(dim=0), th.ones(values.shape[1]), rtol=1e-3, atol=1e-3)
    # One statistic for all slots: which slot an object has says nothing.
    assert extractor.slots_mean.shape == (SLOT_DIM,)


def test_low_precision_convolutions_still_give_float32() -> None:
    net = Convolutions(nn.Conv2d(3, 4, 3))
    images = th.rand(2, 3, 8, 8)
    exact = net(images)
    net.low_precision = True
    rough = net(images)
    assert rough.dtype == th.float32 and not th.equal(rough, exact)
    th.testing.assert_close(rough, exact, rtol=0.05, atol=0.02)


# --- copies, and wrong arguments ---


@pytest.mark.parametrize(("obs_type", "architecture"), KINDS)
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "save"])
def test_copies_act_alike(obs_type: str, architecture: str, how: str, tmp_path: Path) -> None:
    policy = make_policy(obs_type, architecture)
    if how == "pickle":
        copied = pickle.loads(pickle.dumps(policy))
    elif how == "deepcopy":
        copied = copy.deepcopy(policy)
    else:
        # SB3's own `load` calls torch.load in a way that fails since torch 2.6.
        policy.save(str(tmp_path / "policy"))
        saved = th.load(tmp_path / "policy", weights_only=False)
        copied = TaskConditionedPolicy(**saved["data"])
        copied.load_state_dict(saved["state_dict"])
    obs, sentences = some_obs(obs_type), some_sentences()
    actions, _ = policy.predict(obs, sentences, deterministic=True)
    assert np.array_equal(actions, copied.predict(obs, sentences, deterministic=True)[0])
    # A copy is of its own: its encoder describes with its own net, not the original's.
    for parameter in copied.parameters():
        nn.init.zeros_(parameter)
    assert np.array_equal(actions, policy.predict(obs, sentences, deterministic=True)[0])
    obs_tensors = tensors(obs)
    assert copied.embed(obs_tensors, obs_tensors).sentences.abs().max() == 0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="architecture is 'lstm', expected 'tiled' or 'attention'"):
        make_policy(architecture="lstm")
    with pytest.raises(ValueError, match=r"action space is Discrete\(3\), expected a bounded Box"):
        make_policy(action_space=spaces.Discrete(3))
    with pytest.raises(ValueError, match="expected a bounded Box"):
        make_policy(action_space=spaces.Box(-np.inf, np.inf, (2,)))
    for sigma in (0.0, -1.0, 7.4, float("nan")):
        with pytest.raises(ValueError, match=rf"min_sigma is {sigma}, expected more than 0"):
            make_policy(min_sigma=sigma)
    with pytest.raises(ValueError, match=r"crop is \(0\.5, 0\.5, 0, 0\), expected four"):
        make_policy("pixels", crop=(0.5, 0.5, 0, 0))
    with pytest.raises(ValueError, match=r"SlotLayout\(start=4, count=3, .* does not fit.* 14 num"):
        make_policy(slots=SlotLayout(4, 3))
    with pytest.raises(ValueError, match=r"Two images \['a', 'b'\] in the observation"):
        make_policy(space=spaces.Dict({"a": PIXELS_SPACE, "b": PIXELS_SPACE}))
    with pytest.raises(ValueError, match="expected a Box with 1 dimension"):
        make_policy(space=spaces.Box(0, 1, (2, 2)))


def test_predict_has_the_signature_of_sb3() -> None:
    ours, theirs = (
        inspect.signature(cls.predict).parameters for cls in (TaskConditionedPolicy, BasePolicy)
    )
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


def test_control_is_not_told_how_objects_look() -> None:
    """Else it learns the training tasks by heart: the pose alone goes past the attention."""
    extractor = SlotExtractor(slot_dim=8, vector_dim=3, sentence_dim=20, pose_dim=5)
    extractor.sharpness.data.zero_()  # attention that no looks can change
    inputs = {
        "slots": th.randn(6, 2, 8),
        "vector": th.randn(6, 3),
        "sentence": F.normalize(th.randn(6, 20), dim=-1),
    }
    repainted = inputs["slots"].clone()
    repainted[..., 5:] = th.randn(6, 2, 3)
    latent = extractor(inputs).latent
    assert latent.shape == (6, extractor.features_dim) == (6, 3 + 2 * 5)
    assert th.equal(extractor({**inputs, "slots": repainted}).latent, latent)
    moved = inputs["slots"].clone()
    moved[..., 0] += 1
    assert not th.equal(extractor({**inputs, "slots": moved}).latent, latent)
