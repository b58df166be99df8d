"""MIL: learns from a demonstration by one gradient step, and is trained to learn so."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_leaves, tree_map

from ent_bc.baselines.imitator import Imitator, Shown, squared_error
from ent_bc.batches import BatchConfig
from ent_bc.inputs import NO_CROP, Crop
from ent_bc.layers import mlp, soft_argmax, strided_convolutions

STEP_SIZE = 0.01
MAX_GRADIENT = 10.0
N_BIAS = 20
WIDTHS = (200, 200, 200)


class MilNet(Imitator):
    """Meta-imitation learning: the state of a task is its own parameters.

    Source: Finn et al. (2017), "One-shot visual imitation learning via meta-learning", and the
    authors' code for simulated pushing. One step of gradient descent on the demonstration's squared
    error makes a task's parameters from the common ones; training goes through the step (equation
    1). Two heads (section 4.2): the last layer that the step is taken with is another one than the
    last layer that acts. A learned vector is joined to the features (the bias transformation,
    section 4.1). MIL sees more of a demonstration than `EntBC` does: more pictures, actions and
    states.

    Departures: the authors' code multiplies the step's errors by 50, with which training hardly
    gets anywhere here, for most gradients are clipped; layer norm is in the fully connected layers
    too, and is adapted as all else; ELU instead of ReLU; plain initialisation.

    Args:
        observation_space: See `Imitator`.
        action_space: The same.
        crop: The same.
        first_order: Take the step as a constant in training.
        video_only: See of a demonstration the pictures alone: the step's loss is learned, the
            squared norm of a linear map of the last hidden layer (section 4.2; the authors' code
            has convolutions over time in its place).
    """

    batches = BatchConfig(n_steps=None)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        crop: Crop = NO_CROP,
        first_order: bool = False,
        video_only: bool = False,
    ) -> None:
        super().__init__(observation_space, action_space, crop=crop)
        self.first_order = first_order
        self.video_only = video_only
        self.body = MilBody(self.image_shape, self.layout.vector_dim)
        n_actions = int(np.prod(action_space.shape))
        self.head_before = nn.Linear(WIDTHS[-1], n_actions)
        self.head_after = nn.Linear(WIDTHS[-1], n_actions)

    def remember(self, shown: Shown) -> th.Tensor:
        """The parameters of the body after the step on all frames of a task's demonstrations.

        The head that acts is not in the step's loss, so it stays as it is, the same in all tasks.
        """
        obs, acts = shown.obs, shown.acts.flatten(1, 2)
        if self.video_only:  # the last picture too; to be 0 is to have a squared norm of 0
            obs = tree_map(lambda a, b: th.cat([a, b[:, :, None]], dim=2), obs, shown.last)
            n_tasks, n_shots, n_frames = tree_leaves(obs)[0].shape[:3]
            acts = acts.new_zeros(n_tasks, n_shots * n_frames, acts.shape[-1])
        obs = tree_map(lambda leaf: leaf.flatten(1, 2), obs)
        states: th.Tensor = vmap(self._adapt)(*self._frames_of(obs, not self.video_only), acts)
        return states

    def act(self, obs: Any, state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See `Imitator`."""
        return self.roll_out(tree_map(lambda leaf: leaf[:, None], obs), state)[:, 0], state

    def roll_out(self, obs: Any, state: th.Tensor) -> th.Tensor:
        """See `Imitator`; the frames of a task share its parameters."""
        hidden = vmap(self._hidden)(state, *self._frames_of(obs, True))
        acts: th.Tensor = self.head_after(hidden)
        return acts

    def _adapt(self, pixels: th.Tensor, vectors: th.Tensor, acts: th.Tensor) -> th.Tensor:
        """One task's step: frames (F, ...) to flat parameters (P,)."""
        before = th.cat([parameter.flatten() for parameter in self.body.parameters()])

        def loss(parameters: th.Tensor) -> th.Tensor:
            return squared_error(self.head_before(self._hidden(parameters, pixels, vectors)), acts)

        gradient = grad(loss)(before)
        if self.first_order:
            gradient = gradient.detach()
        return before - STEP_SIZE * gradient.clamp(-MAX_GRADIENT, MAX_GRADIENT)

    def _hidden(self, state: th.Tensor, pixels: th.Tensor, vectors: th.Tensor) -> th.Tensor:
        """What the body makes of one task's frames with parameters (P,)."""
        like = dict(self.body.named_parameters())
        flat = state.split([parameter.numel() for parameter in like.values()])
        parameters = {
            name: part.view(parameter.shape)
            for (name, parameter), part in zip(like.items(), flat, strict=True)
        }
        hidden: th.Tensor = functional_call(self.body, parameters, (pixels, vectors))
        return hidden

    def _frames_of(self, obs: Any, with_vectors: bool) -> tuple[th.Tensor, th.Tensor]:
        """Pictures (B, F, C, H, W) and vectors (B, F, D), zeros where these are not to be seen."""
        n_tasks, n_frames = tree_leaves(obs)[0].shape[:2]
        inputs = self.to_inputs(tree_map(lambda leaf: leaf.flatten(0, 1), obs))
        pixels = inputs["pixels"].contiguous()  # vmap knows no memory formats
        pixels = pixels.unflatten(0, (n_tasks, n_frames))
        if with_vectors and self.layout.vector_dim:
            return pixels, inputs["vector"].unflatten(0, (n_tasks, n_frames))
        return pixels, pixels.new_zeros(n_tasks, n_frames, self.layout.vector_dim)


class MilBody(nn.Module):
    """What comes before the heads, and is adapted.

    Convolutions, spatial softmax, then 3 fully connected layers, which see the robot's vector and
    the bias transformation's as well.
    """

    def __init__(self, image_shape: tuple[int, int, int], vector_dim: int) -> None:
        super().__init__()
        # Not as `Convolutions`, which choose a memory format.
        self.convolutions = nn.Sequential(*strided_convolutions(image_shape[0]))
        self.bias = nn.Parameter(th.zeros(N_BIAS))
        with th.no_grad():
            n_places = self._places(th.zeros(1, *image_shape)).shape[1]
        self.layers = mlp(n_places + vector_dim + N_BIAS, WIDTHS)

    def forward(self, pixels: th.Tensor, vectors: th.Tensor) -> th.Tensor:
        """(F, C, H, W) in [0, 1] and (F, D) -> (F, 200)."""
        bias = self.bias.expand(len(pixels), -1)
        hidden: th.Tensor = self.layers(th.cat([self._places(pixels), vectors, bias], dim=-1))
        return hidden

    def _places(self, pixels: th.Tensor) -> th.Tensor:
        """Where in the pictures each filter answers most, (F, 32)."""
        return soft_argmax(self.convolutions(pixels - 0.5))[1].flatten(1)
