"""`EntBC`: entropy-regularised one-shot imitation with task-embedded control networks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from imitation.algorithms import bc
from imitation.util import logger as imit_logger
from rich.progress import track
from stable_baselines3.common import vec_env
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import set_random_seed
from torch.utils._pytree import tree_map

from ent_bc import storage
from ent_bc.batches import BatchConfig, TaskBatches
from ent_bc.demonstrations import check_demonstrations, end_observations, sample_vectors
from ent_bc.layers import Convolutions
from ent_bc.losses import LossConfig, Metrics, TaskLoss
from ent_bc.policies import TaskConditionedPolicy
from ent_bc.schedule import ScheduleConfig


class EntBC(bc.BC):
    """Entropy-regularised one-shot imitation, an `imitation` trainer with SB3's interface.

    A demonstration is embedded into a "sentence"; a policy that is told the sentence does the task.
    Training is behavioural cloning over many tasks, with a margin loss on the sentences and an
    entropy bonus on the policy. See `TaskLoss` for the loss and where it departs from the paper's
    Algorithm 1, `TaskConditionedPolicy` for the networks.

    Args:
        policy: An alias ("TaskPolicy", or SB3's names, which all mean the same class here), a
            policy class, or a `TaskConditionedPolicy`.
        env: Environment, VecEnv or id, for the spaces; SB3's way to construct.
        observation_space: Or the spaces, imitation's way.
        action_space: The same.
        rng: Source of the batches' seed; default from ``seed``.
        demonstrations: Sequence of trajectories or Demonstrations whose infos name their task.
        batch_size: Tasks in a batch.
        minibatch_size: Tasks in a gradient accumulation step; divides batch_size.
        optimizer_cls: Optimiser.
        optimizer_kwargs: Its arguments; ``lr`` is the peak of the schedule.
        ent_weight: Weight of the entropy term; the paper's 1e-5.
        l2_weight: Weight of the L2 penalty.
        device: Device of the policy.
        custom_logger: imitation logger; default made from ``tensorboard_log`` and ``verbose``.
        policy_kwargs: Arguments of the policy class.
        tensorboard_log: Directory for TensorBoard and CSV logs.
        verbose: 1 prints what is logged.
        seed: Seeds everything: same seed, same parameters.
        losses: Options of the loss.
        batches: Options of the batches.
        schedule: Options of the optimisation.

    Raises:
        ValueError: Neither env nor spaces, unknown policy, or unusable demonstrations.
    """

    policy_aliases: ClassVar[dict[str, type[TaskConditionedPolicy]]] = dict.fromkeys(
        ("TaskPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"), TaskConditionedPolicy
    )

    def __init__(
        self,
        policy: str | type[TaskConditionedPolicy] | ActorCriticPolicy = "TaskPolicy",
        env: gym.Env[Any, Any] | vec_env.VecEnv | str | None = None,
        *,
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
        rng: np.random.Generator | None = None,
        demonstrations: Sequence[Any] | None = None,
        batch_size: int = 32,
        minibatch_size: int | None = None,
        optimizer_cls: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        ent_weight: float = 1e-5,
        l2_weight: float = 0.0,
        device: str | th.device = "auto",
        custom_logger: imit_logger.HierarchicalLogger | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        seed: int | None = None,
        losses: LossConfig | None = None,
        batches: BatchConfig | None = None,
        schedule: ScheduleConfig | None = None,
    ) -> None:
        self.env = gym.make(env) if isinstance(env, str) else env
        if self.env is not None:
            observation_space = observation_space or self.env.observation_space
            action_space = action_space or self.env.action_space
        if observation_space is None or action_space is None:
            raise ValueError("EntBC needs env, or observation_space and action_space.")
        self.seed = seed
        if seed is not None:
            set_random_seed(seed)
        self.policy_kwargs = _with_slots(dict(policy_kwargs or {}), self.env)
        self.losses = losses or LossConfig()
        self.batches = batches or BatchConfig()
        self.schedule = schedule or ScheduleConfig()
        self.verbose = verbose
        self.tensorboard_log = None if tensorboard_log is None else str(tensorboard_log)
        self.num_timesteps = 0
        self._batches: TaskBatches | None = None
        self.optimizer_kwargs = {"lr": 2e-3, **(optimizer_kwargs or {})}
        rng = rng or np.random.default_rng(seed)
        self.batch_seed = int(rng.integers(2**31))
        super().__init__(
            observation_space=observation_space,
            action_space=action_space,
            rng=rng,
            policy=self._make_policy(policy, observation_space, action_space),
            batch_size=batch_size,
            minibatch_size=minibatch_size,
            optimizer_cls=optimizer_cls,
            optimizer_kwargs=self.optimizer_kwargs,
            ent_weight=ent_weight,
            l2_weight=l2_weight,
            device=device,
            custom_logger=custom_logger or _make_logger(self.tensorboard_log, verbose),
        )
        self.ent_weight, self.l2_weight = ent_weight, l2_weight
        self.loss_calculator = TaskLoss(  # type: ignore[assignment]
            self.losses, ent_weight, l2_weight, self.batches.n_support
        )
        self.peak_learning_rate = float(self.optimizer.param_groups[0]["lr"])
        if demonstrations is not None:
            self.set_demonstrations(demonstrations)

    @property
    def policy(self) -> TaskConditionedPolicy:
        """The policy that is trained."""
        assert isinstance(self._policy, TaskConditionedPolicy)
        return self._policy

    @property
    def device(self) -> th.device:
        """Where the policy lives."""
        return self.policy.device

    def set_demonstrations(self, demonstrations: Any) -> None:
        """Sets what to learn from; an untrained policy takes its normalisation from it.

        Args:
            demonstrations: Sequence of trajectories or Demonstrations; see `DemonstrationLike`.

        Raises:
            ValueError: None at all, no task id, NaN, another shape or dtype than the spaces, or
                too few of a task.
        """
        check_demonstrations(demonstrations, self.observation_space, self.action_space)
        self._batches = TaskBatches(
            demonstrations, self.minibatch_size, self.batches, self.batch_seed
        )
        if self.num_timesteps == 0:
            vectors = sample_vectors(demonstrations, np.random.default_rng(self.batch_seed))
            self.policy.features_extractor.fit_normalisation(self._to_tensors(vectors))

    def train(
        self,
        *,
        n_epochs: int | None = None,
        n_batches: int | None = None,
        on_epoch_end: Callable[[], None] | None = None,
        on_batch_end: Callable[[], None] | None = None,
        log_interval: int = 500,
        log_rollouts_venv: vec_env.VecEnv | None = None,
        log_rollouts_n_episodes: int = 5,
        progress_bar: bool = True,
        reset_tensorboard: bool = False,
    ) -> None:
        """Trains for some epochs or batches; the arguments are `bc.BC.train`'s.

        An epoch is one pass over the tasks. Goes on where the last call, or the loaded model,
        stopped.

        Raises:
            ValueError: Both or neither of n_epochs and n_batches, or no demonstrations.
            FloatingPointError: The loss or its gradient is no longer finite.
        """
        if (n_epochs is None) == (n_batches is None):
            raise ValueError("Expected exactly one of n_epochs and n_batches.")
        if self._batches is None:
            raise ValueError(
                "There is nothing to learn from: pass demonstrations= or call set_demonstrations."
            )
        if reset_tensorboard:
            self.num_timesteps = 0
        accumulate = self.batch_size // self.minibatch_size
        steps_per_epoch = max(1, len(self._batches) // accumulate)
        n_steps = n_batches if n_batches is not None else (n_epochs or 0) * steps_per_epoch
        rollouts = bc.RolloutStatsComputer(log_rollouts_venv, log_rollouts_n_episodes)
        self._use_low_precision(self.schedule.low_precision)
        self.policy.set_training_mode(True)
        clock = _Clock(self.num_timesteps)
        try:
            for done in track(range(1, n_steps + 1), "Training", disable=not progress_bar):
                metrics, grad_norm = self._train_step(accumulate)
                if self.num_timesteps % log_interval == 0 or done == n_steps:
                    self._log(metrics, grad_norm, clock.rate(self.num_timesteps))
                    for key, value in rollouts(self.policy, self.rng).items():
                        self.logger.record(f"rollout/{key}", value)
                    self.logger.dump(self.num_timesteps)
                if on_batch_end is not None:
                    on_batch_end()
                if on_epoch_end is not None and done % steps_per_epoch == 0:
                    on_epoch_end()
        finally:  # a callback may stop, and what was trained is then used
            self._use_low_precision(False)
            self.policy.set_training_mode(False)

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[..., Any] | Sequence[BaseCallback] | BaseCallback | None = None,
        log_interval: int = 100,
        tb_log_name: str = "EntBC",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> EntBC:
        """Trains as in SB3; one optimiser step counts as one timestep.

        Args:
            total_timesteps: Optimiser steps.
            callback: SB3 callbacks; one that says False stops the training.
            log_interval: Steps between logs.
            tb_log_name: Name of the run below ``tensorboard_log``.
            reset_num_timesteps: Counts from 0 again.
            progress_bar: Shows one.

        Returns:
            The model.
        """
        if reset_num_timesteps:
            self.num_timesteps = 0
        if self.tensorboard_log is not None:
            self.logger = _make_logger(str(Path(self.tensorboard_log) / tb_log_name), self.verbose)
        callbacks = _as_callback(callback)
        callbacks.init_callback(self)  # type: ignore[arg-type]
        callbacks.on_training_start(locals(), globals())

        def on_batch_end() -> None:
            if not callbacks.on_step():
                raise _Stopped

        try:
            self.train(
                n_batches=total_timesteps,
                on_batch_end=on_batch_end,
                log_interval=log_interval,
                progress_bar=progress_bar,
            )
        except _Stopped:
            pass
        callbacks.on_training_end()
        return self

    def embed(self, demonstrations: Any) -> np.ndarray:
        """The sentence of a task: what one or more demonstrations of it say.

        Args:
            demonstrations: A demonstration (a Demonstration, a Trajectory, or a bare array: uint8
                frames (T, H, W, 3), or states (T, D)); a list of them, of one task; or a list of
                such lists, one for each of n_envs tasks.

        Returns:
            float32, unit norm: (sentence_dim,), or (n_envs, sentence_dim) for a list of lists.

        Raises:
            ValueError: An empty list, NaN, or another shape or dtype than the observation space's.
        """
        if isinstance(demonstrations, (list, tuple)) and demonstrations:
            if all(isinstance(item, (list, tuple)) for item in demonstrations):
                return np.stack([self.embed(item) for item in demonstrations])
        several = demonstrations if isinstance(demonstrations, (list, tuple)) else [demonstrations]
        first, last = end_observations(several, self.observation_space)
        with th.no_grad():
            each = self.policy.embed(self._to_tensors(first), self._to_tensors(last)).sentences
            sentence = th.nn.functional.normalize(each.mean(dim=0), dim=-1)
        return sentence.cpu().numpy()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: np.ndarray | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Actions for the task that the sentence ``state`` names; see the policy's `predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    def save(self, path: str | Path) -> None:
        """Writes policy, optimiser and options to one file of JSON and safetensors, atomically."""
        storage.save(self, Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        env: gym.Env[Any, Any] | vec_env.VecEnv | str | None = None,
        device: str | th.device = "auto",
        **kwargs: Any,
    ) -> EntBC:
        """Reads what `save` wrote; training goes on as if it had not been broken off.

        Args:
            path: The file.
            env: Environment to attach.
            device: Where to put the policy.
            **kwargs: Constructor arguments to change, such as ``demonstrations``.

        Raises:
            ValueError: The file is truncated, no model, or of another format version.
        """
        return storage.load(cls, Path(path), env=env, device=device, **kwargs)

    def get_env(self) -> gym.Env[Any, Any] | vec_env.VecEnv | None:
        """The environment that was given, or None."""
        return self.env

    def get_vec_normalize_env(self) -> None:
        """None: normalisation is the policy's own."""

    def _train_step(self, accumulate: int) -> tuple[Metrics, float]:
        """One optimiser step on ``accumulate`` batches; returns the last one's metrics."""
        assert self._batches is not None
        step = self.num_timesteps
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_learning_rate * self.schedule.factor(step)
        self.optimizer.zero_grad()
        for part in range(accumulate):
            batch = tree_map(self._to_tensor, self._batches.batch(step * accumulate + part))
            metrics = self.loss_calculator(self.policy, batch["obs"], batch["acts"])
            (metrics.loss / accumulate).backward()
        grad_norm = float(
            th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.schedule.max_grad_norm)
        )
        loss = metrics.loss.item()
        if not (math.isfinite(grad_norm) and math.isfinite(loss)):
            raise FloatingPointError(
                f"At step {step} the loss is {loss} and its gradient's norm "
                f"{grad_norm}; the parameters are those before it. Lower the learning rate "
                f"({self.peak_learning_rate}) or the loss weights."
            )
        self.optimizer.step()
        self.num_timesteps += 1
        return metrics, grad_norm  # type: ignore[return-value]

    def _log(self, metrics: Metrics, grad_norm: float, steps_per_second: float) -> None:
        for key, value in vars(metrics).items():
            if value is not None:
                self.logger.record(f"bc/{key}", value.item())
        n_samples = self.batch_size * self.batches.n_steps
        n_samples *= self.batches.n_support + self.batches.n_query
        self.logger.record("bc/gradient_norm", grad_norm)
        self.logger.record("bc/learning_rate", self.optimizer.param_groups[0]["lr"])
        self.logger.record("time/steps", self.num_timesteps)
        self.logger.record("time/samples_per_second", n_samples * steps_per_second)

    def _make_policy(
        self,
        policy: Any,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> TaskConditionedPolicy:
        if isinstance(policy, str):
            if policy not in self.policy_aliases:
                raise ValueError(
                    f"Unknown policy {policy!r}: expected one of {sorted(self.policy_aliases)}, "
                    "a TaskConditionedPolicy class or an instance."
                )
            policy = self.policy_aliases[policy]
        if isinstance(policy, type) and issubclass(policy, TaskConditionedPolicy):
            # SB3's own optimiser of the policy is not used: with lr 0 a step does nothing.
            return policy(observation_space, action_space, lambda _: 0.0, **self.policy_kwargs)
        if isinstance(policy, TaskConditionedPolicy):
            return policy
        raise ValueError(f"The policy is {policy!r}, expected a TaskConditionedPolicy.")

    def _to_tensors(self, obs: Any) -> Any:
        return tree_map(self._to_tensor, obs)

    def _to_tensor(self, array: np.ndarray) -> th.Tensor:
        return th.as_tensor(array, device=self.device)

    def _use_low_precision(self, enabled: bool) -> None:
        for module in self.policy.modules():
            if isinstance(module, Convolutions):
                module.low_precision = enabled


class _Stopped(Exception):
    """A callback asked to stop."""


class _Clock:
    """Steps a second since the last time it was asked."""

    def __init__(self, step: int) -> None:
        self._time, self._step = time.perf_counter(), step

    def rate(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._step) / (now - self._time)
        self._time, self._step = now, step
        return rate


def _as_callback(callback: Any) -> BaseCallback:
    if callback is None:
        return CallbackList([])
    if isinstance(callback, BaseCallback):
        return callback
    if isinstance(callback, Iterable):
        return CallbackList(list(callback))
    return ConvertCallback(callback)


def _make_logger(folder: str | None, verbose: int) -> imit_logger.HierarchicalLogger:
    formats = (["stdout"] if verbose else []) + (["tensorboard", "csv"] if folder else [])
    return imit_logger.configure(folder, formats)


def _with_slots(policy_kwargs: dict[str, Any], env: Any) -> dict[str, Any]:
    """Takes the layout of object slots from an environment that tells it (``slot_layout``)."""
    if env is None or "slots" in policy_kwargs:
        return policy_kwargs
    try:
        layout = (
            env.get_attr("slot_layout")[0]
            if isinstance(env, vec_env.VecEnv)
            else env.unwrapped.slot_layout
        )
    except AttributeError:  # an environment without slots
        return policy_kwargs
    return policy_kwargs if layout is None else {**policy_kwargs, "slots": dict(layout)}
