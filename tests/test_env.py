"""MetaPusher-v0: the API, twins, pinned tasks, reward and success, vectors, pictures, bad input."""

from __future__ import annotations

import functools
import pickle
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import mujoco.viewer
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from meta_pusher_env import MetaPusherEnv, objects, scene
from meta_pusher_env.env import OBS_TYPES
from meta_pusher_env.measures import AGENT_POS_DIM, SLOT_DIM
from meta_pusher_env.tasks import make_tasks

ID = "meta_pusher_env:MetaPusher-v0"
ACTIONS = np.random.default_rng(0).uniform(-2, 2, (100, 7)).astype(np.float32)
SMALL = 32  # pixels; pictures of any size are drawn alike


def make(obs_type: str = "state", **arguments: Any) -> gym.Env[Any, np.ndarray]:
    return gym.make(ID, **({"obs_type": obs_type, "image_size": SMALL} | arguments))


def as_bytes(obs: Any) -> bytes:
    """The observation's bytes, dtypes and shapes."""
    if isinstance(obs, dict):
        return b"".join(key.encode() + as_bytes(obs[key]) for key in sorted(obs))
    return f"{obs.dtype}{obs.shape}".encode() + obs.tobytes()


def episode(env: gym.Env[Any, np.ndarray], n_steps: int = 100, **reset: Any) -> Iterator[bytes]:
    """The bytes of each observation of an episode under `ACTIONS`."""
    yield as_bytes(env.reset(**reset)[0])
    for action in ACTIONS[:n_steps]:
        yield as_bytes(env.step(action)[0])


@pytest.fixture
def env() -> Iterator[MetaPusherEnv]:
    env = MetaPusherEnv()
    yield env
    env.close()


# --- the API --------------------------------------------------------------------------------------


