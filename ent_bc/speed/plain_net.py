"""The paper's net written plainly: what preset `paper` is held to, in speed and in what it says."""

from __future__ import annotations

from collections.abc import Mapping

import torch as th
from torch import nn
from torch.nn import functional as F

from ent_bc.embedding import Embedding
from ent_bc.policies import Control, TaskConditionedPolicy


class PlainNet(nn.Module):
    """float32, N x C x H x W, the sentence tiled over the image as channels; on pixels and states.

    It answers `TaskLoss` as the policy does whose parameters it starts with, and its modules are
    numbered alike.

    Args:
        policy: A "tiled" `TaskConditionedPolicy` on images with vectors beside them.
    """

    def __init__(self, policy: TaskConditionedPolicy) -> None:
        super().__init__()
        extractor = policy.features_extractor
        assert extractor.layout.image_shape is not None
        channels, height, width = extractor.layout.image_shape
        features = 16 * _quarter(_quarter(height)) * _quarter(_quarter(width))
        n_actions = policy.state_dict()["action_net.bias"].numel()
        self.log_std_bounds = policy.log_std_bounds
        self.embed_images = _convolutions(2 * channels)
        self.embed_head = nn.Sequential(
            nn.Flatten(), _mlp(features), nn.Linear(200, policy.sentence_dim)
        )
        self.control_images = _convolutions(channels + policy.sentence_dim)
        self.control_head = _mlp(features + extractor.layout.vector_dim)
        self.mean = nn.Linear(200, n_actions)
        self.log_std = nn.Linear(200, n_actions)
        for mine, other in (
            (self.embed_images, policy.encoder.get_submodule("convolutions")),
            (self.embed_head, policy.encoder.get_submodule("head")),
            (self.control_images, extractor.net.get_submodule("convolutions")),
            (self.control_head, policy.mlp_extractor),
            (self.mean, policy.action_net),
            (self.log_std, policy.log_std_net),
        ):
            mine.load_state_dict(other.state_dict())
        statistics = extractor.state_dict()
        self.vector_mean, self.vector_std = statistics["vector_mean"], statistics["vector_std"]

    def embed(self, first: Mapping[str, th.Tensor], last: Mapping[str, th.Tensor]) -> Embedding:
        """As `TaskConditionedPolicy.embed`."""
        images = th.cat([_to_images(first), _to_images(last)], dim=1)
        return Embedding(F.normalize(self.embed_head(self.embed_images(images)), dim=-1))

    def control(self, obs: Mapping[str, th.Tensor], sentence: th.Tensor) -> Control:
        """As `TaskConditionedPolicy.control`."""
        images = _to_images(obs)
        tiled = sentence[:, :, None, None].expand(-1, -1, *images.shape[2:])
        features = self.control_images(th.cat([images, tiled], dim=1)).flatten(1)
        vector = (obs["agent_pos"] - self.vector_mean) / self.vector_std
        latent = self.control_head(th.cat([features, vector], dim=-1))
        return Control(self.mean(latent), self.log_std(latent).clamp(*self.log_std_bounds))


def _convolutions(n_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Conv2d(n_channels, 16, 5, stride=2, padding=2), nn.GroupNorm(1, 16), nn.ELU()]
        n_channels = 16
    return nn.Sequential(*layers)


def _mlp(n_inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(n_inputs, 200), nn.LayerNorm(200), nn.ELU()]
        n_inputs = 200
    return nn.Sequential(*layers)


def _quarter(size: int) -> int:
    """What two convolutions with stride 2 leave of an image's side."""
    return -(-size // 4)


def _to_images(obs: Mapping[str, th.Tensor]) -> th.Tensor:
    return obs["pixels"].permute(0, 3, 1, 2).contiguous().float() / 255.0 - 0.5
