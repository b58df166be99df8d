"""`EntBC`: entropy-regularised one-shot imitation with task-embedded control networks."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from imitation.algorithms import bc
from imitation.data import types
from imitation.util import logger as imit_logger
from imitation.util.util import get_first_iter_element
from rich.progress import track
from stable_baselines3.common import vec_env
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import check_for_correct_spaces, set_random_seed
from torch.utils._pytree import tree_map

from ent_bc import storage
from ent_bc.batches import BatchConfig, TaskBatches
from ent_bc.demonstrations import check_demonstrations, end_observations, sample_vectors
from ent_bc.hub import HubMixin
from ent_bc.layers import use_low_precision
from ent_bc.losses import LossConfig, TaskLoss
from ent_bc.observations import SENTENCE_KEY
from ent_bc.parallel import TrainingWorkers
from ent_bc.policies import TaskConditionedPolicy
from ent_bc.prefetch import prefetch
from ent_bc.sb3_interface import Env, SB3Interface, as_vec_env, make_logger
from ent_bc.schedule import ScheduleConfig
from ent_bc.transitions import (
    NO_SENTENCES,
    TransitionBatches,
    TransitionLoss,
    split_episodes,
)


class EntBC(SB3Interface, bc.BC, HubMixin):
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
        demonstrations: What to learn from; see `set_demonstrations`.
        support_demonstrations: Demonstrations of the tasks, for sentences where batches of
            transitions are learned from.
        batch_size: Tasks in a batch, or transitions where these are learned from.
        minibatch_size: The same in a gradient accumulation step; divides batch_size.
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
        ValueError: Neither env nor spaces, or both and they differ, unknown policy, sizes below 1,
            or unusable demonstrations.
    """

    n_demonstrated_obs: ClassVar[int] = 2  # first and last; what `evaluate_k_shot` asks
    policy_aliases: ClassVar[dict[str, type[TaskConditionedPolicy]]] = dict.fromkeys(
        ("TaskPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"), TaskConditionedPolicy
    )

    def __init__(
        self,
        policy: str | type[TaskConditionedPolicy] | ActorCriticPolicy = "TaskPolicy",
        env: Env | None = None,
        *,
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
        rng: np.random.Generator | None = None,
        demonstrations: Any = None,
        support_demonstrations: Sequence[Any] | None = None,
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
        self.env = None if env is None else as_vec_env(env)
        if self.env is not None:
            observation_space = observation_space or self.env.observation_space
            action_space = action_space or self.env.action_space
        if observation_space is None or action_space is None:
            raise ValueError("EntBC needs env, or observation_space and action_space.")
        if self.env is not None:
            check_for_correct_spaces(self.env, observation_space, action_space)
        if min(batch_size, minibatch_size or batch_size) < 1:
            raise ValueError(
                f"batch_size is {batch_size} and minibatch_size {minibatch_size}, expected at "
                "least 1."
            )
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
        self._logged_from = 0
        self._batches: TaskBatches | TransitionBatches | None = None
        self._workers: TrainingWorkers | None = None
        self._support_demonstrations = support_demonstrations
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
            custom_logger=custom_logger or make_logger(self.tensorboard_log, verbose),
        )
        self.policy.set_training_mode(False)  # as it is whenever it is not being trained
        self.ent_weight, self.l2_weight = ent_weight, l2_weight
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
        """Sets what to learn from; a policy without normalisation takes it from there.

        Trajectories (imitation's, or records like them, see `DemonstrationLike`) and ordered
        `Transitions` train everything. Batches of transitions have lost their episodes: they train
        control, and the sentences come from the observation's "sentence", or from
        ``support_demonstrations``.

        Args:
            demonstrations: Sequence or iterable of trajectories, `Transitions`, or iterable of
                batches, mappings with "obs", "acts" and maybe "infos".

        Raises:
            ValueError: None at all, no task id, NaN, another shape or dtype than the spaces, too
                few of a task, or batches without anything to make sentences from.
        """
        if isinstance(demonstrations, types.TransitionsMinimal):
            demonstrations = split_episodes(demonstrations)
        elif isinstance(demonstrations, Iterable) and not _is_empty(demonstrations):
            first, demonstrations = get_first_iter_element(demonstrations)
            if isinstance(first, Mapping):
                self._set_batches(first, demonstrations)
                return
            if not isinstance(demonstrations, Sequence):
                demonstrations = list(demonstrations)
        check_demonstrations(demonstrations, self.observation_space, self.action_space)
        self._batches = TaskBatches(
            demonstrations, self.minibatch_size, self.batches, self.batch_seed
        )
        self.loss_calculator = TaskLoss(  # type: ignore[assignment]
            self.losses, self.ent_weight, self.l2_weight, self.batches.n_support
        )
        self._fit_normalisation(
            sample_vectors(demonstrations, np.random.default_rng(self.batch_seed))
        )

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
            self._logged_from = self.num_timesteps
        accumulate = self.batch_size // self.minibatch_size
        n_steps, per_epoch = n_batches, self._batches.n_steps(accumulate)
        if n_epochs is not None and per_epoch is not None:
            n_steps = n_epochs * per_epoch
        rollouts = bc.RolloutStatsComputer(log_rollouts_venv, log_rollouts_n_episodes)
        log = _Log(self, rollouts)
        use_low_precision(self.policy, self.schedule.low_precision)
        self.policy.set_training_mode(True)
        self._workers = self._start_workers()
        steps = itertools.islice(self._steps(accumulate, n_epochs, on_epoch_end), n_batches)
        try:
            for batches in track(steps, "Training", total=n_steps, disable=not progress_bar):
                metrics, grad_norm = self._train_step(batches, accumulate)
                n_samples = sum(math.prod(batch["acts"].shape[:-1]) for batch in batches)
                n_samples *= 1 if self._workers is None else self._workers.n_workers
                log.take(metrics, grad_norm, n_samples)
                if self.num_timesteps % log_interval == 0:
                    log.write()
                if on_batch_end is not None:
                    on_batch_end()
            log.write()
        finally:  # a callback may stop, and what was trained is then used
            if self._workers is not None:
                self._workers.close()
                self._workers = None
            use_low_precision(self.policy, False)
            self.policy.set_training_mode(False)

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
        with self.policy.evaluation_mode():
            each = self.policy.embed(self._to_tensors(first), self._to_tensors(last)).sentences
            sentence = th.nn.functional.normalize(each.mean(dim=0), dim=-1)
        return sentence.cpu().numpy()

    def save(self, path: str | Path) -> None:
        """Writes policy, optimiser and options to one file of JSON and safetensors, atomically."""
        storage.save(self, Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        env: Env | None = None,
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

    def _set_batches(self, first: Mapping[str, Any], loader: Iterable[Any]) -> None:
        """Learns from batches of transitions, of which ``first`` is one."""
        space = self.policy.options["dict_space"] or self.observation_space
        is_told = isinstance(space, spaces.Dict) and SENTENCE_KEY in space.spaces
        support = None if is_told else self._support_demonstrations
        if support is None and not is_told and not self.policy.blind:
            raise ValueError(NO_SENTENCES)
        if support is not None:
            check_demonstrations(support, self.observation_space, self.action_space)
        self._batches = TransitionBatches(loader, support, self.observation_space)
        self.loss_calculator = TransitionLoss(  # type: ignore[assignment]
            self.losses, self.ent_weight, self.l2_weight
        )
        self._fit_normalisation(types.maybe_unwrap_dictobs(first["obs"]))

    def _fit_normalisation(self, observations: Any) -> None:
        if not self.policy.features_extractor.is_fitted:
            self.policy.features_extractor.fit_normalisation(self._to_tensors(observations))

    def _steps(
        self, accumulate: int, n_epochs: int | None, on_epoch_end: Callable[[], None] | None
    ) -> Iterator[list[dict[str, Any]]]:
        """The batches of each optimiser step to come, for some epochs or without end."""
        for epoch in self._epochs(accumulate, n_epochs):
            begin = self.num_timesteps
            yield from epoch
            if self.num_timesteps == begin:
                raise ValueError(
                    "The demonstrations gave no batch in an epoch: expected an iterable that can "
                    "be gone over again, such as a data loader or a list, of at least one batch."
                )
            if on_epoch_end is not None:
                on_epoch_end()

    def _epochs(self, accumulate: int, n_epochs: int | None) -> Iterator[Iterator[Any]]:
        """The steps of each epoch; what is known beforehand is made ahead, beyond epochs too."""
        source = self._batches if self._workers is None else self._workers.batches
        assert source is not None
        passes = itertools.repeat(0) if n_epochs is None else range(n_epochs)
        if not isinstance(source, TaskBatches):  # a loader may look at what training changes
            return (source.epoch(self.num_timesteps, accumulate) for _ in passes)
        length = source.n_steps(accumulate)
        begins = zip(itertools.count(self.num_timesteps, length), passes)
        epochs = (source.epoch(begin, accumulate) for begin, _ in begins)
        ahead = prefetch(itertools.chain.from_iterable(epochs))
        return (itertools.islice(ahead, length) for _ in passes)

    def _train_step(self, batches: list[dict[str, Any]], accumulate: int) -> tuple[Any, float]:
        """One optimiser step on up to ``accumulate`` batches; returns the last one's metrics."""
        step = self.num_timesteps
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_learning_rate * self.schedule.factor(step)
        self.optimizer.zero_grad()
        for number, batch in enumerate(batches, start=step * accumulate):
            metrics = self._backward(number, self._to_tensors(batch), 1 / accumulate)
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
        return metrics, grad_norm

    def _backward(self, number: int, batch: dict[str, Any], scale: float) -> Any:
        """Adds the gradient of a batch's loss to the parameters'; returns the metrics."""
        if self._workers is not None:
            return self._workers.backward(number, batch["obs"], batch["acts"], scale)
        metrics: Any = self.loss_calculator(self.policy, batch["obs"], batch["acts"])
        (metrics.loss * scale).backward()
        return metrics

    def _start_workers(self) -> TrainingWorkers | None:
        """The processes that share the batches' tasks, where more than one is asked for."""
        if not isinstance(self._batches, TaskBatches) or self.device.type != "cpu":
            return None
        n_workers = min(self.schedule.n_workers, self._batches.groups_per_batch)
        if n_workers == 1:
            return None
        assert isinstance(self.loss_calculator, TaskLoss)
        return TrainingWorkers(n_workers, self.policy, self.loss_calculator, self._batches)

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

    def __getstate__(self) -> dict[str, Any]:
        """Without what cannot be pickled; SB3's models forget their environment too."""
        return {**super().__getstate__(), "env": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With a logger that prints at most: imitation's own would make a directory for it."""
        super().__setstate__({**state, "_logger": make_logger(None, state["verbose"])})

    def _to_tensor(self, array: np.ndarray) -> th.Tensor:
        return th.as_tensor(array, device=self.device)


BaseAlgorithm.register(EntBC)  # which imitation's rollouts ask for, of what they let act


class _Log:
    """Writes what the latest step said, and how fast steps went, once each."""

    def __init__(self, model: EntBC, rollouts: bc.RolloutStatsComputer) -> None:
        self._model, self._rollouts = model, rollouts
        self._time, self._n_samples = time.perf_counter(), 0
        self._latest: dict[str, Any] = {}

    def take(self, metrics: Any, grad_norm: float, n_samples: int) -> None:
        self._n_samples += n_samples
        named = {f"bc/{key}": value for key, value in vars(metrics).items() if value is not None}
        self._latest = {**named, "bc/gradient_norm": grad_norm}

    def write(self) -> None:
        """Nothing if nothing is new."""
        if not self._latest:
            return
        model, now = self._model, time.perf_counter()
        for key, value in self._latest.items():
            model.logger.record(key, value.item() if isinstance(value, th.Tensor) else value)
        for key, value in self._rollouts(model.policy, model.rng).items():
            model.logger.record(f"rollout/{key}", value)
        model.logger.record("bc/learning_rate", model.optimizer.param_groups[0]["lr"])
        model.logger.record("time/steps", model.num_timesteps)
        model.logger.record("time/samples_per_second", self._n_samples / (now - self._time))
        model.logger.dump(model.num_timesteps - model._logged_from)
        self._time, self._n_samples, self._latest = now, 0, {}


def _is_empty(demonstrations: Any) -> bool:
    return isinstance(demonstrations, Sequence) and len(demonstrations) == 0


def _with_slots(policy_kwargs: dict[str, Any], env: vec_env.VecEnv | None) -> dict[str, Any]:
    """Takes the layout of object slots from an environment that tells it (``slot_layout``)."""
    if env is None or "slots" in policy_kwargs:
        return policy_kwargs
    try:
        with warnings.catch_warnings():  # Gymnasium 0.29's, of reaching through its wrappers
            warnings.simplefilter("ignore")
            layout = env.get_attr("slot_layout", 0)[0]
    except AttributeError:  # an environment without slots
        return policy_kwargs
    return policy_kwargs if layout is None else {**policy_kwargs, "slots": dict(layout)}
