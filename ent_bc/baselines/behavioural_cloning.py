"""imitation's own `bc.BC` as a baseline: without the demonstration, or with its sentence."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from imitation.algorithms import bc
from imitation.data import types
from torch.utils._pytree import tree_map

from ent_bc.baselines.training import TrainConfig
from ent_bc.batches import BatchConfig, TaskBatches
from ent_bc.demonstrations import DemonstrationLike, check_demonstrations, sample_vectors
from ent_bc.layers import use_low_precision
from ent_bc.observations import SENTENCE_KEY
from ent_bc.policies import TaskConditionedPolicy
from ent_bc.prefetch import prefetch
from ent_bc.sb3_interface import make_logger
from ent_bc.schedule import ScheduleConfig
from ent_bc.wrappers import Embedder


@dataclasses.dataclass(frozen=True)
class BCConfig(TrainConfig):
    """How `bc.BC` is run; its loss is its own, likelihood and entropy."""

    ent_weight: float = 1e-3
    """As `bc.BC`'s, of the entropy."""
    l2_weight: float = 0.0
    """As `bc.BC`'s, of the parameters' squares."""


class Clone:
    """A cloned policy as `evaluate_k_shot` asks for it.

    Args:
        policy: What acts.
        sentences: What tells it the task; None for a policy that is told nothing.
    """

    batches: ClassVar[BatchConfig] = BatchConfig()
    """What it is trained on."""
    n_demonstrated_obs: ClassVar[int] = 2

    def __init__(self, policy: TaskConditionedPolicy, sentences: Embedder | None = None) -> None:
        self.policy = policy
        self.sentences = sentences

    def embed(self, demonstrations: Any) -> np.ndarray:
        """See `EntBC.embed`; where the policy is told nothing, zeros."""
        if self.sentences is not None:
            return self.sentences.embed(demonstrations)
        is_several = isinstance(demonstrations, (list, tuple)) and all(
            isinstance(item, (list, tuple)) for item in demonstrations
        )
        n_tasks = (len(demonstrations),) if is_several else ()
        return np.zeros((*n_tasks, self.policy.sentence_dim), np.float32)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """See `TaskConditionedPolicy.predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic)


def train_bc(
    demonstrations: Sequence[DemonstrationLike],
    observation_space: spaces.Space[Any],
    action_space: spaces.Box,
    config: BCConfig,
    *,
    sentences: Embedder | None = None,
    policy_kwargs: Mapping[str, Any] | None = None,
    on_batch_end: Callable[[int], None] | None = None,
) -> Clone:
    """Trains a `TaskConditionedPolicy` by imitation's `bc.BC`.

    The batches are those of `TaskBatches`, as steps without their tasks. With sentences, a step's
    observation has the one of another demonstration of its task: as when it is evaluated, the
    demonstration shows the task and not the episode.

    Args:
        demonstrations: As for `EntBC.set_demonstrations`.
        observation_space: A Dict, where there are sentences.
        action_space: The actions.
        config: How.
        sentences: Makes them, and is not trained; None trains a policy that is told nothing.
        policy_kwargs: Arguments of the policy.
        on_batch_end: Told the optimiser step, counted from 1.

    Raises:
        FloatingPointError: The gradient is no longer finite.
        ValueError: The demonstrations are unusable, or no Dict has a place for the sentence.
    """
    check_demonstrations(demonstrations, observation_space, action_space)
    options = dict(policy_kwargs or {})
    if sentences is not None:
        options["sentence_dim"] = sentences.policy.sentence_dim
        observation_space = _with_sentence(observation_space, options["sentence_dim"])
    rng = np.random.default_rng(config.seed)
    th.manual_seed(config.seed)
    policy = TaskConditionedPolicy(
        observation_space, action_space, lambda _: 0.0, blind=sentences is None, **options
    )
    vectors = tree_map(th.as_tensor, sample_vectors(demonstrations, rng))
    policy.features_extractor.fit_normalisation(vectors)
    batches = _Transitions(demonstrations, config, sentences)
    trainer = bc.BC(
        observation_space=observation_space,
        action_space=action_space,
        rng=rng,
        policy=policy,
        demonstrations=batches,
        batch_size=len(batches.make(0)["acts"]),
        optimizer_kwargs={"lr": config.learning_rate},
        ent_weight=config.ent_weight,
        l2_weight=config.l2_weight,
        device="cpu",
        custom_logger=make_logger(None, 0),
    )
    _drive(trainer.optimizer, config)
    use_low_precision(policy, config.low_precision)
    steps = itertools.count(1)
    tell = None if on_batch_end is None else lambda: on_batch_end(next(steps))
    trainer.train(n_batches=config.n_batches, on_batch_end=tell, progress_bar=False)
    use_low_precision(policy, False)
    policy.set_training_mode(False)
    return Clone(policy, sentences)


class _Transitions:
    """The batches of `TaskBatches` as imitation's data loaders have them: steps, all in one row."""

    def __init__(
        self,
        demonstrations: Sequence[DemonstrationLike],
        config: TrainConfig,
        sentences: Embedder | None,
    ) -> None:
        self._n_batches = config.n_batches
        arguments = (demonstrations, config.batch_size, Clone.batches, config.seed)
        self._batches = TaskBatches(*arguments)
        if sentences is not None:
            self._batches = _ToldBatches(*arguments)
            self._batches.sentences = [sentences.embed(demo) for demo in demonstrations]

    def __iter__(self) -> Iterator[types.TransitionMapping]:
        return prefetch(map(self.make, range(self._n_batches)))

    def make(self, number: int) -> types.TransitionMapping:
        """A batch, counted from 0."""
        batch = self._batches.batch(number)
        obs, acts = batch["obs"]["obs"], batch["acts"]
        if SENTENCE_KEY in batch["obs"]:
            others = np.roll(batch["obs"][SENTENCE_KEY], 1, axis=1)  # of the same task
            obs = {**obs, SENTENCE_KEY: np.repeat(others[:, :, None], acts.shape[2], axis=2)}
        obs = tree_map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), obs)
        # Of a plain dict imitation takes the number of entries for the batch's size.
        return {"obs": types.maybe_wrap_in_dictobs(obs), "acts": acts.reshape(-1, acts.shape[-1])}


class _ToldBatches(TaskBatches):
    """Batches that have each demonstration's sentence too, (B, K, sentence_dim)."""

    sentences: Sequence[np.ndarray]

    def _read(self, index: int, rows: np.ndarray) -> dict[str, Any]:
        return {**super()._read(index, rows), SENTENCE_KEY: self.sentences[index]}


def _drive(optimizer: th.optim.Optimizer, config: TrainConfig) -> None:
    """Schedule and clipping as everywhere; `bc.BC` has neither, and no hook before its step."""
    schedule = ScheduleConfig(horizon=config.n_batches)
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    steps = itertools.count()

    def before_step(*_: Any) -> None:
        step = next(steps)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule.factor(step)
        norm = float(th.nn.utils.clip_grad_norm_(parameters, schedule.max_grad_norm))
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"At step {step} the gradient's norm is {norm}: lower the learning rate "
                f"({config.learning_rate})."
            )

    optimizer.register_step_pre_hook(before_step)


def _with_sentence(space: spaces.Space[Any], sentence_dim: int) -> spaces.Dict:
    if not isinstance(space, spaces.Dict):
        raise ValueError(f"The observation space is {space}, expected a Dict for the sentence.")
    sentence = spaces.Box(-1.0, 1.0, (sentence_dim,), np.float32)
    return spaces.Dict({**space.spaces, SENTENCE_KEY: sentence})
