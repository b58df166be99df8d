"""The losses as pure functions, the loss functor that `EntBC` trains with, and its metrics.

Source: Algorithm 1 of "entropy-regularised one-shot imitation with task-embedded control
networks", with the departures that `TaskLoss` lists.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch as th
from torch.nn import functional as F

from ent_bc.layers import attention_cross_entropy

if TYPE_CHECKING:
    from ent_bc.policies import TaskConditionedPolicy

HingePairing = Literal["sentence", "query"]
ControlLoss = Literal["mse", "sampled_mse", "nll", "beta_nll"]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights and options of the loss; by default those that were measured as best on CPU."""

    margin: float = 0.1
    """Margin of the hinge between tasks."""
    pairing: HingePairing = "sentence"
    """Which dot product a query's own is held against: "sentence", each query against the other
    tasks' sentences; "query", each sentence against the other tasks' queries, as printed."""
    control_loss: ControlLoss = "beta_nll"
    """"mse", squared error of the mean, where only the entropy term trains sigma, up to its bound;
    "sampled_mse", of a reparameterised sample; "nll", negative log-likelihood; "beta_nll", the same
    weighted so that the mean learns as with "mse" and sigma learns the error that is left."""
    embedding_weight: float = 1.0
    """lambda_emb, of the margin loss."""
    support_weight: float = 1.0
    """lambda_support, of control on the support demonstrations; the paper's is 0.1."""
    query_weight: float = 1.0
    """lambda_query, of control on the query demonstrations; the paper's is 0.1."""
    attention_weight: float = 0.3
    """Of the hindsight cross-entropy on attention maps, where the net has them."""

    def __post_init__(self) -> None:
        if self.pairing not in ("sentence", "query"):
            raise ValueError(f"pairing is {self.pairing!r}, expected 'sentence' or 'query'.")
        if self.control_loss not in get_args(ControlLoss):
            raise ValueError(
                f"control_loss is {self.control_loss!r}, expected one of {get_args(ControlLoss)}."
            )


def margin_loss(
    sentences: th.Tensor,
    queries: th.Tensor,
    margin: float,
    pairing: HingePairing = "sentence",
) -> th.Tensor:
    """Hinge that keeps a task's sentences together and different tasks' apart.

    Mean over all ordered pairs of tasks i != j, and over queries, of
    ``max(0, margin - s_j . q_j + s_i . q_j)`` (or ``s_j . q_i``, the pairing that Algorithm 1
    prints).

    Args:
        sentences: (B, D) unit sentences of the tasks' support demonstrations.
        queries: (B, Q, D) unit sentences of their query demonstrations.
        margin: The margin.
        pairing: See `LossConfig`.

    Returns:
        A scalar.
    """
    similarity = th.einsum("id,jqd->ijq", sentences, queries)  # s_i . q_j
    own = th.diagonal(similarity).T  # (B, Q): s_j . q_j
    positive = own[None] if pairing == "sentence" else own[:, None]
    hinge = (margin - positive + similarity).clamp(min=0)
    n_tasks = len(sentences)
    if n_tasks < 2:
        return hinge.sum() * 0.0
    different = ~th.eye(n_tasks, dtype=th.bool, device=sentences.device)
    return hinge[different].mean()


