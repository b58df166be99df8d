"""`EntBC`: constructed and trained as imitation's BC, driven and used as an SB3 model."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from imitation.algorithms import bc
from imitation.data.types import Trajectory
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_policies import some_obs, some_sentences
from toys import (
    ACTION_SPACE,
    N_ACTIONS,
    SLOTS,
    SPACES,
    STATE_SPACE,
    Demo,
    make_demonstrations,
    make_model,
    parameters_of,
    same,
)

from ent_bc import (
    BatchConfig,
    EntBC,
    LossConfig,
    ScheduleConfig,
    TaskConditionedPolicy,
    as_trajectories,
)
from ent_bc.inputs import SlotLayout
from ent_bc.layers import Convolutions
from ent_bc.presets import PRESETS


class ToyEnv(gym.Env[np.ndarray, np.ndarray]):
    """Spaces, a layout of slots, and five steps of nothing."""

    observation_space = STATE_SPACE
    action_space = ACTION_SPACE
    slot_layout = SLOTS

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 5
        return np.zeros(STATE_SPACE.shape, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        return np.zeros(STATE_SPACE.shape, np.float32), 1.0, False, self._left == 0, {}


def train(model: EntBC, n_batches: int = 3, **kwargs: Any) -> EntBC:
    model.train(n_batches=n_batches, progress_bar=False, **kwargs)
    return model


# --- both worlds' constructors ---


def test_it_is_an_imitation_trainer_with_all_of_its_keywords() -> None:
    assert issubclass(EntBC, bc.BC)
    ours, theirs = (inspect.signature(cls.__init__).parameters for cls in (EntBC, bc.BC))
    assert set(theirs) <= set(ours)
    positional = [p for p in ours.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [p.name for p in positional] == ["self", "policy", "env"]


def test_train_has_the_signature_of_bc() -> None:
    ours, theirs = (inspect.signature(cls.train).parameters for cls in (EntBC, bc.BC))
    assert list(ours) == list(theirs)
    for name, parameter in theirs.items():
        assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default), name


@pytest.mark.parametrize("method", ["learn", "predict"])
def test_learn_and_predict_have_the_signatures_of_sb3(method: str) -> None:
    ours, theirs = (
        inspect.signature(getattr(cls, method)).parameters for cls in (EntBC, BaseAlgorithm)
    )
    assert list(ours) == list(theirs)
    for name in set(theirs) - {"log_interval", "tb_log_name"}:
        assert ours[name].default == theirs[name].default, name


def test_the_ways_to_construct_make_the_same_model() -> None:
    demonstrations = make_demonstrations()
    spaces_of = {"observation_space": STATE_SPACE, "action_space": ACTION_SPACE}
    models = [
        EntBC("TaskPolicy", ToyEnv(), seed=0, demonstrations=demonstrations),
        EntBC("MlpPolicy", DummyVecEnv([ToyEnv]), seed=0, demonstrations=demonstrations),
        EntBC(TaskConditionedPolicy, ToyEnv(), seed=0, demonstrations=demonstrations),
        EntBC(
            **spaces_of,
            rng=np.random.default_rng(0),
            policy_kwargs={"slots": SLOTS},
            seed=0,
            demonstrations=demonstrations,
        ),
    ]
    late = EntBC("TaskPolicy", ToyEnv(), seed=0)
    late.set_demonstrations(demonstrations)
    th.manual_seed(0)
    policy = TaskConditionedPolicy(STATE_SPACE, ACTION_SPACE, lambda _: 0.0, slots=SLOTS)
    instance = EntBC(policy, **spaces_of, seed=0, demonstrations=demonstrations)
    trained = [parameters_of(train(model)) for model in (*models, late, instance)]
    for other in trained[1:]:
        assert same(trained[0], other)


def test_an_environment_may_be_an_id_and_tells_its_slots() -> None:
    gym.register("Toy-v0", ToyEnv)
    try:
        model = EntBC(env="Toy-v0")
    finally:
        del gym.registry["Toy-v0"]
    assert model.policy.features_extractor.layout.slots == SlotLayout(**SLOTS)
    assert model.get_env() is not None
    plain = EntBC(env=ToyEnv(), policy_kwargs={"slots": None})
    assert plain.policy.features_extractor.layout.slots is None


@pytest.mark.parametrize("name", ["TaskPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
def test_aliases_are_one_class(name: str) -> None:
    assert EntBC.policy_aliases[name] is TaskConditionedPolicy


def test_the_defaults_are_the_pixel_presets_and_the_papers_are_a_preset() -> None:
    parameters = inspect.signature(EntBC.__init__).parameters
    assert parameters["ent_weight"].default == 1e-5
    assert parameters["batch_size"].default == PRESETS["pixels"].batch_size
    assert PRESETS["pixels"].losses == LossConfig() and PRESETS["pixels"].batches == BatchConfig()
    paper = PRESETS["paper"]
    assert (paper.losses.margin, paper.losses.pairing) == (0.1, "query")
    losses = paper.losses
    assert (losses.embedding_weight, losses.support_weight, losses.query_weight) == (1.0, 0.1, 0.1)
    assert losses.attention_weight == 0 and paper.ent_weight == 1e-5
    assert (paper.batch_size, paper.image_size, paper.learning_rate) == (100, 125, 5e-4)
    assert (paper.batches.n_support, paper.batches.n_query, paper.n_batches) == (5, 5, 2000)
    assert paper.policy_kwargs["architecture"] == "tiled"


def test_wrong_constructor_arguments_are_named() -> None:
    known = {"observation_space": STATE_SPACE, "action_space": ACTION_SPACE}
    with pytest.raises(ValueError, match=r"Unknown policy 'LstmPolicy': expected one of \['CnnPol"):
        EntBC("LstmPolicy", **known)
    with pytest.raises(ValueError, match="architecture is 'lstm', expected 'tiled' or 'attention'"):
        EntBC(**known, policy_kwargs={"architecture": "lstm"})
    with pytest.raises(ValueError, match="policy is 3, expected a TaskConditionedPolicy"):
        EntBC(3, **known)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs env, or observation_space and action_space"):
        EntBC(observation_space=STATE_SPACE)
    with pytest.raises(ValueError, match="multiple of minibatch size"):
        EntBC(**known, batch_size=8, minibatch_size=3)


# --- what to learn from ---


STATE_DEMO = make_demonstrations(n_pairs=1)[0]
NAN_OBS, NAN_ACTS = STATE_DEMO.obs.copy(), STATE_DEMO.acts.copy()
NAN_OBS[3, 2] = NAN_ACTS[1, 0] = np.nan


@pytest.mark.parametrize(
    ("obs_type", "spoil", "message"),
    [
        pytest.param("state", None, "is empty, expected at least one", id="none"),
        pytest.param("state", {"obs": NAN_OBS}, "NaN or infinite observations", id="NaN obs"),
        pytest.param("state", {"acts": NAN_ACTS}, "NaN or infinite actions", id="NaN acts"),
        pytest.param(
            "state", {"obs": STATE_DEMO.obs[:, :3]}, "shape (13, 3), expected", id="shape"
        ),
        pytest.param("state", {"infos": [{}] * 12}, "does not say its task", id="no task_id"),
        pytest.param(
            "pixels", {"obs": np.zeros((13, 32, 32, 3), np.uint8)}, "(13, 32, 32, 3)", id="size"
        ),
        pytest.param(
            "pixels", {"obs": np.zeros((13, 24, 24, 3), np.float32)}, "dtype float32", id="dtype"
        ),
    ],
)
def test_bad_demonstrations_are_refused(obs_type: str, spoil: Any, message: str) -> None:
    demonstrations: list[Demo] = []
    if spoil is not None:
        demonstrations = make_demonstrations(obs_type)
        demonstrations[4] = dataclasses.replace(demonstrations[4], **spoil)
    for as_argument in (True, False):
        with pytest.raises(ValueError) as error:
            if as_argument:
                make_model(obs_type, demonstrations=demonstrations)
            else:
                make_model(obs_type).set_demonstrations(demonstrations)
        assert message in str(error.value)
        assert spoil is None or "Demonstration 4" in str(error.value)


def test_too_few_demonstrations_of_a_task_are_named() -> None:
    with pytest.raises(ValueError, match="Task '0a' has 3 demonstrations, expected at least 4"):
        make_model(batches=BatchConfig(n_support=2, n_query=2))


def test_training_without_demonstrations_says_what_to_do() -> None:
    model = make_model(demonstrations=None)
    for call in (lambda: model.train(n_batches=1), lambda: model.learn(1)):
        with pytest.raises(ValueError, match="pass demonstrations= or call set_demonstrations"):
            call()


@pytest.mark.parametrize("obs_type", SPACES)
def test_demonstrations_and_trajectories_train_the_same_parameters(obs_type: str) -> None:
    demonstrations = make_demonstrations(obs_type)
    trajectories = as_trajectories(demonstrations)
    assert all(isinstance(trajectory, Trajectory) for trajectory in trajectories)
    one, other = (
        train(make_model(obs_type, demonstrations=demos))
        for demos in (demonstrations, trajectories)
    )
    assert same(parameters_of(one), parameters_of(other))
    assert np.array_equal(one.embed(demonstrations[:2]), other.embed(trajectories[:2]))


def test_the_first_demonstrations_set_the_normalisation_and_later_ones_keep_it() -> None:
    demonstrations = make_demonstrations()
    model = make_model(demonstrations=demonstrations)
    extractor = model.policy.features_extractor
    start = np.concatenate([demo.obs for demo in demonstrations])[:, : SLOTS["start"]]
    np.testing.assert_allclose(extractor.vector_mean, start.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(extractor.vector_std, start.std(axis=0), rtol=1e-2)
    train(model, 1)
    before = extractor.vector_mean.clone()
    model.set_demonstrations(
        [dataclasses.replace(demo, obs=demo.obs + 5) for demo in demonstrations]
    )
    assert th.equal(extractor.vector_mean, before)


# --- train ---


def test_same_seed_same_parameters_bit_for_bit() -> None:
    def trained(seed: int) -> dict[str, np.ndarray]:
        th.manual_seed(seed + 100)  # what happened before must not matter
        return parameters_of(train(make_model(seed=seed)))

    assert same(trained(0), trained(0))
    assert not same(trained(0), trained(1))


def test_training_in_parts_is_training_at_once() -> None:
    whole, parts = make_model(), make_model()
    train(whole, 5)
    train(train(parts, 2), 3)
    assert parts.num_timesteps == whole.num_timesteps == 5
    assert same(parameters_of(whole), parameters_of(parts))


def test_an_epoch_is_a_pass_over_the_tasks() -> None:
    ends: list[tuple[str, int]] = []
    model = make_model(demonstrations=make_demonstrations(n_pairs=4))  # 8 tasks, 4 a batch
    model.train(
        n_epochs=3,
        on_epoch_end=lambda: ends.append(("epoch", model.num_timesteps)),
        on_batch_end=lambda: ends.append(("batch", model.num_timesteps)),
        progress_bar=False,
    )
    assert model.num_timesteps == 6
    assert [step for what, step in ends if what == "epoch"] == [2, 4, 6]
    assert [step for what, step in ends if what == "batch"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("arguments", [{}, {"n_epochs": 1, "n_batches": 1}])
def test_exactly_one_length_is_asked_for(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="exactly one of n_epochs and n_batches"):
        make_model().train(**arguments)


def test_training_makes_the_loss_smaller() -> None:
    model = make_model(optimizer_kwargs={"lr": 3e-3}, losses=LossConfig(query_weight=1.0))

    def query_loss() -> float:
        assert model._batches is not None
        losses = []
        for step in range(5):
            batch = th.utils._pytree.tree_map(th.as_tensor, model._batches.batch(1000 + step))
            with th.no_grad():
                metrics = model.loss_calculator(model.policy, batch["obs"], batch["acts"])
            losses.append(float(metrics.query_loss))
        return float(np.mean(losses))

    before = query_loss()
    train(model, 150)
    assert query_loss() < 0.5 * before


def test_minibatches_add_up_to_one_step_on_their_mean() -> None:
    # Two halves of 4 tasks, accumulated: the gradient is the mean of the halves' gradients.
    model = make_model(batch_size=8, minibatch_size=4, schedule=ScheduleConfig(max_grad_norm=1e9))
    assert model._batches is not None
    gradients = []
    for part in range(2):
        batch = th.utils._pytree.tree_map(th.as_tensor, model._batches.batch(part))
        model.policy.zero_grad()
        model.loss_calculator(model.policy, batch["obs"], batch["acts"]).loss.backward()
        gradients.append(model.policy.action_net.weight.grad.clone())
    train(model, 1)
    th.testing.assert_close(model.policy.action_net.weight.grad, (gradients[0] + gradients[1]) / 2)
    assert model.num_timesteps == 1


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    schedule = ScheduleConfig(horizon=100, warmup=9)
    factors = [schedule.factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[50] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    constant = ScheduleConfig(horizon=None, warmup=9)
    assert [constant.factor(step) for step in (0, 9, 1000)] == [0.1, 1.0, 1.0]
    model = make_model(schedule=schedule, optimizer_kwargs={"lr": 0.01})
    train(model, 3)
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * factors[2])


def test_the_gradient_is_clipped() -> None:
    model = make_model(schedule=ScheduleConfig(max_grad_norm=1e-3))
    train(model, 1)
    squares = [p.grad.square().sum() for p in model.policy.parameters() if p.grad is not None]
    assert math.sqrt(sum(squares)) == pytest.approx(1e-3, rel=1e-2)


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    model = train(make_model(), 2)
    start = parameters_of(model)
    assert model._batches is not None
    good = model._batches.batch

    def bad(step: int) -> dict[str, Any]:
        batch = good(step)
        batch["acts"][0, 0, 0, 0] = np.inf
        return batch

    model._batches.batch = bad  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match=r"At step 2 the loss is (inf|nan).*learning rate"):
        train(model)
    assert model.num_timesteps == 2
    assert same(parameters_of(model), start)
    assert not model.policy.training
    model._batches.batch = good  # type: ignore[method-assign]
    assert not same(parameters_of(train(model)), start)


def test_low_precision_is_for_training_alone() -> None:
    model = make_model("pixels", schedule=ScheduleConfig(low_precision=True))
    seen: list[bool] = []
    convolutions = [m for m in model.policy.modules() if isinstance(m, Convolutions)]

    def stop() -> bool:
        seen.append(all(net.low_precision for net in convolutions))
        return False

    model.learn(5, callback=lambda *_: stop())
    assert seen == [True] and model.num_timesteps == 1
    assert convolutions and not any(net.low_precision for net in convolutions)
    exact = train(make_model("pixels", schedule=ScheduleConfig(low_precision=False)), 1)
    assert not same(parameters_of(exact), parameters_of(model))


def test_rollouts_of_a_told_policy_can_be_logged(tmp_path: Path) -> None:
    # imitation's statistics run the policy itself: it must find the sentence in the observation.
    model = make_model()
    with pytest.raises(ValueError, match="no sentence was given"):
        train(model, 1, log_rollouts_venv=DummyVecEnv([ToyEnv]))


# --- what is logged ---


SCALARS = {
    "bc/loss",
    "bc/embedding_loss",
    "bc/support_loss",
    "bc/query_loss",
    "bc/attention_loss",
    "bc/l2_loss",
    "bc/entropy",
    "bc/mean_sigma",
    "bc/embedding_accuracy",
    "bc/twin_accuracy",
    "bc/gradient_norm",
    "bc/learning_rate",
    "time/samples_per_second",
}


def test_tensorboard_and_csv_have_every_scalar(tmp_path: Path) -> None:
    model = make_model(tensorboard_log=tmp_path)
    model.learn(6, log_interval=2, tb_log_name="run")
    (folder,) = tmp_path.glob("run*")
    events = EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= SCALARS
    for name in SCALARS:
        scalars = events.Scalars(name)
        assert [event.step for event in scalars] == [2, 4, 6], name
        assert all(math.isfinite(event.value) for event in scalars), name
    assert all(event.value > 0 for event in events.Scalars("time/samples_per_second"))
    with (folder / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and set(rows[0]) >= SCALARS


def test_train_logs_at_its_interval_and_at_its_end(tmp_path: Path) -> None:
    train(make_model(tensorboard_log=tmp_path), 5, log_interval=2)
    with (tmp_path / "progress.csv").open() as file:
        assert [row["time/steps"] for row in csv.DictReader(file)] == ["2", "4", "5"]


# --- learn, with SB3's callbacks ---


class Recorder(BaseCallback):
    """Notes what it is told; stops at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.stop_at = stop_at

    def _on_training_start(self) -> None:
        self.calls.append("start")
        assert self.locals["total_timesteps"]

    def _on_step(self) -> bool:
        self.calls.append(self.num_timesteps)
        return self.num_timesteps != self.stop_at

    def _on_training_end(self) -> None:
        self.calls.append("end")