class FakeViewer:
    """Stands for the window of a screen that tests lack."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.m, self.d, self.n_syncs, self.closed = model, data, 0, False

    def sync(self) -> None:
        self.n_syncs += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def viewers(monkeypatch: pytest.MonkeyPatch) -> list[FakeViewer]:
    made: list[FakeViewer] = []

    def launch(model: mujoco.MjModel, data: mujoco.MjData) -> FakeViewer:
        made.append(FakeViewer(model, data))
        return made[-1]

    monkeypatch.setattr(mujoco.viewer, "launch_passive", launch)
    return made


@pytest.mark.usefixtures("viewers")
@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_passes_gymnasiums_check(obs_type: str) -> None:
    env = gym.make(ID, obs_type=obs_type, split="val")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Box.*(minimum|maximum) value is -?infinity")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space")
        check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_passes_sb3s_check(obs_type: str) -> None:
    env = gym.make(ID, obs_type=obs_type, split="test")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*symmetric and normalized Box action space")
        check_env_for_sb3(env)
    env.close()


def test_spaces() -> None:
    state = make("state").observation_space
    assert state == spaces.Box(-np.inf, np.inf, (AGENT_POS_DIM + 2 * SLOT_DIM,), np.float32)
    assert make("pixels").observation_space == spaces.Box(0, 255, (SMALL, SMALL, 3), np.uint8)
    both = make("pixels_agent_pos", image_size=125).observation_space
    assert isinstance(both, spaces.Dict)
    assert both["pixels"] == spaces.Box(0, 255, (125, 125, 3), np.uint8)
    assert both["agent_pos"] == spaces.Box(-np.inf, np.inf, (20,), np.float32)
    assert make().action_space == spaces.Box(-2, 2, (7,), np.float32)
    assert make().unwrapped.observation_space == state  # the default


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("obs_type", ["state", "pixels"])
def test_episodes_have_exactly_100_steps(obs_type: str, wrapped: bool) -> None:
    env = make(obs_type) if wrapped else make(obs_type).unwrapped
    for seed in range(2):
        env.reset(seed=seed)
        ends = [env.step(action)[2:4] for action in ACTIONS]
        assert ends == [(False, False)] * 99 + [(False, True)]


def test_step_needs_a_reset(env: MetaPusherEnv) -> None:
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(ACTIONS[0])
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        _ = env.task


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_observations_are_copies(obs_type: str) -> None:
    env = make(obs_type)
    first, _ = env.reset(seed=0)
    kept = as_bytes(first)
    second, *_ = env.step(ACTIONS[0])
    also_kept = as_bytes(second)
    for action in ACTIONS[1:10]:
        env.step(action)
    assert (as_bytes(first), as_bytes(second)) == (kept, also_kept)
    for array in first.values() if isinstance(first, dict) else [first]:
        array[:] = 0  # writable, and nobody minds
    assert next(episode(env, 0, seed=0)) == kept


def test_state_observation_is_what_the_data_sheet_says(env: MetaPusherEnv) -> None:
    obs, _ = env.reset(seed=3, options={"task": 8})
    assert obs[:7].tolist() == [0] * 7
    for action in ACTIONS[:5]:
        obs, *_ = env.step(action)
    data = env.data
    assert obs[:7] == pytest.approx(data.qpos[:7])
    assert obs[7:14] == pytest.approx(data.qvel[:7])
    assert obs[14:17] == pytest.approx(data.site("tip").xpos)
    assert obs[17:20] == pytest.approx([0.45, -0.05, -0.325])
    slots = obs[20:].reshape(2, SLOT_DIM)
    places = scene.object_xy(data)
    order = [int(np.abs(places - slot[:2]).sum(axis=1).argmin()) for slot in slots]
    assert sorted(order) == [0, 1]
    for slot, index in zip(slots, order, strict=True):
        assert slot[:2] == pytest.approx(places[index])
        assert abs(slot[2]) <= np.pi
        turn = slot[2] - data.joint(f"object_{index}_yaw").qpos[0]
        assert np.cos(turn) == pytest.approx(1)
        assert slot[3] == data.joint(f"object_{index}_x").qvel[0]
        assert slot[4] == data.joint(f"object_{index}_y").qvel[0]
        assert np.array_equal(slot[5:], objects.describe(env.task.objects[index]))


def test_data_sheet_states_the_sizes() -> None:
    sheet = MetaPusherEnv.__doc__
    assert sheet is not None
    n_numbers = AGENT_POS_DIM + 2 * SLOT_DIM
    assert f"`Box(-Inf, Inf, ({n_numbers},), float32)`" in sheet
    assert f"number {AGENT_POS_DIM} and number {AGENT_POS_DIM + SLOT_DIM}" in sheet
    assert f"| 5-{SLOT_DIM - 1} |" in sheet


def test_slots_are_shuffled_by_the_episode() -> None:
    env = MetaPusherEnv(task=0)
    firsts = {env.reset(seed=seed)[0][25 : 20 + SLOT_DIM].tobytes() for seed in range(12)}
    assert firsts == {objects.describe(spec).tobytes() for spec in env.tasks[0].objects}


# --- twins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_twins_give_byte_identical_observations(obs_type: str, split: str) -> None:
    ours, theirs = make(obs_type, split=split), make(obs_type, split=split)
    tasks = ours.unwrapped.tasks
    for seed, index in enumerate((0, 7, 20, len(tasks) - 1)):
        task, n_steps = tasks[index], 100 if obs_type == "state" else 20
        assert list(episode(ours, n_steps, seed=seed, options={"task": task})) == list(
            episode(theirs, n_steps, seed=seed, options={"task": task.twin})
        )
    ours.close()
    theirs.close()


@pytest.mark.parametrize("obs_type", ["state", "pixels"])
def test_twins_stay_identical_while_objects_are_pushed(obs_type: str) -> None:
    ours, theirs = make(obs_type, split="test"), make(obs_type, split="test")
    env, _ = ours.reset(seed=5, options={"task": 6}), theirs.reset(seed=5, options={"task": 7})
    for step in range(60):
        # The scoop's own way to the goal would need the expert: a hand moves the objects instead.
        for env in (ours, theirs):
            env.unwrapped.data.qvel[scene.N_JOINTS :] += 0.05 * np.sin(step + np.arange(6))
        (obs, *_, info), (other, *_, twin_info) = (
            env.step(ACTIONS[step]) for env in (ours, theirs)
        )
        assert as_bytes(obs) == as_bytes(other)
    assert info["target_moved"] > 0.01
    assert info["distractor_moved"] > 0.01
    for role, opposite in (("target", "distractor"), ("distractor", "target")):
        assert info[f"{role}_distance"] == twin_info[f"{opposite}_distance"]
        assert info[f"{role}_moved"] == twin_info[f"{opposite}_moved"]


def test_a_drawn_task_and_its_twin_start_alike() -> None:
    env = make()
    drawn, _ = env.reset(seed=11)
    twin, info = env.reset(seed=11, options={"task": env.unwrapped.task.twin})
    assert as_bytes(drawn) == as_bytes(twin)
    assert env.reset(seed=11, options={"task": None})[1]["task_id"] != info["task_id"]


# --- seeds and pickles ----------------------------------------------------------------------------


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_a_seed_fixes_the_episode(obs_type: str) -> None:
    ours, theirs = make(obs_type), make(obs_type)
    assert list(episode(ours, 20, seed=4)) == list(episode(theirs, 20, seed=4))
    assert list(episode(ours, 20)) == list(episode(theirs, 20))  # and the episodes after it
    assert next(episode(ours, 0, seed=4)) != next(episode(ours, 0, seed=5))


def test_seeds_are_independent_of_global_state_and_of_the_past(env: MetaPusherEnv) -> None:
    first = list(episode(env, 10, seed=1))
    np.random.seed(0)  # noqa: NPY002
    list(episode(env, 30, options={"task": 3}))
    assert list(episode(env, 10, seed=1, options={"task": None})) == first


def test_resets_without_a_seed_vary(env: MetaPusherEnv) -> None:
    env.reset(seed=0)
    starts = [env.reset() for _ in range(20)]
    assert len({as_bytes(obs) for obs, _ in starts}) == 20
    assert len({info["task_id"] for _, info in starts}) > 10


def test_every_task_is_drawn() -> None:
    env = MetaPusherEnv(n_tasks=4)
    env.reset(seed=0)
    assert {env.reset()[1]["task_id"] for _ in range(60)} == {t.task_id for t in env.tasks}


@pytest.mark.parametrize("obs_type", OBS_TYPES)
@pytest.mark.parametrize("moment", ["before reset", "after steps"])
def test_pickles(obs_type: str, moment: str) -> None:
    task = make_tasks("test")[5]
    env = make(obs_type, task=task)
    expected = list(episode(env, 10, seed=2))
    if moment == "before reset":
        env = make(obs_type, task=task)
    copy = pickle.loads(pickle.dumps(env))
    assert list(episode(copy, 10, seed=2)) == expected
    assert copy.unwrapped.task == task


# --- given tasks ----------------------------------------------------------------------------------


def test_given_tasks_take_the_split_s_place() -> None:
    given = make_tasks("val", 6, split_seed=5)[2:]
    env = make(tasks=list(given), split="test")
    base: Any = env.unwrapped
    assert base.tasks == given
    assert {env.reset(seed=seed)[1]["task_id"] for seed in range(40)} == {t.task_id for t in given}
    for chosen in (3, given[3].task_id):
        assert env.reset(options={"task": chosen})[1]["task_id"] == given[3].task_id
    with pytest.raises(ValueError, match="given by tasks.* has 4 tasks, 0 to 3"):
        env.reset(options={"task": 4})


def test_given_tasks_reach_copies_and_other_processes() -> None:
    given = make_tasks("val", 4, split_seed=5)
    copy: Any = pickle.loads(pickle.dumps(make(tasks=given)))
    assert copy.unwrapped.tasks == given
    venv = SubprocVecEnv([functools.partial(make, tasks=given)], start_method="spawn")
    assert venv.get_attr("tasks") == [given]
    venv.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": []}, r"tasks is \[\], expected PusherTasks, at least a pair of twins"),
        ({"tasks": ["train-0000a"]}, "tasks is .*expected PusherTasks"),
        ({"tasks": make_tasks("val")[:3]}, "expected each task's twin right after it"),
        ({"tasks": make_tasks("val")[1:3]}, "expected each task's twin right after it"),
        ({"tasks": make_tasks("val")[:2] * 2}, "expected each task only once"),
        ({"tasks": make_tasks("val"), "n_tasks": 76}, "n_tasks is 76, expected None where tasks"),
    ],
)
def test_given_tasks_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetaPusherEnv(**arguments)


# --- pinned tasks ---------------------------------------------------------------------------------


def test_options_pin_a_task_by_index_id_or_itself(env: MetaPusherEnv) -> None:
    task = env.tasks[7]
    for given in (7, np.int64(7), task.task_id, task):
        _, info = env.reset(options={"task": given})
        assert info["task_id"] == task.task_id
        assert env.task == task


def test_a_pinned_task_stays_until_another_or_none(env: MetaPusherEnv) -> None:
    def ids(n: int, **first: Any) -> set[str]:
        return {env.reset(**(first if i == 0 else {}))[1]["task_id"] for i in range(n)}

    env.reset(seed=0)
    assert ids(10, options={"task": 3}) == {env.tasks[3].task_id}
    assert ids(5, seed=9) == {env.tasks[3].task_id}
    assert ids(5, options={}) == {env.tasks[3].task_id}
    assert ids(5, options={"task": 4}) == {env.tasks[4].task_id}
    assert len(ids(10, options={"task": None})) > 5
    assert len(ids(10)) > 5


def test_a_task_of_another_split_can_be_pinned(env: MetaPusherEnv) -> None:
    task = make_tasks("test", 4, split_seed=3)[2]
    env.reset(options={"task": task})
    assert env.reset()[1]["task_id"] == task.task_id == env.task.task_id


@pytest.mark.parametrize("given", [5, "val-0002b", make_tasks("val")[5]], ids=repr)
def test_make_pins_from_the_start(given: Any) -> None:
    env = make(split="val", task=given)
    assert {env.reset()[1]["task_id"] for _ in range(5)} == {"val-0002b"}
    assert len({env.reset(options={"task": None})[1]["task_id"]}) == 1


def test_autoresets_keep_a_pinned_task() -> None:
    venv = gym.vector.SyncVectorEnv([make] * 2)
    _, infos = venv.reset(seed=0, options={"task": 6})
    seen = [*infos["task_id"]]
    for step in range(230):
        *_, infos = venv.step(ACTIONS[[step % 100] * 2])
        seen += [*infos["task_id"]]
    assert set(seen) == {make_tasks("train")[6].task_id}


def test_autoresets_draw_where_none_is_pinned() -> None:
    venv = DummyVecEnv([make])
    venv.seed(0)
    venv.reset()
    ids = []
    for step in range(600):
        _, _, dones, infos = venv.step(ACTIONS[[step % 100]])
        assert dones[0] == (step % 100 == 99)
        ids.append(infos[0]["task_id"])
    assert len(set(ids)) > 3
    assert len({*ids[:100]}) == 1


def test_sb3s_vectors_pass_options() -> None:
    venv = DummyVecEnv([make] * 2)
    venv.seed(0)
    venv.set_options([{"task": 8}, {"task": "train-0004b"}])
    venv.reset()
    for step in range(210):
        infos = venv.step(ACTIONS[[step % 100] * 2])[3]
        assert [info["task_id"] for info in infos] == ["train-0004a", "train-0004b"]


# --- reward, success, info ------------------------------------------------------------------------


def place(env: MetaPusherEnv, target: tuple[float, float], distractor: tuple[float, float]) -> None:
    """Puts both objects on the table, still; offsets from the goal, m."""
    for index, offset in ((env.task.target, target), (1 - env.task.target, distractor)):
        start = scene.N_JOINTS + 3 * index
        env.data.qpos[start : start + 2] = scene.GOAL + offset
        env.data.qvel[start : start + 3] = 0


FAR = (5.0, 5.0)
AT_GOAL = (0.13, 0.0)  # squared: 0.0169
NEAR_MISS = (0.131, 0.0)  # squared: 0.0172
STILL = np.zeros(7, dtype=np.float32)


def stay(env: MetaPusherEnv, n_steps: int) -> dict[str, Any]:
    for _ in range(n_steps):
        *_, info = env.step(STILL)
    return info


def test_info_has_every_field_at_reset_and_step(env: MetaPusherEnv) -> None:
    state = {
        "task_id": str,
        "is_success": bool,
        "is_success_other": bool,
        "is_success_strict": bool,
        "target_distance": float,
        "distractor_distance": float,
        "target_moved": float,
        "distractor_moved": float,
    }
    terms = dict.fromkeys(["reward_dist", "reward_near", "reward_ctrl"], float)
    _, info = env.reset(seed=0)
    assert {key: type(value) for key, value in info.items()} == state
    assert info["target_moved"] == info["distractor_moved"] == 0
    assert not info["is_success"]
    *_, info = env.step(ACTIONS[0])
    assert {key: type(value) for key, value in info.items()} == state | terms


def test_reward_is_the_sum_of_pushers_terms(env: MetaPusherEnv) -> None:
    env.reset(seed=0)
    for action in ACTIONS:
        _, reward, _, _, info = env.step(action)
        target = np.append(scene.object_xy(env.data)[env.task.target], -0.324)
        goal_distance = np.linalg.norm(target[:2] - (0.45, -0.05))
        assert info["reward_dist"] == pytest.approx(-goal_distance)
        assert info["target_distance"] == pytest.approx(goal_distance)
        tip_distance = np.linalg.norm(target - env.data.site("tip").xpos)
        assert info["reward_near"] == pytest.approx(-0.5 * tip_distance)
        assert info["reward_ctrl"] == pytest.approx(-0.1 * np.square(action).sum())
        terms = (info["reward_dist"], info["reward_near"], info["reward_ctrl"])
        assert reward == pytest.approx(sum(terms))


@pytest.mark.parametrize("task", [0, 1])
def test_success_takes_ten_steps_at_the_goal(env: MetaPusherEnv, task: int) -> None:
    env.reset(seed=0, options={"task": task})
    place(env, AT_GOAL, FAR)
    assert not stay(env, 9)["is_success"]
    assert stay(env, 1)["is_success"]
    place(env, FAR, FAR)
    assert stay(env, 1)["is_success"]  # once brought there, it was


def test_success_counts_steps_not_only_consecutive_ones(env: MetaPusherEnv) -> None:
    env.reset(seed=0)
    for _ in range(2):
        place(env, AT_GOAL, FAR)
        info = stay(env, 5)
        place(env, FAR, FAR)
        stay(env, 3)
    assert info["is_success"]


def test_a_near_miss_is_none(env: MetaPusherEnv) -> None:
    env.reset(seed=0)
    place(env, NEAR_MISS, NEAR_MISS)
    info = stay(env, 50)
    assert not info["is_success"]
    assert not info["is_success_other"]


@pytest.mark.parametrize("task", [0, 1])
def test_the_other_objects_success_is_told_apart(env: MetaPusherEnv, task: int) -> None:
    env.reset(seed=0, options={"task": task})
    place(env, FAR, AT_GOAL)
    info = stay(env, 10)
    assert (info["is_success"], info["is_success_other"]) == (False, True)
    env.reset(seed=0)
    place(env, AT_GOAL, AT_GOAL)
    info = stay(env, 10)
    assert (info["is_success"], info["is_success_other"]) == (True, True)
    assert not env.reset()[1]["is_success"]


@pytest.mark.parametrize(
    ("target", "distractor", "strict"),
    [
        ((0.049, 0.0), FAR, True),
        ((0.051, 0.0), FAR, False),
        ((0.04, 0.0), (0.0, 0.045), True),
        ((0.04, 0.0), (0.0, 0.035), False),  # the distractor was pushed instead
    ],
)
def test_strict_success_is_about_now(
    env: MetaPusherEnv,
    target: tuple[float, float],
    distractor: tuple[float, float],
    strict: bool,
) -> None:
    env.reset(seed=0)
    place(env, target, distractor)
    assert stay(env, 1)["is_success_strict"] is strict
    place(env, FAR, FAR)
    assert not stay(env, 1)["is_success_strict"]


def test_moved_is_measured_from_the_start(env: MetaPusherEnv) -> None:
    env.reset(seed=0)
    env.data.qpos[scene.N_JOINTS + 3 * env.task.target] += 0.03
    env.data.qpos[scene.N_JOINTS + 3 * (1 - env.task.target)] -= 0.02
    info = stay(env, 1)
    assert info["target_moved"] == pytest.approx(0.03)
    assert info["distractor_moved"] == pytest.approx(0.02)


def test_actions_are_clipped() -> None:
    ours, theirs = MetaPusherEnv(), MetaPusherEnv()
    ours.reset(seed=0)
    theirs.reset(seed=0)
    signs = np.sign(ACTIONS[0])
    obs, *_, info = ours.step(100 * signs)
    other, *_, other_info = theirs.step(2 * signs)
    assert as_bytes(obs) == as_bytes(other)
    assert info["reward_ctrl"] < other_info["reward_ctrl"]


def test_demonstrations_come_in_the_environments_own_observations() -> None:
    for obs_type in OBS_TYPES:
        env = make(obs_type, n_tasks=4)
        (demonstration,) = env.unwrapped.get_demonstrations(1, 1, seed=0)
        assert demonstration.task_id == env.unwrapped.tasks[1].task_id
        observations, one = demonstration.obs, env.observation_space
        if isinstance(observations, dict):
            observations, one = observations["agent_pos"], one["agent_pos"]
        assert observations.shape == (101, *one.shape)
        assert observations.dtype == one.dtype


# --- vectors --------------------------------------------------------------------------------------


def maker(obs_type: str) -> Callable[[], gym.Env[Any, np.ndarray]]:
    return functools.partial(gym.make, ID, obs_type=obs_type, image_size=SMALL)


def alone(obs_type: str, seed: int) -> list[bytes]:
    env = make(obs_type)
    observations = list(episode(env, 6, seed=seed))
    env.close()
    return observations


@pytest.mark.parametrize("kind", ["sync", "async fork", "async spawn"])
@pytest.mark.parametrize("obs_type", ["state", "pixels_agent_pos"])
def test_gymnasiums_vectors_equal_single_environments(obs_type: str, kind: str) -> None:
    makers = [maker(obs_type)] * 2
    if kind == "sync":
        venv: gym.vector.VectorEnv = gym.vector.SyncVectorEnv(makers)
    else:
        venv = gym.vector.AsyncVectorEnv(makers, context=kind.split()[1])
    obs, infos = venv.reset(seed=[3, 4])
    assert len(infos["task_id"]) == 2
    batches = [obs] + [venv.step(np.stack([action] * 2))[0] for action in ACTIONS[:6]]
    venv.close()
    for index, seed in enumerate((3, 4)):
        got = [as_bytes(_item(obs, index)) for obs in batches]
        assert got == alone(obs_type, seed)


@pytest.mark.parametrize("kind", ["dummy", "fork", "spawn"])
@pytest.mark.parametrize("obs_type", ["state", "pixels_agent_pos"])
def test_sb3s_vectors_equal_single_environments(obs_type: str, kind: str) -> None:
    makers = [maker(obs_type)] * 2
    venv: VecEnv = (
        DummyVecEnv(makers) if kind == "dummy" else SubprocVecEnv(makers, start_method=kind)
    )
    venv.seed(3)  # environment i gets 3 + i
    batches = [venv.reset()] + [venv.step(np.stack([action] * 2))[0] for action in ACTIONS[:6]]
    venv.close()
    for index, seed in enumerate((3, 4)):
        got = [as_bytes(_item(obs, index)) for obs in batches]
        assert got == alone(obs_type, seed)


def _item(obs: Any, index: int) -> Any:
    if isinstance(obs, dict):
        return {key: value[index] for key, value in obs.items()}
    return obs[index]


# --- pictures -------------------------------------------------------------------------------------


def test_rgb_array_is_a_picture_of_the_scene() -> None:
    env = make("state", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (480, 480, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    env.unwrapped.data.qpos[scene.N_JOINTS] += 0.1
    env.step(ACTIONS[0])
    assert (env.render() != picture).any()
    env.close()


def test_rgb_array_list_collects_an_episode() -> None:
    env = gym.make(ID, render_mode="rgb_array_list")
    env.reset(seed=0)
    for action in ACTIONS[:5]:
        env.step(action)
    frames = env.render()
    assert [frame.shape for frame in frames] == [(480, 480, 3)] * 6
    assert (frames[0] != frames[5]).any()
    env.close()


def test_rendering_disturbs_no_observation() -> None:
    plain, drawn = make("pixels"), make("pixels", render_mode="rgb_array")
    expected, got = episode(plain, 5, seed=0), episode(drawn, 5, seed=0)
    for ours, theirs in zip(expected, got, strict=True):
        assert ours == theirs
        drawn.render()


def test_two_environments_draw_as_each_alone() -> None:
    """Interleaved, of two sizes and two tasks: one OpenGL context serves both."""
    arguments = [{"image_size": 64, "task": 2}, {"image_size": 48, "task": 100}]
    expected = [list(episode(make("pixels", **each), 8, seed=0)) for each in arguments]
    both = zip(*(episode(make("pixels", **each), 8, seed=0) for each in arguments), strict=True)
    assert list(both) == list(zip(*expected, strict=True))


def test_observed_picture_has_the_goal_low_and_left() -> None:
    """Right side up and not mirrored: the goal is nearer than the camera's centre, at larger x."""
    env = MetaPusherEnv(obs_type="pixels", image_size=64)
    env.reset(seed=0)
    place(env, FAR, FAR)
    picture = env.step(STILL)[0].astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1:].max(axis=-1) < 80)
    rows, columns = np.nonzero(red)
    assert len(rows) > 20
    assert rows.min() > 32
    assert columns.mean() < 32


