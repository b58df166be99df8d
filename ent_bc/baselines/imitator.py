"""`Imitator`: what every baseline is, so that all are trained and evaluated in one way."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from ent_bc.batches import BatchConfig, stack_records
from ent_bc.demonstrations import index_obs, observed_steps
from ent_bc.inputs import NO_CROP, Crop, Layout, ReadsObservations
from ent_bc.layers import PIECE, count_features, mlp, soft_argmax, strided_convolutions
from ent_bc.observations import NO_SENTENCE
from ent_bc.policies import SQUASH_MARGIN

N_OBS = 10
"""Observations of a demonstration that systems see which see more than its ends: as many as data
sets store."""


Pooling = Literal["flatten", "spatial softmax"]


@dataclasses.dataclass(frozen=True)
class Shown:
    """Demonstrations of some tasks, as tensors; tasks B, demonstrations of each K, frames F.

    Observations are as `Imitator.perceive` gives them.

    Attributes:
        obs: Observation, or mapping of such, (B, K, F, ...), in order of time.
        acts: (B, K, F, A) what was done at these frames.
        last: Observation after the last action, (B, K, ...).
    """

    obs: Any
    acts: th.Tensor
    last: Any

    @property
    def frames(self) -> Any:
        """All observations, (B, K, F + 1, ...)."""
        return tree_map(lambda f, last: th.cat([f, last[:, :, None]], dim=2), self.obs, self.last)


class Imitator(ReadsObservations, abc.ABC):
    """A system that does a task after it was shown, trained by `train` on `TaskBatches`.

    What it knows of a task is a flat vector, its *state*, which `embed` makes and which goes
    through Stable-Baselines3's recurrent-state slot of `predict`, as `EntBC`'s sentence does.

    Args:
        observation_space: Dict of an image and vectors, or an image.
        action_space: Box with finite bounds.
        crop: Fractions of the image that are cut off at the top, bottom, left and right.
    """

    batches: ClassVar[BatchConfig] = BatchConfig()
    """What it is trained on."""
    n_demonstrated_obs: ClassVar[int] = N_OBS  # what `evaluate_k_shot` asks

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        crop: Crop = NO_CROP,
    ) -> None:
        super().__init__()
        self.action_space = action_space
        self.read_as(Layout.of(observation_space, crop=crop))
        if self.layout.image_shape is None:
            raise ValueError(f"The observation space is {observation_space}, expected an image.")
        self.image_shape = self.layout.image_shape

    def to_inputs(self, observations: Any) -> dict[str, th.Tensor]:
        """As `ReadsObservations`', with a "vector" of no numbers where there is none."""
        inputs = super().to_inputs(observations)
        inputs.setdefault("vector", inputs["pixels"].new_zeros(len(inputs["pixels"]), 0))
        return inputs

    def perceive(self, obs: Any) -> Any:
        """What the other methods get of observations (N, ...): here, the observations themselves.

        A system that sees demonstrations and rollouts with the same eyes looks at each but once.
        """
        return obs

    @abc.abstractmethod
    def remember(self, shown: Shown) -> th.Tensor:
        """What is known of each task after its demonstrations: the states (B, S)."""

    @abc.abstractmethod
    def act(self, obs: Any, state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Actions (B, A) for observations (B, ...), and the states of the next step."""

    def roll_out(self, obs: Any, state: th.Tensor) -> th.Tensor:
        """Actions (B, F, A) for observations (B, F, ...) in order of time, from states (B, S).

        Of a system whose states stay as they are: all frames at once.
        """
        n_frames = tree_leaves(obs)[0].shape[1]
        flat = tree_map(lambda leaf: leaf.flatten(0, 1), obs)
        acts, _ = self.act(flat, state.repeat_interleave(n_frames, dim=0))
        return acts.unflatten(0, (-1, n_frames))

    def loss(self, obs: Mapping[str, Any], acts: th.Tensor) -> th.Tensor:
        """The scalar to minimise, of a batch of `TaskBatches` as tensors.

        Each demonstration of a task, alone, shows how the next one of the same task goes; the error
        is that of the actions there.
        """
        n_tasks, n_demos = acts.shape[:2]
        last = tree_map(lambda leaf: leaf[:, :, 1], obs["demo"])
        each = {"obs": self._perceive(obs["obs"], 3), "acts": acts, "last": self._perceive(last, 2)}
        alone = tree_map(lambda leaf: leaf.flatten(0, 1)[:, None], each)
        state = self.remember(Shown(**alone)).unflatten(0, (n_tasks, n_demos)).roll(1, dims=1)
        frames = tree_map(lambda leaf: leaf.flatten(0, 1), each["obs"])
        return squared_error(self.roll_out(frames, state.flatten(0, 1)), acts.flatten(0, 1))

    def embed(self, demonstrations: Any) -> np.ndarray:
        """States of some tasks, float32 (n_envs, S); see `EntBC.embed` for what it takes.

        Records with ``obs`` and ``acts`` are expected, with `n_demonstrated_obs` or more of them.

        Raises:
            ValueError: There are none, or one has fewer observations.
        """
        if not isinstance(demonstrations, (list, tuple)):
            demonstrations = [demonstrations]
        if len(demonstrations) == 0:
            raise ValueError("The list of demonstrations is empty, expected at least one.")
        is_single = not isinstance(demonstrations[0], (list, tuple))
        several = [demonstrations] if is_single else demonstrations
        frames = [stack_records([self._frames(demo) for demo in demos]) for demos in several]
        shown = tree_map(th.as_tensor, stack_records(frames))
        self.eval()
        seen = {"obs": self._perceive(shown["obs"], 3), "last": self._perceive(shown["last"], 2)}
        state = self.remember(Shown(**seen, acts=shown["acts"])).detach().numpy()
        return state[0] if is_single else state

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions, clipped to the action space, and the next states, for batches of both.

        Args:
            observation: (n_envs, ...), or a mapping of such.
            state: (n_envs, S) from `embed`, then from the last step.
            episode_start: Ignored.
            deterministic: Ignored: these systems answer with one action.

        Raises:
            ValueError: There is no state.
        """
        if state is None:
            raise ValueError(NO_SENTENCE)
        self.eval()
        with th.no_grad():
            seen = self.perceive(tree_map(th.as_tensor, observation))
            acts, after = self.act(seen, th.as_tensor(state))
        low, high = self.action_space.low, self.action_space.high
        return np.clip(acts.numpy(), low, high), after.numpy()

    def _perceive(self, obs: Any, n_axes: int) -> Any:
        """`perceive` for observations that have several axes in front."""
        front = tree_leaves(obs)[0].shape[:n_axes]
        flat = tree_map(lambda leaf: leaf.flatten(0, n_axes - 1), obs)
        return tree_map(lambda leaf: leaf.unflatten(0, front), self.perceive(flat))

    def _frames(self, demo: Any) -> dict[str, Any]:
        """As many of a demonstration's observations as are asked for, evenly spaced."""
        steps = observed_steps(demo)
        if len(steps) < self.n_demonstrated_obs:
            raise ValueError(
                f"A demonstration has {len(steps)} observations, expected at least "
                f"{self.n_demonstrated_obs}."
            )
        places = np.linspace(0, len(steps) - 1, self.n_demonstrated_obs).round().astype(int)
        return {
            "obs": index_obs(demo.obs, places[:-1]),
            "acts": np.asarray(demo.acts, np.float32)[steps[places[:-1]]],
            "last": index_obs(demo.obs, places[-1]),
        }


class ActionHead(nn.Module):
    """Features to actions, as `TaskConditionedPolicy`'s mean: 3 layers, squashed to the bounds."""

    def __init__(
        self, n_inputs: int, action_space: spaces.Box, widths: Sequence[int] = (256, 256, 256)
    ) -> None:
        super().__init__()
        n_actions = int(np.prod(action_space.shape))
        self.body = nn.Sequential(mlp(n_inputs, widths), nn.Linear(widths[-1], n_actions))
        self.linear = nn.Linear(n_inputs, n_actions)
        self.centre: th.Tensor
        self.scale: th.Tensor
        low, high = th.as_tensor(action_space.low), th.as_tensor(action_space.high)
        self.register_buffer("centre", (low + high) / 2)
        self.register_buffer("scale", (high - low) / 2)

    def forward(self, features: th.Tensor) -> th.Tensor:
        """(..., n_inputs) -> (..., A)."""
        squashed = th.tanh((self.body(features) + self.linear(features)) / 2)
        actions: th.Tensor = self.centre + SQUASH_MARGIN * self.scale * squashed
        return actions


class PictureNet(nn.Module):
    """The convolutions of MIL, TecNets and the paper, to a vector: 4 x (16 filters, 5x5, stride 2).

    Args:
        image_shape: (C, H, W).
        pooling: "flatten", as in TecNets, or "spatial softmax", as in MIL: where in the picture
            each of the 16 filters answers most.
    """

    def __init__(self, image_shape: tuple[int, int, int], pooling: Pooling = "flatten") -> None:
        super().__init__()
        self.convolutions = strided_convolutions(image_shape[0])
        self.pooling = pooling
        self.n_features = count_features(self, image_shape)

    def forward(self, images: th.Tensor) -> th.Tensor:
        """(N, C, H, W) in [0, 1] -> (N, n_features); a few images at a time, for their memory."""
        size = max(1, PIECE // images[0].numel())
        return th.cat([self._look(piece) for piece in images.split(size)])

    def _look(self, images: th.Tensor) -> th.Tensor:
        maps = self.convolutions(images - 0.5)
        if self.pooling == "flatten":
            return maps.flatten(1)
        return soft_argmax(maps)[1].flatten(1)


def squared_error(predicted: th.Tensor, acts: th.Tensor) -> th.Tensor:
    """Sum over actions, mean over all else."""
    return (predicted - acts).square().sum(dim=-1).mean()