def gaussian_entropy(log_std: th.Tensor) -> th.Tensor:
    """Entropy of a diagonal Gaussian (equation 1), summed over actions: (..., A) -> (...)."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)


def control_error(
    kind: ControlLoss, mean: th.Tensor, log_std: th.Tensor, acts: th.Tensor, noise: th.Tensor
) -> th.Tensor:
    """Behavioural cloning error, summed over actions: (..., A) -> (...).

    "beta_nll" is Seitzer et al. (2022), "On the pitfalls of heteroscedastic uncertainty
    estimation", equation 5, with beta 1 and twice as large: its gradient for the mean is that of
    the squared error.

    Args:
        kind: See `LossConfig`.
        mean: Means of the Gaussians.
        log_std: Logarithms of their standard deviations.
        acts: The demonstrated actions.
        noise: Standard normal, for "sampled_mse".
    """
    if kind == "mse":
        return (mean - acts).square().sum(dim=-1)
    if kind == "sampled_mse":
        return (mean + log_std.exp() * noise - acts).square().sum(dim=-1)
    scaled = (acts - mean) * (-log_std).exp()
    nll = 0.5 * scaled.square() + log_std + 0.5 * math.log(2 * math.pi)
    if kind == "beta_nll":
        nll = 2 * (2 * log_std).exp().detach() * nll
    return nll.sum(dim=-1)


def retrieval_accuracy(sentences: th.Tensor, queries: th.Tensor) -> th.Tensor:
    """How often a query's sentence is nearest to its own task's: (B, D), (B, Q, D) -> scalar."""
    similarity = th.einsum("id,jqd->ijq", sentences, queries)
    own = th.arange(len(sentences), device=sentences.device)[:, None]
    return (similarity.argmax(dim=0) == own).float().mean()


def twin_accuracy(sentences: th.Tensor, queries: th.Tensor, twin_of: th.Tensor) -> th.Tensor | None:
    """How often a query is nearer to its own task than to its twin; None without twins.

    Args:
        sentences: (B, D).
        queries: (B, Q, D).
        twin_of: (B,) index of each task's twin in the batch, -1 where it is not there.
    """
    known = twin_of >= 0
    if not known.any():
        return None
    own = (queries * sentences[:, None]).sum(dim=-1)
    other = (queries * sentences[twin_of.clamp(min=0), None]).sum(dim=-1)
    return (own > other)[known].float().mean()


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What one evaluation of the loss says; scalars."""

    loss: th.Tensor
    embedding_loss: th.Tensor
    support_loss: th.Tensor
    query_loss: th.Tensor
    attention_loss: th.Tensor
    entropy: th.Tensor
    mean_sigma: th.Tensor
    l2_loss: th.Tensor
    embedding_accuracy: th.Tensor
    twin_accuracy: th.Tensor | None


@dataclasses.dataclass(frozen=True)
class Terms:
    """What the loss takes of each task of a batch; all have the tasks first.

    Attributes:
        sentences: (B, D) unit sentences of the support demonstrations.
        queries: (B, Q, D) unit sentences of the query demonstrations.
        twin_of: (B,) see `twin_accuracy`.
        errors: (B, K, n_steps) see `control_error`.
        log_std: (B, K, n_steps, A).
        control_looked: (B, 2) sum of the cross-entropies of where control looked, and how many
            of them there are.
        demo_looked: (B, 2) the same, of the encoder's.
    """

    sentences: th.Tensor
    queries: th.Tensor
    twin_of: th.Tensor
    errors: th.Tensor
    log_std: th.Tensor
    control_looked: th.Tensor
    demo_looked: th.Tensor