def test_close_twice_and_go_on() -> None:
    env = make("pixels", render_mode="rgb_array")
    first = next(episode(env, 0, seed=0))
    env.render()
    env.close()
    env.close()
    env.unwrapped.close()
    assert next(episode(env.unwrapped, 0, seed=0)) == first
    MetaPusherEnv().close()  # before any reset


def test_render_needs_a_mode(env: MetaPusherEnv) -> None:
    env.reset(seed=0)
    with pytest.raises(ValueError, match="needs a render_mode"):
        env.render()


def test_human_mode_shows_each_step_in_one_window(viewers: list[FakeViewer]) -> None:
    env = MetaPusherEnv(render_mode="human", task=0)
    env.reset(seed=0)
    for action in ACTIONS[:3]:
        env.step(action)
    assert [viewer.n_syncs for viewer in viewers] == [4]
    env.reset(options={"task": 4})
    assert [viewer.closed for viewer in viewers] == [True, False]
    assert (viewers[-1].m, viewers[-1].d) == (env.model, env.data)
    env.reset()  # another episode of the same task: the window must show its data
    assert viewers[-1].d is env.data
    env.close()
    assert all(viewer.closed for viewer in viewers)


def test_metadata() -> None:
    assert MetaPusherEnv.metadata["render_modes"] == ["human", "rgb_array"]
    assert MetaPusherEnv.metadata["render_fps"] == 20
    spec = make().spec
    assert spec is not None
    assert (spec.id, spec.max_episode_steps) == ("MetaPusher-v0", 100)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "training"}, "'training': expected one of train, val, test"),
        ({"obs_type": "rgb"}, "'rgb': expected one of state, pixels, pixels_agent_pos"),
        ({"obs_type": None}, "None: expected one of state"),
        ({"n_tasks": 5}, "n_tasks is 5, expected an even number"),
        ({"split_seed": -3}, "split_seed is -3, expected an integer"),
        ({"image_size": 8}, "image_size is 8, expected .*at least 16"),
        ({"image_size": 64.0}, "image_size is 64.0, expected .*at least 16"),
        ({"image_size": (64, 64)}, r"image_size is \(64, 64\), expected .*at least 16"),
        ({"render_mode": "ansi"}, "'ansi': expected None or one of human, rgb_array"),
        ({"task": 694}, "694 is out of range: split 'train' has 694 tasks, 0 to 693"),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetaPusherEnv(**arguments)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (694, "694 is out of range"),
        (-1, "-1 is out of range"),
        ("train-9999a", "No task 'train-9999a' in split 'train': its ids run from 'train-0000a'"),
        ("test-0000a", "No task 'test-0000a' in split 'train'"),
        (1.0, "1.0 is no task: expected an index, a task id or a PusherTask"),
        (True, "True is no task"),
        ([3], r"\[3\] is no task"),
        (types.SimpleNamespace(task_id="train-0000a"), "is no task"),
    ],
)
def test_what_is_no_task_is_named(env: MetaPusherEnv, task: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        env.reset(options={"task": task})
    with pytest.raises(ValueError, match=message):
        env.get_demonstrations(task, 1)


def test_a_refused_task_leaves_the_pinned_one(env: MetaPusherEnv) -> None:
    env.reset(options={"task": 3})
    with pytest.raises(ValueError, match="out of range"):
        env.reset(options={"task": 9999})
    assert env.reset()[1]["task_id"] == env.tasks[3].task_id


def test_unknown_option_is_named(env: MetaPusherEnv) -> None:
    with pytest.raises(ValueError, match=r"Unknown options \['tasks'\]: expected 'task'"):
        env.reset(options={"tasks": 3})


@pytest.mark.parametrize(
    "action",
    [
        np.full(7, np.nan),
        np.array([0, 0, 0, np.inf, 0, 0, 0]),
        np.zeros(6),
        np.zeros((1, 7)),
        0.0,
        ["left"] * 7,
        None,
    ],
    ids=repr,
)
def test_bad_action_is_named(env: MetaPusherEnv, action: Any) -> None:
    env.reset(seed=0)
    before = env.data.qpos.copy()
    with pytest.raises(ValueError, match=r"The action is .*, expected 7 finite torques"):
        env.step(action)
    assert np.array_equal(env.data.qpos, before)
