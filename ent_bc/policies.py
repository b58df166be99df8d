"""`TaskConditionedPolicy`: a Gaussian over actions, given an observation and a sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from ent_bc.embedding import AttentionEncoder, Embedding, MlpEncoder, SlotEncoder, TiledEncoder
from ent_bc.extractors import (
    Architecture,
    AttentionExtractor,
    Features,
    SlotExtractor,
    TaskFeaturesExtractor,
)
from ent_bc.inputs import NO_CROP, Crop, SlotLayout
from ent_bc.layers import in_pieces, mlp
from ent_bc.observations import NO_SENTENCE, SENTENCE_KEY

MIN_SIGMA, MAX_SIGMA = math.exp(-5.0), math.exp(2.0)
SQUASH_MARGIN = 1.025  # the squashed mean reaches a little beyond the bounds, which are often hit


@dataclasses.dataclass(frozen=True)
class Control:
    """The control network's answer: a diagonal Gaussian, and where it looked.

    Attributes:
        mean: (N, A).
        log_std: (N, A), a function of observation and sentence.
        attention: (N, H, W) logits of the map that should find the target, or None.
    """

    mean: th.Tensor
    log_std: th.Tensor
    attention: th.Tensor | None = None


class TaskConditionedPolicy(ActorCriticPolicy):
    """A Stable-Baselines3 policy that is told the task by a sentence.

    The actor is one network from the features on; the critic, for trainers that need one, has its
    own and learns nothing into the features.

    Args:
        observation_space: Box (a state, or an image H x W x C or C x H x W), or Dict of an image,
            vectors and, where stock trainers are to know the task, "sentence".
        action_space: Box with finite bounds.
        lr_schedule: As in SB3.
        use_sde: As in SB3, and not supported.
        architecture: "attention", or "tiled", the paper's net exactly.
        sentence_dim: Length of a sentence; the paper's 20.
        slots: Layout of a flat state observation; needed for "attention" on states.
        crop: Fractions of the image that are cut off at the top, bottom, left and right.
        dict_space: The Dict that observations were before Gymnasium's ``FlattenObservation``.
        blind: The control network gets the same sentence whatever was shown: a baseline, for a
            policy that does not listen to the demonstration.
        net_arch: Widths of the control head, or ``{"pi": ..., "vf": ...}`` with the critic's;
            default 3 x 256 for "attention", 3 x 200 for "tiled".
        activation_fn: Activations of these two.
        log_std_init: Logarithm of sigma before training.
        min_sigma: Lower bound of sigma, in units of the actions. A likelihood (``control_loss``
            "nll") asks no more of a state than this, so that it leaves easy ones for hard ones.
        features_extractor_class: `TaskFeaturesExtractor` or a subclass.
        features_extractor_kwargs: More arguments for it.
        optimizer_class: As in SB3.
        optimizer_kwargs: As in SB3.

    Attributes:
        options: What constructs such a policy again: `policy_kwargs` for SB3's trainers.
        log_std_bounds: The least and the greatest logarithm of sigma.

    Raises:
        ValueError: An option is out of range, or does not fit the spaces.
    """

    features_extractor: TaskFeaturesExtractor
    action_space: spaces.Box
    mlp_extractor: nn.Module  # type: ignore[assignment]  # one head: the critic has its own
    value_net: nn.Module  # type: ignore[assignment]
    action_centre: th.Tensor
    action_scale: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Callable[[float], float],
        *,
        use_sde: bool = False,
        architecture: Architecture = "attention",
        sentence_dim: int = 20,
        slots: SlotLayout | Mapping[str, int] | None = None,
        crop: Crop = NO_CROP,
        dict_space: spaces.Dict | None = None,
        blind: bool = False,
        net_arch: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ELU,
        log_std_init: float = 0.0,
        min_sigma: float = MIN_SIGMA,
        features_extractor_class: type[TaskFeaturesExtractor] = TaskFeaturesExtractor,
        features_extractor_kwargs: Mapping[str, Any] | None = None,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if use_sde:
            raise ValueError("use_sde is True, expected False: sigma is a network's output here.")
        if architecture not in ("tiled", "attention"):
            raise ValueError(f"architecture is {architecture!r}, expected 'tiled' or 'attention'.")
        if not isinstance(action_space, spaces.Box) or not action_space.is_bounded():
            raise ValueError(f"The action space is {action_space}, expected a bounded Box.")
        if not issubclass(features_extractor_class, TaskFeaturesExtractor):
            raise ValueError(
                f"features_extractor_class is {features_extractor_class.__name__}, expected "
                "TaskFeaturesExtractor or a subclass: it is told the sentence."
            )
        if not 0 < min_sigma < MAX_SIGMA:
            raise ValueError(
                f"min_sigma is {min_sigma}, expected more than 0 and less than sigma's upper "
                f"bound, {MAX_SIGMA:.1f}."
            )
        self.architecture = architecture
        self.sentence_dim = sentence_dim
        self.blind = blind
        self.log_std_bounds = (math.log(min_sigma), math.log(MAX_SIGMA))
        if isinstance(slots, SlotLayout):
            slots = dataclasses.asdict(slots)
        self.options: dict[str, Any] = {
            "architecture": architecture,
            "sentence_dim": sentence_dim,
            "slots": slots,
            "crop": tuple(crop),
            "dict_space": dict_space,
            "blind": blind,
            "net_arch": _widths(net_arch, [256] * 3 if architecture == "attention" else [200] * 3),
            "activation_fn": activation_fn,
            "log_std_init": log_std_init,
            "min_sigma": min_sigma,
            "features_extractor_class": features_extractor_class,
            "features_extractor_kwargs": dict(features_extractor_kwargs or {}),
        }
        of_extractor = ("architecture", "sentence_dim", "slots", "crop", "dict_space")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=self.options["net_arch"],
            activation_fn=activation_fn,
            log_std_init=log_std_init,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs={
                **{key: self.options[key] for key in of_extractor},
                **self.options["features_extractor_kwargs"],
            },
            normalize_images=False,  # the extractor does it, once
            optimizer_class=optimizer_class,
            optimizer_kwargs=None if optimizer_kwargs is None else dict(optimizer_kwargs),
        )

    def embed(self, first: Any, last: Any) -> Embedding:
        """Sentences of demonstrations, from their first and last observations alone.

        Args:
            first: Batched observation tensors (N, ...), or a Dict of them.
            last: The same.
        """
        return in_pieces(self._embed, first, last)

    def _embed(self, first: Any, last: Any) -> Embedding:
        inputs = [self.features_extractor.to_inputs(obs) for obs in (first, last)]
        for key in ("pixels", "slots", "vector"):  # the first there is; video only, where there is
            if key in inputs[0]:
                embedding: Embedding = self.encoder(inputs[0][key], inputs[1][key])
                return embedding
        raise AssertionError("unreachable: an observation has an image or a vector")

    def control(self, obs: Any, sentence: th.Tensor | None = None) -> Control:
        """The Gaussian over actions.

        Args:
            obs: Batched observation tensors (N, ...), or a Dict of them.
            sentence: (N, sentence_dim); by default the observation's own.

        Raises:
            ValueError: There is no sentence.
        """
        return self._control(self._attend(obs, sentence))

    def forward(
        self, obs: Any, deterministic: bool = False
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Actions, values and log-probabilities of the actions, as in SB3."""
        features = self._attend(obs)
        distribution = self._distribution(self._control(features))
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self._values(features), distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: Any, actions: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """Values, log-probabilities and entropies (never None), as in SB3."""
        features = self._attend(obs)
        distribution = self._distribution(self._control(features))
        return self._values(features), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Any) -> DiagGaussianDistribution:
        """The Gaussian over actions as SB3's distribution; sigma depends on the observation."""
        return self._distribution(self.control(obs))

    def predict_values(self, obs: Any) -> th.Tensor:
        """Values (N, 1), for trainers that need a critic."""
        return self._values(self._attend(obs))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Actions for the task that the sentence names; SB3's recurrent-state slot carries it.

        Args:
            observation: One observation or a batch of n_envs.
            state: Sentence (sentence_dim,), broadcast to all, or (n_envs, sentence_dim); None if
                the observation holds it.
            episode_start: Ignored: a task does not end with an episode.
            deterministic: The mean instead of a sample.

        Returns:
            Actions, clipped to the action space, and ``state`` unchanged.

        Raises:
            ValueError: No sentence, or one of another shape.
        """
        self._check_keys(observation, needs_sentence=state is None)
        obs, vectorised = self._to_batch(observation)
        n_envs = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        sentence = None if state is None else self._check_sentence(state, n_envs)
        with self.evaluation_mode():
            control = self.control(obs, sentence)
            acts = control.mean if deterministic else self._distribution(control).sample()
            actions = acts.cpu().numpy()
        actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return (actions if vectorised else actions[0]), state

    @contextlib.contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """No gradients and no training mode within; afterwards the mode is what it was."""
        was_training = self.training
        if was_training:  # to set it takes as long as a small net's answer
            self.set_training_mode(False)
        try:
            with th.no_grad():
                yield
        finally:
            if was_training:
                self.set_training_mode(True)

    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        return self.get_distribution(observation).get_actions(deterministic=deterministic)

    def _attend(self, obs: Any, sentence: th.Tensor | None = None) -> Features:
        """Features of an observation; the blind baseline's sentence is always the same."""
        if self.blind:
            n_obs = len(next(iter(obs.values())) if isinstance(obs, Mapping) else obs)
            alike = self.sentence_dim**-0.5
            sentence = th.full((n_obs, self.sentence_dim), alike, device=self.device)
        return self.features_extractor.attend(obs, sentence)

    def _check_keys(self, observation: Any, *, needs_sentence: bool) -> None:
        """A clear error where the space has a key that the observation lacks."""
        if isinstance(self.observation_space, spaces.Dict):
            missing = set(self.observation_space.spaces) - set(observation)
            if missing == {SENTENCE_KEY} and needs_sentence:
                raise ValueError(NO_SENTENCE)
            if missing - {SENTENCE_KEY}:
                raise ValueError(
                    f"The observation lacks {sorted(missing)}; it has {sorted(observation)}."
                )

    def _to_batch(self, observation: Any) -> tuple[Any, bool]:
        """SB3's `obs_to_tensor`, and for one plain observation a shorter way than its own."""
        parts = observation if isinstance(observation, dict) else {"": observation}
        space = self.observation_space
        boxes = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        for key, value in parts.items():
            if key not in boxes or np.shape(value) != boxes[key].shape:
                return self.obs_to_tensor(observation)
        device = self.device
        obs = {key: th.as_tensor(np.array([value]), device=device) for key, value in parts.items()}
        return (obs if isinstance(observation, dict) else obs[""]), False

    def _check_sentence(self, sentence: Any, n_envs: int) -> th.Tensor:
        array = np.asarray(sentence, dtype=np.float32)
        if array.shape not in ((self.sentence_dim,), (n_envs, self.sentence_dim)):
            raise ValueError(
                f"The sentence has shape {array.shape}, expected ({self.sentence_dim},) for all "
                f"environments or ({n_envs}, {self.sentence_dim}), one for each."
            )
        tensor = th.as_tensor(array, device=self.device)
        return tensor.expand(n_envs, -1)

    def _control(self, features: Features) -> Control:
        latent = self.mlp_extractor(features.latent)
        log_std = self.log_std_net(latent).clamp(*self.log_std_bounds)
        return Control(self._mean(latent, features.latent), log_std, features.attention)

    def _distribution(self, control: Control) -> DiagGaussianDistribution:
        assert isinstance(self.action_dist, DiagGaussianDistribution)
        return self.action_dist.proba_distribution(control.mean, control.log_std)

    def _values(self, features: Features) -> th.Tensor:
        return self.value_net(features.latent.detach())

    def _mean(self, latent: th.Tensor, features: th.Tensor) -> th.Tensor:
        raw = self.action_net(latent)
        if self.architecture == "tiled":
            return raw
        squashed = th.tanh((raw + self.linear_net(features)) / 2)
        return self.action_centre + SQUASH_MARGIN * self.action_scale * squashed

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        """Called by SB3's constructor, after the features extractor is made."""
        extractor = self.features_extractor
        widths = self.options["net_arch"]
        self.encoder = self._make_encoder()
        self.mlp_extractor = mlp(extractor.features_dim, widths["pi"], self.activation_fn)
        n_actions = int(np.prod(self.action_space.shape or ()))
        n_latent = ([extractor.features_dim] + widths["pi"])[-1]
        self.action_net = nn.Linear(n_latent, n_actions)
        self.log_std_net = nn.Linear(n_latent, n_actions)
        nn.init.zeros_(self.log_std_net.weight)
        nn.init.constant_(self.log_std_net.bias, self.log_std_init)
        if self.architecture == "attention":
            self.linear_net = nn.Linear(extractor.features_dim, n_actions)
            low, high = (th.as_tensor(b) for b in (self.action_space.low, self.action_space.high))
            self.register_buffer("action_centre", (low + high) / 2)
            self.register_buffer("action_scale", (high - low) / 2)
        n_latent = ([extractor.features_dim] + widths["vf"])[-1]
        self.value_net = nn.Sequential(
            mlp(extractor.features_dim, widths["vf"], self.activation_fn), nn.Linear(n_latent, 1)
        )
        arguments = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **arguments)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """What SB3 saves beside the parameters, to construct the policy again."""
        spaces_and_schedule = {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
        }
        return {**spaces_and_schedule, **self.options}

    def _make_encoder(self) -> nn.Module:
        extractor = self.features_extractor
        if isinstance(extractor.net, AttentionExtractor):
            return AttentionEncoder(extractor.net.n_channels, extractor.net.describe)
        if isinstance(extractor.net, SlotExtractor):
            return SlotEncoder(extractor.layout.slot_dim, extractor.net.describe)
        if extractor.layout.image_shape is not None:
            return TiledEncoder(extractor.layout.image_shape, self.sentence_dim)
        return MlpEncoder(extractor.layout.vector_dim, self.sentence_dim)


def _widths(
    net_arch: Sequence[int] | Mapping[str, Sequence[int]] | None, default: Sequence[int]
) -> dict[str, list[int]]:
    """SB3's two ways to say the widths of actor and critic, as one."""
    if isinstance(net_arch, Mapping):
        return {key: list(net_arch.get(key, [])) for key in ("pi", "vf")}
    widths = default if net_arch is None else net_arch
    return {"pi": list(widths), "vf": list(widths)}