@dataclasses.dataclass(frozen=True)
class TaskLoss:
    """L = lambda_emb L_emb + L_ctr - ent_weight H: a functor, as imitation's BC has one.

    Departures from the printed Algorithm 1: the hinge's pairing (`LossConfig`); control and entropy
    over support and query (printed: support alone); the entropy's sign, for the text maximises it.
    Means over tasks and time steps, sums over action dimensions.
    """

    config: LossConfig
    ent_weight: float
    l2_weight: float
    n_support: int

    def __call__(
        self, policy: TaskConditionedPolicy, obs: Mapping[str, th.Tensor], acts: th.Tensor
    ) -> Metrics:
        """Evaluates the loss on a batch of `TaskBatches`, as tensors."""
        return self.combine(policy, self.terms(policy, obs, acts))

    def terms(
        self, policy: TaskConditionedPolicy, obs: Mapping[str, th.Tensor], acts: th.Tensor
    ) -> Terms:
        """What the nets say of each task, whatever other tasks there are in the batch."""
        n_support = self.n_support
        n_tasks, n_demos, n_steps = acts.shape[:3]
        demo = _map(lambda leaf: leaf.flatten(0, 1), obs["demo"])
        embedding = policy.embed(
            _map(lambda leaf: leaf[:, 0], demo), _map(lambda leaf: leaf[:, 1], demo)
        )
        each = embedding.sentences.unflatten(0, (n_tasks, n_demos))
        sentences = F.normalize(each[:, :n_support].mean(dim=1), dim=-1)
        of_step = sentences[:, None, None].expand(-1, n_demos, n_steps, -1)
        control = policy.control(
            _map(lambda leaf: leaf.flatten(0, 2), obs["obs"]), of_step.flatten(0, 2)
        )
        errors = control_error(
            self.config.control_loss,
            control.mean,
            control.log_std,
            acts.flatten(0, 2),
            obs["noise"].flatten(0, 2),
        )
        return Terms(
            sentences=sentences,
            queries=each[:, n_support:],
            twin_of=obs["twin_of"],
            errors=errors.view(n_tasks, n_demos, n_steps),
            log_std=control.log_std.unflatten(0, (n_tasks, n_demos, n_steps)),
            control_looked=self._looked(policy, control.attention, obs["attention_target"]),
            demo_looked=self._looked(policy, embedding.attention, obs["demo_target"]),
        )

    def combine(self, policy: TaskConditionedPolicy, terms: Terms) -> Metrics:
        """The loss of a batch, of what the nets said of all of its tasks."""
        config, n_support = self.config, self.n_support
        sentences, queries, errors = terms.sentences, terms.queries, terms.errors
        embedding_loss = margin_loss(sentences, queries, config.margin, config.pairing)
        support_loss, query_loss = errors[:, :n_support].mean(), errors[:, n_support:].mean()
        attention_loss = _mean_looked(terms.control_looked) + _mean_looked(terms.demo_looked)
        entropy = gaussian_entropy(terms.log_std).mean()
        l2_loss = l2_penalty(policy, self.l2_weight)
        return Metrics(
            loss=config.embedding_weight * embedding_loss
            + config.support_weight * support_loss
            + config.query_weight * query_loss
            + config.attention_weight * attention_loss
            - self.ent_weight * entropy
            + l2_loss,
            embedding_loss=embedding_loss,
            support_loss=support_loss,
            query_loss=query_loss,
            attention_loss=attention_loss,
            entropy=entropy,
            mean_sigma=terms.log_std.exp().mean(),
            l2_loss=l2_loss,
            embedding_accuracy=retrieval_accuracy(sentences, queries),
            twin_accuracy=twin_accuracy(sentences, queries, terms.twin_of),
        )

    def _looked(
        self, policy: TaskConditionedPolicy, attention: th.Tensor | None, targets: th.Tensor
    ) -> th.Tensor:
        """Cross-entropies of a net's maps towards the hindsight targets; see `Terms`."""
        n_tasks = len(targets)
        if attention is None or self.config.attention_weight == 0:
            return th.zeros(n_tasks, 2, device=targets.device)
        places = policy.features_extractor.crop_positions(targets).flatten(0, -2)
        errors = attention_cross_entropy(attention, places).view(n_tasks, -1)
        known = th.isfinite(places).all(dim=-1).view(n_tasks, -1)
        return th.stack([errors.sum(dim=1), known.sum(dim=1)], dim=1)


def _mean_looked(looked: th.Tensor) -> th.Tensor:
    total, n_known = looked.sum(dim=0)
    return total / n_known.clamp(min=1)


def l2_penalty(policy: TaskConditionedPolicy, weight: float) -> th.Tensor:
    """Half the sum of the squared parameters, weighted, as `bc.BC` has it; a scalar."""
    if weight == 0:
        return next(policy.parameters()).new_zeros(())
    squares = [parameter.square().sum() for parameter in policy.parameters()]
    return weight * th.stack(squares).sum() / 2


def _map(function: Callable[[th.Tensor], th.Tensor], tree: Any) -> Any:
    """Applies a function to an observation, or to each entry of a Dict observation."""
    if isinstance(tree, Mapping):
        return {key: function(leaf) for key, leaf in tree.items()}
    return function(tree)
