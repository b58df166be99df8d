"""What figure 3 measures without a trial: entropy, and how sentences tell tasks apart."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from ent_bc.baselines.imitator import N_OBS
from ent_bc.ent_bc import EntBC
from ent_bc.evaluation import ENV_ID, EvaluationConfig
from ent_bc.losses import gaussian_entropy
from ent_bc.protocol import as_multi_task, demonstrations_of, pair_of


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Two demonstrations of each validation task, kept in memory.

    Attributes:
        demonstrations: By task, two of each.
        task_ids: T names.
        pair_ids: T names of their pairs.
        twins: (T,) place of each task's twin.
        frames: The demonstrations' observations as tensors (T * 2 * `N_OBS`, ...).
    """

    demonstrations: list[list[Any]]
    task_ids: list[str]
    pair_ids: list[str]
    twins: np.ndarray
    frames: dict[str, th.Tensor]

    @classmethod
    @functools.lru_cache(maxsize=1)
    def of(cls, trials: EvaluationConfig) -> HeldOut:
        """Of the tasks that are tried; made once in a process."""
        env = gym.make(ENV_ID, **trials.env_kwargs())
        tasks: Any = as_multi_task(env).tasks
        seeds = [0] * len(tasks)
        some = demonstrations_of(as_multi_task(env), tasks, 2, seeds=seeds, n_obs=N_OBS)
        env.close()
        place = {task.task_id: index for index, task in enumerate(tasks)}
        observations: list[Any] = [demo.obs for two in some for demo in two]
        return cls(
            demonstrations=[list(two) for two in some],
            task_ids=list(place),
            pair_ids=[pair_of(task) for task in tasks],
            twins=np.array([place[task.twin.task_id] for task in tasks]),
            frames={
                key: th.as_tensor(np.concatenate([obs[key] for obs in observations]))
                for key in observations[0]
            },
        )

    def measure(self, model: EntBC) -> dict[str, Any]:
        """Entropy of the policy and how well sentences tell tasks apart; JSON-ready.

        Returns:
            "entropy", nats, the mean over all frames, each with the sentence of its task's other
            demonstration; "found" and "told_apart", one digit for each task: of how many of its two
            demonstrations the sentence was nearest to the other one's, among all tasks, and among
            the task and its twin.
        """
        each = model.embed([[demo] for two in self.demonstrations for demo in two])
        sentences = each.reshape(len(self.task_ids), 2, -1)
        others = sentences[:, ::-1].reshape(each.shape).repeat(N_OBS, axis=0)
        frames = {key: frames.to(model.device) for key, frames in self.frames.items()}
        with model.policy.evaluation_mode():
            log_std = model.policy.control(frames, th.as_tensor(others).to(model.device)).log_std
        return {
            "entropy": float(gaussian_entropy(log_std).mean()),
            **{key: "".join(map(str, hits)) for key, hits in self._recognised(sentences).items()},
        }

    def _recognised(self, sentences: np.ndarray) -> dict[str, np.ndarray]:
        """Hits (T,) of 0 to 2, of unit sentences (T, 2, D)."""
        own = np.arange(len(sentences))
        likeness = np.einsum("iqd,jqd->qij", sentences, sentences[:, ::-1])
        found = likeness.argmax(axis=2) == own
        told_apart = likeness[:, own, own] > likeness[:, own, self.twins]
        return {"found": found.sum(axis=0), "told_apart": told_apart.sum(axis=0)}