def test_callbacks_are_called_at_every_optimiser_step() -> None:
    first, second = Recorder(), Recorder()
    model = make_model()
    assert model.learn(3, callback=CallbackList([first, second])) is model
    assert first.calls == second.calls == ["start", 1, 2, 3, "end"]
    assert first.model is model


def test_a_callback_that_says_no_stops_the_training() -> None:
    stopped, listener = Recorder(stop_at=2), Recorder()
    model = make_model().learn(10, callback=[stopped, listener])
    assert model.num_timesteps == 2 and stopped.calls[-1] == "end"
    assert not model.policy.training
    assert same(parameters_of(model), parameters_of(train(make_model(), 2)))
    assert make_model().learn(10, callback=lambda *_: False).num_timesteps == 1


def test_checkpoints_are_models(tmp_path: Path) -> None:
    model = make_model().learn(4, callback=[CheckpointCallback(2, str(tmp_path)), Recorder()])
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["rl_model_2_steps.zip", "rl_model_4_steps.zip"]
    assert same(parameters_of(EntBC.load(files[1])), parameters_of(model))
    assert EntBC.load(files[0]).num_timesteps == 2


def test_timesteps_are_counted_on_or_from_zero() -> None:
    goes_on = Recorder()
    model = make_model().learn(2)
    model.learn(2, callback=goes_on, reset_num_timesteps=False)
    assert goes_on.calls == ["start", 3, 4, "end"] and model.num_timesteps == 4
    assert same(parameters_of(model), parameters_of(train(make_model(), 4)))
    again = Recorder()
    model.learn(2, callback=again)
    assert again.calls == ["start", 1, 2, "end"]


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_callbacks_that_ask_for_the_vec_env_find_it() -> None:
    bar = ProgressBarCallback()
    make_model(env=DummyVecEnv([ToyEnv])).learn(3, callback=bar)
    assert bar.pbar.n == 3


