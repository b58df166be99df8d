"""The mixture head and the action chunks: `EntBC` but for the head."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from torch.utils._pytree import tree_map
from toys import ACTION_SPACE, DICT_SPACE, N_ACTIONS, make_demonstrations, make_model

from ent_bc import LossConfig
from ent_bc.baselines import ChunkNet, MixtureNet
from ent_bc.baselines.modern import (
    DECAY,
    HORIZON,
    MIN_SIGMA,
    N_COMPONENTS,
    SENTENCE_DIM,
    AttentionNet,
)
from ent_bc.batches import BatchConfig, TaskBatches
from ent_bc.demonstrations import index_obs
from ent_bc.losses import TaskLoss

NETS = [MixtureNet, ChunkNet]
CROP = (0.25, 0.0, 0.0, 0.25)
DEMOS = make_demonstrations("pixels_agent_pos", n_pairs=2, n_demos=3)


def make(net_class: type[AttentionNet], **options: Any) -> Any:
    th.manual_seed(0)
    return net_class(DICT_SPACE, ACTION_SPACE, **options)


def batch(config: BatchConfig) -> tuple[Any, th.Tensor]:
    tensors = tree_map(th.as_tensor, TaskBatches(DEMOS, 4, config, seed=0).batch(0))
    return tensors["obs"], tensors["acts"]


def latents(net: AttentionNet, *shape: int) -> th.Tensor:
    return th.randn(*shape, net.extractor.features_dim, generator=th.Generator().manual_seed(1))


# --- what they have of EntBC ---


@pytest.mark.parametrize("net_class", NETS)
def test_but_for_the_heads_errors_the_loss_is_that_of_ent_bc(
    net_class: type[AttentionNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make(net_class, crop=CROP)
    policy = make_model("pixels_agent_pos", policy_kwargs={"crop": CROP}).policy
    policy.features_extractor.net.load_state_dict(net.extractor.state_dict())
    policy.encoder.load_state_dict(net.encoder.state_dict())
    obs, acts = batch(net.batches)
    obs["attention_target"][0, 0, 0] = math.nan  # not every place is known
    metrics = TaskLoss(LossConfig(), ent_weight=0.0, l2_weight=0.0, n_support=1)(policy, obs, acts)
    for weight, demo in ((2.0, 0), (3.0, 1)):  # support and query weigh the same
        errors = th.zeros(acts.shape[:3])
        errors[:, demo] = weight
        monkeypatch.setattr(net, "errors", lambda *_, errors=errors: errors)
        expected = metrics.embedding_loss + 0.3 * metrics.attention_loss + weight
        th.testing.assert_close(net.loss(obs, acts), expected)


@pytest.mark.parametrize("net_class", NETS)
def test_the_hindsight_places_teach_both_maps_where_to_look(
    net_class: type[AttentionNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make(net_class)
    monkeypatch.setattr(net, "errors", lambda *_: th.zeros(1, 2, 1))
    optimizer = th.optim.Adam(net.parameters(), lr=5e-3)
    obs, acts = batch(net.batches)
    looked = []
    for _ in range(30):
        loss = net.loss(obs, acts)
        optimizer.zero_grad()
        loss.backward()
        assert net.extractor.sharpness.grad  # only the map of the current picture depends on it
        assert net.encoder.where[0].weight.grad.any()
        optimizer.step()
        looked.append(loss.item())
    assert looked[-1] < looked[0] - 0.1


@pytest.mark.parametrize("net_class", NETS)
def test_where_no_place_is_known_nothing_is_taught_about_places(
    net_class: type[AttentionNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make(net_class)
    monkeypatch.setattr(net, "errors", lambda *_: th.zeros(1, 2, 1))
    obs, acts = batch(net.batches)
    for name in ("attention_target", "demo_target"):
        obs[name].fill_(math.nan)
    net.loss(obs, acts).backward()
    assert not net.extractor.sharpness.grad
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("net_class", NETS)
def test_of_several_demonstrations_the_sentence_is_the_normalised_mean(
    net_class: type[AttentionNet],
) -> None:
    net = make(net_class)
    each = np.stack([net.embed(demo) for demo in DEMOS[:3]])[:, :SENTENCE_DIM]
    mean = each.mean(axis=0)
    assert not np.allclose(each[0], each[1], atol=1e-3)
    np.testing.assert_allclose(
        net.embed(DEMOS[:3])[:SENTENCE_DIM], mean / np.linalg.norm(mean), atol=1e-6
    )


# --- the mixture ---


def test_the_mixtures_error_is_the_negative_log_likelihood_of_its_gaussians() -> None:
    net = make(MixtureNet)
    latent = latents(net, 2, 2, 3)
    acts = th.randn(2, 2, 3, N_ACTIONS, generator=th.Generator().manual_seed(2))
    means = net.means(latent).unflatten(-1, (N_COMPONENTS, N_ACTIONS))
    spread = net.spread(latent).unflatten(-1, (N_COMPONENTS, 1 + N_ACTIONS))
    sigmas = (1 + spread[..., 1:].exp()).log() + MIN_SIGMA
    weights = spread[..., 0].exp() / spread[..., 0].exp().sum(dim=-1, keepdim=True)
    scaled = (acts[..., None, :] - means) / sigmas
    densities = (-scaled.square() / 2).exp() / (sigmas * math.sqrt(2 * math.pi))
    likelihood = (weights * densities.prod(dim=-1)).sum(dim=-1)
    th.testing.assert_close(net.errors(latent, {}, acts), -likelihood.log())


@pytest.mark.parametrize("best", range(N_COMPONENTS))
def test_the_mixture_answers_with_the_mean_of_its_most_probable_gaussian(best: int) -> None:
    net = make(MixtureNet)
    obs, sentence = index_obs(DEMOS[0].obs, [0, 1]), net.embed([[DEMOS[0]], [DEMOS[3]]])
    with th.no_grad():
        net.spread[-1].bias.view(N_COMPONENTS, -1)[best, 0] = 10.0
        latent = net.attend(tree_map(th.as_tensor, obs), th.as_tensor(sentence)).latent
        means = net.means(latent).view(2, N_COMPONENTS, N_ACTIONS)
    acts, after = net.predict(obs, state=sentence)
    np.testing.assert_allclose(acts, means[:, best], rtol=1e-5)
    np.testing.assert_array_equal(after, sentence)


def test_the_mixture_learns_two_answers_and_gives_one_of_them() -> None:
    net = make(MixtureNet)
    latent = latents(net, 1).expand(64, 1, 1, -1)
    acts = th.ones(64, 1, 1, N_ACTIONS)
    acts[:24] = -1
    optimizer = th.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(150):
        loss = net.errors(latent, {}, acts).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mixture = net.mixture(latent[0, 0])
    best = mixture.mixture_distribution.logits.argmax()
    answer = mixture.component_distribution.mean[0, best].detach()
    np.testing.assert_allclose(answer, 1.0, atol=0.1)  # not 0.25, the mean of all


# --- the chunks ---


def test_a_chunks_error_is_the_absolute_one_of_the_next_actions() -> None:
    net = make(ChunkNet)
    latent = latents(net, 4, 2, 3)
    obs, acts = batch(BatchConfig(n_steps=3, chunk=HORIZON))
    errors = net.errors(latent, obs, acts)
    planned = net.head(latent[1, 0, 2]).view(HORIZON, N_ACTIONS)
    expected = (planned - obs["chunks"][1, 0, 2]).abs().sum() / HORIZON
    th.testing.assert_close(errors[1, 0, 2], expected)
    assert errors.shape == (4, 2, 3)


def test_an_action_is_the_weighted_mean_of_what_the_last_chunks_planned_for_its_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = make(ChunkNet)
    n_steps = 2 * HORIZON + 3
    plans = np.random.default_rng(0).uniform(-2, 2, (n_steps, 2, HORIZON, N_ACTIONS))
    tensors = iter(th.as_tensor(plans, dtype=th.float32))
    monkeypatch.setattr(net, "chunks", lambda _: next(tensors))
    state = net.embed([[DEMOS[0]], [DEMOS[3]]])
    sentences = state[:, :SENTENCE_DIM]
    for step in range(n_steps):
        acts, state = net.predict(index_obs(DEMOS[0].obs, [0, 1]), state=state)
        oldest = max(0, step - HORIZON + 1)
        made_at = np.arange(oldest, step + 1)
        weights = np.exp(-DECAY * (made_at - oldest))
        planned = plans[made_at, :, step - made_at]
        expected = np.einsum("i,ina->na", weights, planned) / weights.sum()
        np.testing.assert_allclose(acts, expected, atol=1e-5)
        np.testing.assert_array_equal(state[:, :SENTENCE_DIM], sentences)
