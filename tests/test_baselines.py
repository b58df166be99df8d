"""The systems that `EntBC` is compared with: each does what it says, and each learns.

A further system is a line in `SYSTEMS`, and one in `VIDEO_ONLY` if it is that.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from torch.utils._pytree import tree_map
from toys import (
    ACTION_SPACE,
    DICT_SPACE,
    N_ACTIONS,
    PIXELS_SPACE,
    Demo,
    Task,
    TaskEnv,
    make_demonstrations,
)

from ent_bc.baselines import (
    ChunkNet,
    ContextualNet,
    DuanNet,
    Imitator,
    LstmNet,
    MixtureNet,
    TrainConfig,
    train,
)
from ent_bc.baselines.imitator import ActionHead, Shown
from ent_bc.batches import TaskBatches
from ent_bc.demonstrations import index_obs
from ent_bc.evaluation import EvaluationConfig, evaluate_k_shot

SPACING = 3
SYSTEMS: dict[str, Callable[..., Imitator]] = {
    "contextual": ContextualNet,
    "lstm": functools.partial(LstmNet, hidden_size=64, spacing=SPACING),
    "duan": DuanNet,
    "mixture": MixtureNet,
    "chunks": ChunkNet,
}
VIDEO_ONLY = ["contextual", "lstm", "duan", "mixture", "chunks"]
POOLED = ["contextual", "lstm", "duan"]
DEMOS = make_demonstrations("pixels_agent_pos", n_pairs=2, n_demos=3)


def make(system: str, space: Any = DICT_SPACE, **options: Any) -> Imitator:
    th.manual_seed(0)
    return SYSTEMS[system](space, ACTION_SPACE, **options)


def observations(n: int, space: Any = DICT_SPACE) -> Any:
    demo = DEMOS[0].obs if space is DICT_SPACE else DEMOS[0].obs["pixels"]
    return index_obs(demo, np.arange(n))


# --- shapes ---


@pytest.mark.parametrize("system", SYSTEMS)
def test_embed_takes_one_demonstration_several_of_a_task_or_those_of_several_tasks(
    system: str,
) -> None:
    net = make(system)
    one, listed = net.embed(DEMOS[0]), net.embed([DEMOS[0]])
    tasks = net.embed([[DEMOS[0]], [DEMOS[3]]])
    assert one.dtype == tasks.dtype == np.float32
    assert one.ndim == 1
    assert np.array_equal(one, listed)
    assert tasks.shape == (2, len(one))


@pytest.mark.parametrize("n_demos", [1, 3])
@pytest.mark.parametrize("system", SYSTEMS)
def test_predict_acts_for_a_batch_and_hands_on_the_states(system: str, n_demos: int) -> None:
    net = make(system)
    state = net.embed([DEMOS[:n_demos], DEMOS[3 : 3 + n_demos]])
    for _ in range(2):
        acts, after = net.predict(observations(2), state=state)
        assert acts.shape == (2, N_ACTIONS)
        assert after.shape == state.shape
        assert after.dtype == np.float32
        state = after


@pytest.mark.parametrize("system", SYSTEMS)
def test_actions_are_clipped(system: str) -> None:
    net = make(system)
    with th.no_grad():
        for module in net.modules():
            if isinstance(module, ActionHead):
                module.linear.bias.fill_(1e3)
    acts, _ = net.predict(observations(1), state=net.embed([[DEMOS[0]]]))
    np.testing.assert_array_equal(acts, [ACTION_SPACE.high])


def test_what_cannot_be_shown_or_acted_on_is_told() -> None:
    net = make("lstm")
    with pytest.raises(ValueError, match="list of demonstrations is empty"):
        net.embed([])
    short = dataclasses.replace(DEMOS[0], obs=observations(4), acts=DEMOS[0].acts[:3])
    with pytest.raises(ValueError, match="has 4 observations, expected at least 10"):
        net.embed(short)
    with pytest.raises(ValueError, match="no sentence was given"):
        net.predict(observations(1))


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_image_alone_is_observation_enough(system: str) -> None:
    net = make(system, PIXELS_SPACE)
    demos = make_demonstrations("pixels", n_pairs=2, n_demos=2)
    train(net, demos, TrainConfig(n_batches=1, batch_size=2))
    acts, _ = net.predict(observations(1, PIXELS_SPACE), state=net.embed([[demos[0]]]))
    assert np.isfinite(acts).all()


@pytest.mark.parametrize("system", POOLED)
def test_features_may_be_where_in_the_picture_each_filter_answers_most(system: str) -> None:
    flat, pooled = (make(system, pooling=pooling) for pooling in ("flatten", "spatial softmax"))
    acts, _ = pooled.predict(observations(1), state=pooled.embed([[DEMOS[0]]]))
    assert np.isfinite(acts).all()
    assert n_parameters(pooled) < n_parameters(flat)


def n_parameters(net: Imitator) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


# --- what a state depends on ---


@pytest.mark.parametrize("system", VIDEO_ONLY)
def test_of_a_demonstration_only_the_video_matters(system: str) -> None:
    net = make(system)
    demo = DEMOS[0]
    silent = dataclasses.replace(
        demo,
        obs={**demo.obs, "agent_pos": demo.obs["agent_pos"] + 1},
        acts=np.zeros_like(demo.acts),
    )
    blank = dataclasses.replace(demo, obs={**demo.obs, "pixels": 0 * demo.obs["pixels"]})
    assert np.array_equal(net.embed(demo), net.embed(silent))
    assert not np.array_equal(net.embed(demo), net.embed(blank))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_state_and_its_actions_do_not_depend_on_the_batchs_other_tasks(system: str) -> None:
    net = make(system)
    alone = net.embed([[DEMOS[0]]])
    beside = net.embed([[DEMOS[3]], [DEMOS[0]]])
    np.testing.assert_allclose(beside[1:], alone, rtol=1e-4, atol=1e-5)
    acts, after = net.predict(observations(2), state=beside)
    second = index_obs(DEMOS[0].obs, [1])
    acts_alone, after_alone = net.predict(second, state=alone)
    np.testing.assert_allclose(acts[1:], acts_alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after[1:], after_alone, rtol=1e-4, atol=1e-5)


def test_the_lstm_remembers_only_frames_as_far_apart_as_in_training() -> None:
    net = make("lstm")
    memories = [net.embed([[DEMOS[0]]])]
    for step in range(7):
        memories.append(net.predict(index_obs(DEMOS[1].obs, [step]), state=memories[-1])[1])
    changed = [
        not np.array_equal(before[:, :-1], after[:, :-1])
        for before, after in zip(memories, memories[1:], strict=False)
    ]
    assert changed == [step % SPACING == 0 for step in range(7)]


def test_the_lstm_acts_step_by_step_as_it_does_over_a_whole_rollout() -> None:
    th.manual_seed(0)
    net = LstmNet(DICT_SPACE, ACTION_SPACE, hidden_size=8, spacing=1)
    state = net.embed([[DEMOS[0]]])
    rollout = net.perceive({key: th.as_tensor(leaf) for key, leaf in observations(5).items()})
    at_once = net.roll_out({key: leaf[None] for key, leaf in rollout.items()}, th.tensor(state))
    for step in range(5):
        acts, state = net.predict(index_obs(DEMOS[0].obs, [step]), state=state)
        np.testing.assert_allclose(acts[0], at_once[0, step].detach(), rtol=1e-4, atol=1e-5)


def test_the_lstm_says_what_is_wrong_with_its_spacing() -> None:
    with pytest.raises(ValueError, match="spacing is 0, expected at least 1"):
        LstmNet(DICT_SPACE, ACTION_SPACE, spacing=0)


def test_duans_net_remembers_each_frame_of_each_demonstration() -> None:
    net = make("duan", width=16)
    assert len(net.embed(DEMOS[0])) == 10 * 16
    assert len(net.embed(DEMOS[:3])) == 3 * 10 * 16


def test_duans_net_knows_when_in_its_demonstration_a_frame_is() -> None:
    still = Shown(
        obs={"features": th.zeros(1, 1, 4, make("duan").pictures.n_features)},
        acts=th.zeros(1, 1, 4, N_ACTIONS),
        last={"features": th.zeros(1, 1, make("duan").pictures.n_features)},
    )
    frames = make("duan").remember(still).unflatten(-1, (5, -1))[0]
    assert len(frames.unique(dim=0)) == 5


# --- training ---


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_seed_trains_the_same_parameters(system: str) -> None:
    nets = [make(system) for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        train(net, DEMOS, TrainConfig(n_batches=3, batch_size=2, seed=seed))
    first, same, other = (th.nn.utils.parameters_to_vector(net.parameters()) for net in nets)
    assert th.equal(first, same)
    assert not th.equal(first, other)


@pytest.mark.parametrize("n_steps", [1, None])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_batch_may_have_any_number_of_frames(system: str, n_steps: int | None) -> None:
    net = make(system)
    config = dataclasses.replace(net.batches, n_steps=n_steps)
    batch = TaskBatches(DEMOS, 4, config, seed=0).batch(0)
    tensors = tree_map(th.as_tensor, batch)
    net.loss(tensors["obs"], tensors["acts"]).backward()
    norms = [p.grad.norm() for p in net.parameters() if p.grad is not None]
    assert all(norm.isfinite() for norm in norms)
    assert sum(norms) > 0


def cued_demonstrations(seed: int, n_tasks: int = 12) -> list[Demo]:
    """Grey, but the last picture is white or black, and says what to do in all steps."""
    demos = make_demonstrations("pixels_agent_pos", n_pairs=n_tasks // 2, n_demos=2, seed=seed)
    for demo in demos:
        is_high = demo.infos[0]["task_id"].endswith("a")
        demo.obs["pixels"][:] = 128
        demo.obs["pixels"][-1] = 255 * is_high
        demo.acts[:] = 1 if is_high else -1
    return demos


# The others remember how a thing looked, and this last picture has none.
@pytest.mark.parametrize("system", POOLED)
def test_it_learns_to_do_what_only_the_demonstration_tells(system: str) -> None:
    net = make(system)
    train(net, cued_demonstrations(0), TrainConfig(n_batches=60, batch_size=4, learning_rate=2e-3))
    demos = cued_demonstrations(1)
    state = net.embed([[demo] for demo in demos])
    current = index_obs(demos[0].obs, [0] * len(demos))
    acts, _ = net.predict(current, state=state)
    np.testing.assert_array_equal(np.sign(acts), [demo.acts[0] for demo in demos])


# --- each learns: no baseline loses by a bug ---

SLOWER = {"chunks": TrainConfig(n_batches=500, batch_size=8, learning_rate=4e-3)}
N_TRAIN_PAIRS, N_TEST_PAIRS = 60, 4
MARKS = np.array([[1.0, -1, -1], [-1, -1, 1]])  # the target is red, the other thing blue


@dataclasses.dataclass(frozen=True)
class SparseDemo(Demo):
    """A demonstration with observations at some steps, as data sets store it."""

    steps: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))


class MarkedEnv(TaskEnv):
    """The target is marked in the image, and the agent feels whether it holds it."""

    noise = 0.0  # in demonstrations, so that they show how to come back

    def __init__(
        self,
        split: str = "train",
        n_tasks: int | None = None,
        split_seed: int = 0,
        obs_type: str = "pixels_agent_pos",
    ) -> None:
        super().__init__(obs_type)
        first, n_pairs = {"train": (0, N_TRAIN_PAIRS), "test": (N_TRAIN_PAIRS, N_TEST_PAIRS)}[split]
        self.tasks = [Task(first + pair, target) for pair in range(n_pairs) for target in range(2)]

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return super().step(action + self.noise * self.np_random.normal(size=N_ACTIONS))

    def get_demonstrations(self, task: Any, n: int, *, seed: int | None = None) -> list[Demo]:
        env, rng = MarkedEnv(), np.random.default_rng(seed)
        env.noise = 1.0
        env.reset(options={"task": task})
        return [sparse(env._demonstrate(int(rng.integers(2**31))), rng) for _ in range(n)]

    def _looks(self) -> np.ndarray:
        return MARKS if self.task.target == 0 else MARKS[::-1]

    def _observe(self) -> Any:
        obs = super()._observe()
        obs["agent_pos"][2] = self._stuck[self.task.target]
        return obs


def sparse(demo: Demo, rng: np.random.Generator) -> SparseDemo:
    """The first observation, 8 others, the last."""
    n_steps = len(demo.acts)
    others = rng.choice(np.arange(1, n_steps), size=8, replace=False)
    steps = np.array([0, *np.sort(others), n_steps])
    return SparseDemo(index_obs(demo.obs, steps), demo.acts, demo.infos, steps=steps)


@pytest.fixture(scope="module")
def marked() -> Iterator[str]:
    gym.register("Marked-v0", MarkedEnv)
    yield "Marked-v0"
    del gym.registry["Marked-v0"]


@pytest.fixture(scope="module")
def marked_demonstrations() -> list[Demo]:
    env = MarkedEnv()
    return [
        demo
        for seed, task in enumerate(env.tasks)
        for demo in env.get_demonstrations(task, 4, seed=seed)
    ]


def share_shown(net: Imitator, env_id: str) -> float:
    """Of trials with new pairs' tasks, in how many the shown thing was brought to the goal."""
    trials = evaluate_k_shot(net, EvaluationConfig(image_size=None), env_id=env_id)
    assert len(trials) == 48
    return float(np.mean([trial.success for trial in trials]))


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_learns_where_the_target_is_marked_in_the_image(
    system: str, marked: str, marked_demonstrations: list[Demo]
) -> None:
    net = make(system)
    assert share_shown(net, marked) <= 0.2
    config = TrainConfig(n_batches=250, batch_size=8, learning_rate=2e-3)
    train(net, marked_demonstrations, SLOWER.get(system, config))
    assert share_shown(net, marked) >= 0.9
