"""The sentence in the observation, so that trainers without a notion of tasks can be told one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from ent_bc.demonstrations import DemonstrationLike, group_by_task
from ent_bc.observations import SENTENCE_KEY


class Embedder(Protocol):
    """What makes sentences: `EntBC`, or anything with its `embed` and its policy's dimension."""

    @property
    def policy(self) -> Any:
        """Something with ``sentence_dim``."""

    def embed(self, demonstrations: Any) -> np.ndarray:
        """See `EntBC.embed`."""


class SentenceObservation(gym.Wrapper[Any, Any, Any, Any]):
    """Adds the sentence of the current task to the observation, under the key "sentence".

    The observation becomes a Dict: of its own entries if it was one, else of "pixels" (an image) or
    "state" (a vector). When the task changes, which ``info["task_id"]`` tells, other demonstrations
    are shown to the model; a seeded reset does so too, so that it fixes the sentence. Gymnasium's
    ``FlattenObservation`` around it serves trainers that take arrays only; their policy then needs
    ``dict_space=env.observation_space`` from before it.

    Args:
        env: A multi-task environment.
        model: What makes the sentences; it may learn on, and each sentence is its latest.
        n_shots: Demonstrations shown, distinct ones.
        demonstrations: Where they are drawn from; by default the environment's
            ``get_demonstrations``.

    Raises:
        ValueError: A task without demonstrations, or an environment that tells no task.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: Embedder,
        *,
        n_shots: int = 1,
        demonstrations: Sequence[DemonstrationLike] | None = None,
    ) -> None:
        super().__init__(env)
        self._shown = _Demonstrations(n_shots, demonstrations)
        self._model = model
        self._rng = np.random.default_rng()
        self._task_id: str | None = None
        self._sentence = np.zeros(0, np.float32)
        sentence_dim = _sentence_dim(model)
        self.observation_space = _with_sentence(env.observation_space, sentence_dim)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; renews the sentence if its task is another one."""
        obs, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._rng = np.random.default_rng([seed, 0])
        task_id = _task_id(info)
        if seed is not None or task_id != self._task_id:
            get = getattr(self.env.unwrapped, "get_demonstrations", None)
            self._sentence = self._model.embed(self._shown.of(task_id, self._rng, get))
            self._task_id = task_id
        return add_sentence(self.env.observation_space, obs, self._sentence), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See the environment."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        obs = add_sentence(self.env.observation_space, obs, self._sentence)
        return obs, reward, terminated, truncated, info


class VecSentenceObservation(VecEnvWrapper):
    """`SentenceObservation` of many environments, whose demonstrations are embedded together.

    An environment that is reset by itself at an episode's end may have another task then: its new
    observation has the new sentence, ``info["terminal_observation"]`` the old one.

    Args:
        venv: Multi-task environments.
        model: See `SentenceObservation`.
        n_shots: See `SentenceObservation`.
        demonstrations: See `SentenceObservation`.
        seed: Fixes which demonstrations are shown.
    """

    def __init__(
        self,
        venv: VecEnv,
        model: Embedder,
        *,
        n_shots: int = 1,
        demonstrations: Sequence[DemonstrationLike] | None = None,
        seed: int | None = None,
    ) -> None:
        sentence_dim = _sentence_dim(model)
        super().__init__(venv, _with_sentence(venv.observation_space, sentence_dim))
        self._shown = _Demonstrations(n_shots, demonstrations)
        self._model = model
        self._rng = np.random.default_rng(seed)
        self._task_ids: list[str | None] = [None] * venv.num_envs
        self._sentences = np.zeros((venv.num_envs, sentence_dim), np.float32)

    def reset(self) -> VecEnvObs:
        """Starts an episode everywhere."""
        obs = self.venv.reset()
        self._renew(range(self.num_envs))
        return add_sentence(self.venv.observation_space, obs, self._sentences)

    def step_wait(self) -> VecEnvStepReturn:
        """Waits for the environments; see `VecEnv.step_wait`."""
        obs, rewards, dones, infos = self.venv.step_wait()
        ended = [int(index) for index in np.flatnonzero(dones)]
        for index in ended:
            last = infos[index]["terminal_observation"]
            infos[index]["terminal_observation"] = add_sentence(
                self.venv.observation_space, last, self._sentences[index]
            )
        self._renew(ended)
        obs = add_sentence(self.venv.observation_space, obs, self._sentences)
        return obs, rewards, dones, infos

    def _renew(self, indices: Sequence[int]) -> None:
        """Makes the sentences of those environments whose task has changed at their reset."""
        task_ids = {i: _task_id(self.venv.unwrapped.reset_infos[i]) for i in indices}
        changed = [i for i, task_id in task_ids.items() if task_id != self._task_ids[i]]
        if not changed:
            return
        shown = []
        for index in changed:

            def get(*args: Any, index: int = index, **kwargs: Any) -> Any:
                return self.venv.env_method("get_demonstrations", *args, indices=index, **kwargs)[0]

            shown.append(self._shown.of(task_ids[index], self._rng, get))
            self._task_ids[index] = task_ids[index]
        self._sentences[changed] = self._model.embed(shown)


class _Demonstrations:
    """Where the demonstrations of a task come from: recorded ones, or the environment's expert."""

    def __init__(self, n_shots: int, recorded: Sequence[DemonstrationLike] | None) -> None:
        if n_shots < 1:
            raise ValueError(f"n_shots is {n_shots}, expected at least 1.")
        self._n_shots = n_shots
        self._recorded = recorded
        self._of_task = {} if recorded is None else group_by_task(recorded)

    def of(self, task_id: str, rng: np.random.Generator, get_demonstrations: Any) -> list[Any]:
        if self._recorded is None:
            if get_demonstrations is None:
                raise ValueError(
                    "The environment has no get_demonstrations(task, n, seed=...): pass "
                    "demonstrations=, recorded ones of its tasks."
                )
            seed = int(rng.integers(2**31))
            return list(get_demonstrations(task_id, self._n_shots, seed=seed))
        known = self._of_task.get(task_id, [])
        if len(known) < self._n_shots:
            raise ValueError(
                f"There are {len(known)} demonstrations of task {task_id!r}, expected at least "
                f"{self._n_shots}."
            )
        chosen = rng.choice(known, size=self._n_shots, replace=False)
        return [self._recorded[int(index)] for index in chosen]


def _sentence_dim(model: Embedder) -> int:
    return int(model.policy.sentence_dim)


def _task_id(info: dict[str, Any]) -> str:
    if "task_id" not in info:
        raise ValueError(
            f"The environment does not tell its task: expected 'task_id' in its reset's info, "
            f"which has {sorted(info)}."
        )
    return str(info["task_id"])


def _with_sentence(space: spaces.Space[Any], sentence_dim: int) -> spaces.Dict:
    entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {_name_of(space): space}
    sentence = spaces.Box(-1.0, 1.0, (sentence_dim,), np.float32)
    return spaces.Dict({**entries, SENTENCE_KEY: sentence})


def _name_of(space: spaces.Space[Any]) -> str:
    return "pixels" if space.shape is not None and len(space.shape) == 3 else "state"


def add_sentence(space: spaces.Space[Any], obs: Any, sentence: np.ndarray) -> dict[str, Any]:
    """An observation of a space with the sentence in it, as `SentenceObservation` has it."""
    entries = dict(obs) if isinstance(space, spaces.Dict) else {_name_of(space): obs}
    return {**entries, SENTENCE_KEY: sentence.copy()}  # a view would change with the task
