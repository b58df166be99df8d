"""Two modern heads on our embedding and attention: a mixture of Gaussians, and action chunks."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import distributions, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from ent_bc.baselines.imitator import ActionHead, Imitator, Shown
from ent_bc.batches import BatchConfig
from ent_bc.embedding import AttentionEncoder, Embedding
from ent_bc.extractors import AttentionExtractor, Features
from ent_bc.inputs import NO_CROP, Crop
from ent_bc.layers import attention_cross_entropy, in_pieces, mlp
from ent_bc.losses import LossConfig, margin_loss
from ent_bc.observations import SENTENCE_KEY

SENTENCE_DIM = 20
N_COMPONENTS = 5
MIN_SIGMA = 0.1
"""In units of the actions."""
HORIZON = 8
"""Actions in a chunk."""
DECAY = 0.1
"""m of the temporal ensemble: the newest chunk has about half the weight of the oldest, as with the
100 actions and m = 0.01 of the authors' code."""


class AttentionNet(Imitator):
    """What `EntBC` is but for its head: embedding, attention, and the losses that train both.

    Args:
        observation_space: See `Imitator`.
        action_space: The same.
        crop: The same.
    """

    n_demonstrated_obs = 2
    losses = LossConfig()

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        crop: Crop = NO_CROP,
    ) -> None:
        super().__init__(observation_space, action_space, crop=crop)
        self.extractor = AttentionExtractor(self.image_shape, self.layout.vector_dim, SENTENCE_DIM)
        self.encoder = AttentionEncoder(self.extractor.n_channels, self.extractor.describe)

    @abc.abstractmethod
    def errors(self, latent: th.Tensor, obs: Mapping[str, Any], acts: th.Tensor) -> th.Tensor:
        """Errors of the head (B, K, n_steps).

        Args:
            latent: (B, K, n_steps, D) features of the drawn steps.
            obs: See `Imitator.loss`.
            acts: The same.
        """

    def remember(self, shown: Shown) -> th.Tensor:
        """The sentence, the normalised mean over demonstrations: (B, 20)."""
        n_tasks, n_demos = shown.acts.shape[:2]
        first = tree_map(lambda leaf: leaf[:, :, 0].flatten(0, 1), shown.obs)
        last = tree_map(lambda leaf: leaf.flatten(0, 1), shown.last)
        each = self.read(first, last).sentences.unflatten(0, (n_tasks, n_demos))
        return F.normalize(each.mean(dim=1), dim=-1)

    def read(self, first: Any, last: Any) -> Embedding:
        """Sentences of demonstrations, from their first and last observations (N, ...)."""

        def read(first: Any, last: Any) -> Embedding:
            pictures = (self.to_inputs(obs)["pixels"] for obs in (first, last))
            embedding: Embedding = self.encoder(*pictures)
            return embedding

        return in_pieces(read, first, last)

    def attend(self, obs: Any, sentence: th.Tensor) -> Features:
        """Features of observations (N, ...) with their sentences (N, 20)."""

        def attend(obs: Any, sentence: th.Tensor) -> Features:
            features: Features = self.extractor({**self.to_inputs(obs), SENTENCE_KEY: sentence})
            return features

        return in_pieces(attend, obs, sentence)

    def loss(self, obs: Mapping[str, Any], acts: th.Tensor) -> th.Tensor:
        """As `TaskLoss`, with the head's errors in the place of control's and no entropy.

        So the support demonstrations' sentence conditions support and query.
        """
        config, n_support = self.losses, self.batches.n_support
        demo = tree_map(lambda leaf: leaf.flatten(0, 1), obs["demo"])
        embedding = self.read(*(tree_map(lambda leaf, at=at: leaf[:, at], demo) for at in (0, 1)))
        each = embedding.sentences.unflatten(0, acts.shape[:2])
        sentences = F.normalize(each[:, :n_support].mean(dim=1), dim=-1)
        of_step = sentences[:, None, None].expand(*acts.shape[:3], -1)
        steps = tree_map(lambda leaf: leaf.flatten(0, 2), obs["obs"])
        features = self.attend(steps, of_step.flatten(0, 2))
        errors = self.errors(features.latent.unflatten(0, acts.shape[:3]), obs, acts)
        looked = self._looked(features, obs["attention_target"])
        looked = looked + self._looked(embedding, obs["demo_target"])
        return (
            config.embedding_weight * margin_loss(sentences, each[:, n_support:], config.margin)
            + config.support_weight * errors[:, :n_support].mean()
            + config.query_weight * errors[:, n_support:].mean()
            + config.attention_weight * looked
        )

    def _looked(self, net: Features | Embedding, targets: th.Tensor) -> th.Tensor:
        """Mean cross-entropy of a net's maps towards the hindsight targets that are known."""
        assert net.attention is not None
        places = self.crop_positions(targets).flatten(0, -2)
        n_known = th.isfinite(places).all(dim=-1).sum()
        return attention_cross_entropy(net.attention, places).sum() / n_known.clamp(min=1)