def test_progress_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    make_model().learn(2, progress_bar=True)
    assert "Training" in capsys.readouterr().out
    make_model().learn(2)
    assert capsys.readouterr().out == ""


# --- embed and predict ---


@pytest.mark.parametrize("obs_type", SPACES)
@pytest.mark.parametrize("architecture", ["attention", "tiled"])
def test_sentences_are_float32_unit_vectors(obs_type: str, architecture: str) -> None:
    model = make_model(obs_type, policy_kwargs={"architecture": architecture})
    demonstrations = make_demonstrations(obs_type)
    for shown in (demonstrations[0], demonstrations[:1], demonstrations[:3]):
        sentence = model.embed(shown)
        assert sentence.shape == (20,) and sentence.dtype == np.float32
        assert np.linalg.norm(sentence) == pytest.approx(1, abs=1e-5)
    several = model.embed([demonstrations[:1], demonstrations[1:3], demonstrations[3:4]])
    assert several.shape == (3, 20) and several.dtype == np.float32
    np.testing.assert_allclose(several[1], model.embed(demonstrations[1:3]), atol=1e-6)
    assert np.array_equal(model.embed(demonstrations[0]), model.embed(demonstrations[:1]))


def test_of_k_shots_the_sentence_is_the_normalised_mean() -> None:
    model, demonstrations = make_model(), make_demonstrations()[:3]
    mean = np.mean([model.embed(demo) for demo in demonstrations], axis=0)
    np.testing.assert_allclose(model.embed(demonstrations), mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("obs_type", ["pixels", "pixels_agent_pos"])
@pytest.mark.parametrize("architecture", ["attention", "tiled"])
def test_a_sentence_is_made_from_frames_and_nothing_else(obs_type: str, architecture: str) -> None:
    model = train(make_model(obs_type, policy_kwargs={"architecture": architecture}))
    demo = make_demonstrations(obs_type)[0]
    frames = demo.obs["pixels"] if isinstance(demo.obs, dict) else demo.obs
    sentence = model.embed(demo)

    @dataclasses.dataclass
    class Video:
        obs: Any

    garbage = np.full((13, SLOTS["start"]), np.nan, np.float32)
    shown: list[Any] = [frames, Video(frames), as_trajectories([demo])[0]]
    if obs_type == "pixels_agent_pos":
        shown += [Video({"pixels": frames}), Video({"pixels": frames, "agent_pos": garbage})]
    shown += [dataclasses.replace(demo, acts=np.full((12, N_ACTIONS), np.nan), infos=[])]
    # Of the frames only the first and the last count: what was at the start, and at the end.
    shown += [frames[[0, -1]]]
    for video in shown:
        assert np.array_equal(model.embed(video), sentence)
    assert not np.array_equal(model.embed(frames[::-1]), sentence)


def test_of_states_the_first_and_the_last_make_the_sentence() -> None:
    model, demo = make_model(), make_demonstrations()[0]
    between = demo.obs.copy()
    between[1:-1] = 7.0
    sentence = model.embed(demo)
    assert np.array_equal(model.embed(dataclasses.replace(demo, obs=between)), sentence)
    for end in (0, -1):
        changed = demo.obs.copy()
        changed[end] += np.linspace(0, 1, changed.shape[1])
        assert not np.array_equal(model.embed(changed), sentence)


@pytest.mark.parametrize("empty", [[], [[]], [[STATE_DEMO], []]])
def test_nothing_shown_is_an_error(empty: list[Any]) -> None:
    with pytest.raises(ValueError, match="list of demonstrations is empty, expected at least one"):
        make_model().embed(empty)


@pytest.mark.parametrize(
    ("obs_type", "shown", "message"),
    [
        ("state", NAN_OBS, "NaN or infinite observations"),
        ("state", STATE_DEMO.obs[:, 1:], "expected (T, 14) of float32"),
        ("pixels", np.zeros((5, 32, 32, 3), np.uint8), "shape (5, 32, 32, 3), expected (T, 24, 24"),
        ("pixels", np.zeros((5, 24, 24, 3)), "dtype float64, expected (T, 24, 24, 3) of uint8"),
        ("pixels", np.zeros((0, 24, 24, 3), np.uint8), "shape (0, 24, 24, 3)"),
        ("pixels_agent_pos", np.zeros((5, 24, 24), np.uint8), "shape (5, 24, 24)"),
    ],
)
def test_what_cannot_be_embedded_is_named(obs_type: str, shown: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError) as error:
        make_model(obs_type).embed(shown)
    assert message in str(error.value)


def test_predict_is_the_policys() -> None:
    model, sentence = make_model(), some_sentences(1)[0]
    actions, state = model.predict(some_obs(), state=sentence, deterministic=True)
    assert state is sentence
    expected, _ = model.policy.predict(some_obs(), sentence, deterministic=True)
    assert np.array_equal(actions, expected)
    with pytest.raises(ValueError, match="no sentence was given"):
        model.predict(some_obs())


def test_one_sentence_serves_a_whole_vec_env() -> None:
    model = make_model()
    venv = DummyVecEnv([ToyEnv] * 3)
    obs, state = venv.reset(), model.embed(STATE_DEMO)
    starts = np.ones(3, bool)
    for _ in range(7):  # across the end of an episode
        actions, state = model.predict(obs, state=state, episode_start=starts, deterministic=True)
        obs, _, starts, _ = venv.step(actions)
    assert np.array_equal(state, model.embed(STATE_DEMO))


def test_spaces_need_not_be_known_to_gymnasium_as_the_same_object() -> None:
    copied = spaces.Box(STATE_SPACE.low, STATE_SPACE.high, dtype=np.float32)
    assert make_model(observation_space=copied).observation_space == STATE_SPACE