class MixtureNet(AttentionNet):
    """`EntBC` with a mixture of Gaussians in the place of one.

    Source: BC-RNN-GMM of Mandlekar et al. (2021), "What matters in learning from offline human
    demonstrations for robot manipulation": 5 diagonal Gaussians, trained on the
    negative log-likelihood, and low noise in evaluation. Departures: no recurrence, to differ from
    `EntBC` in the head alone; sigma is at least 0.1 instead of 0.0001, for else the likelihood of
    the actions that are easy to predict, with one Gaussian as with 5, leaves the others unlearned;
    the answer is the mean of the most probable component and not of a drawn one.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        crop: Crop = NO_CROP,
    ) -> None:
        super().__init__(observation_space, action_space, crop=crop)
        n_latent, n_actions = self.extractor.features_dim, int(np.prod(action_space.shape))
        self.means = ActionHead(n_latent, _repeat(action_space, N_COMPONENTS))
        self.spread = nn.Sequential(
            mlp(n_latent, [256] * 3), nn.Linear(256, N_COMPONENTS * (n_actions + 1))
        )

    def mixture(self, latent: th.Tensor) -> distributions.MixtureSameFamily:
        """Over actions (A,), for features (..., D)."""
        means = self.means(latent).unflatten(-1, (N_COMPONENTS, -1))
        spread = self.spread(latent).unflatten(-1, (N_COMPONENTS, -1))
        sigmas = F.softplus(spread[..., 1:]) + MIN_SIGMA
        return distributions.MixtureSameFamily(
            distributions.Categorical(logits=spread[..., 0]),
            distributions.Independent(distributions.Normal(means, sigmas), 1),
        )

    def errors(self, latent: th.Tensor, obs: Mapping[str, Any], acts: th.Tensor) -> th.Tensor:
        """Negative log-likelihoods."""
        likelihood: th.Tensor = self.mixture(latent).log_prob(acts)
        return -likelihood

    def act(self, obs: Any, state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See `Imitator`."""
        mixture = self.mixture(self.attend(obs, state).latent)
        best = mixture.mixture_distribution.logits.argmax(dim=-1)
        return mixture.component_distribution.mean[th.arange(len(best)), best], state


class ChunkNet(AttentionNet):
    """`EntBC` with the next 8 actions in the place of one, and their average over the last steps.

    Source: ACT of Zhao et al. (2023), "Learning fine-grained bimanual manipulation with low-cost
    hardware", section IV: the absolute error, and in each step an average of all chunks that have
    an action for it, with weight exp(-m i) for the i-th oldest. Departures: no transformer and no
    style variable, to differ from `EntBC` in the head alone; beyond the end the last action counts
    as repeated, where theirs are left out.

    Its state is the sentence, and for each of the next 8 steps the weighted sum of the actions that
    were planned for it, and of their weights.
    """

    batches = BatchConfig(chunk=HORIZON)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        crop: Crop = NO_CROP,
    ) -> None:
        super().__init__(observation_space, action_space, crop=crop)
        self.head = ActionHead(self.extractor.features_dim, _repeat(action_space, HORIZON))

    def errors(self, latent: th.Tensor, obs: Mapping[str, Any], acts: th.Tensor) -> th.Tensor:
        """Absolute errors, the sum over actions and mean over a chunk."""
        return (self.chunks(latent) - obs["chunks"]).abs().sum(dim=-1).mean(dim=-1)

    def chunks(self, latent: th.Tensor) -> th.Tensor:
        """The actions from now on: (..., D) -> (..., 8, A)."""
        acts: th.Tensor = self.head(latent)
        return acts.unflatten(-1, (HORIZON, -1))

    def remember(self, shown: Shown) -> th.Tensor:
        """The sentence, and that nothing is planned."""
        sentence = super().remember(shown)
        return F.pad(sentence, (0, HORIZON * (shown.acts.shape[-1] + 1)))

    def act(self, obs: Any, state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See `Imitator`."""
        sentence, planned = state[:, :SENTENCE_DIM], state[:, SENTENCE_DIM:]
        chunk = F.pad(self.chunks(self.attend(obs, sentence).latent), (0, 1), value=1.0)
        # The newest has weight 1 and those before it exp(m) more each: the same weights but for a
        # factor that all share.
        sums = math.exp(DECAY) * planned.unflatten(-1, (HORIZON, -1)) + chunk
        acts = sums[:, 0, :-1] / sums[:, 0, -1:]
        after = F.pad(sums[:, 1:], (0, 0, 0, 1))
        return acts, th.cat([sentence, after.flatten(1)], dim=-1)


def _repeat(space: spaces.Box, n: int) -> spaces.Box:
    """The space of so many actions in one row."""
    low, high = (np.tile(bound.ravel(), n) for bound in (space.low, space.high))
    return spaces.Box(low, high, dtype=np.float32)
