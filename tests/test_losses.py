"""The losses, against hand-computed numbers, plain double loops and torch's own distributions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch as th
from torch.distributions import Independent, Normal
from torch.nn import functional as F
from torch.utils._pytree import tree_map
from toys import N_ACTIONS, STATE_DIM, make_model

from ent_bc import LossConfig
from ent_bc.layers import attention_cross_entropy, coordinate_grid
from ent_bc.losses import (
    ControlLoss,
    HingePairing,
    Metrics,
    TaskLoss,
    control_error,
    gaussian_entropy,
    margin_loss,
    retrieval_accuracy,
    twin_accuracy,
)

EAST, NORTH, WEST = (th.tensor(v) for v in ([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]))
SLANTED = th.tensor([0.6, 0.8])
PAIRINGS: tuple[HingePairing, ...] = ("sentence", "query")
KINDS: tuple[ControlLoss, ...] = ("mse", "sampled_mse", "nll", "beta_nll")


def random_units(*shape: int, seed: int = 0) -> th.Tensor:
    return F.normalize(th.randn(*shape, generator=th.Generator().manual_seed(seed)), dim=-1)


# --- the margin loss ---


def test_hinge_by_hand() -> None:
    # Sentences east and north; queries slanted (s0.q0 = 0.6, s1.q0 = 0.8) and north (1 and 0).
    sentences, queries = th.stack([EAST, NORTH]), th.stack([SLANTED, NORTH])[:, None]
    # Each query against the other's sentence: q0: 0.1 - 0.6 + 0.8 = 0.3; q1: 0.1 - 1 + 0 < 0.
    assert margin_loss(sentences, queries, 0.1, "sentence").item() == pytest.approx(0.3 / 2)
    # Each sentence against the other's query: s0: 0.1 - 0.6 + 0 < 0; s1: 0.1 - 1 + 0.8 < 0.
    assert margin_loss(sentences, queries, 0.1, "query").item() == 0.0
    # With a wider margin both count there: 0.7 - 0.6 + 0 = 0.1 and 0.7 - 1 + 0.8 = 0.5.
    assert margin_loss(sentences, queries, 0.7, "query").item() == pytest.approx((0.1 + 0.5) / 2)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("n_queries", [1, 3])
def test_hinge_is_the_mean_over_ordered_pairs_of_tasks(
    pairing: HingePairing, n_queries: int
) -> None:
    sentences, queries = random_units(5, 8), random_units(5, n_queries, 8, seed=1)
    terms = []
    for i in range(5):
        for j in range(5):
            for k in range(n_queries) if i != j else ():
                own = sentences[j] @ queries[j, k]
                other = (
                    sentences[i] @ queries[j, k]
                    if pairing == "sentence"
                    else sentences[j] @ queries[i, k]
                )
                terms.append(max(0.0, 0.5 - own.item() + other.item()))
    expected = sum(terms) / len(terms)
    assert expected > 0
    assert margin_loss(sentences, queries, 0.5, pairing).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_hinge_is_zero_where_tasks_are_apart_by_the_margin(pairing: HingePairing) -> None:
    apart = th.stack([EAST, NORTH, WEST])
    assert margin_loss(apart, apart[:, None], 1.0, pairing).item() == 0.0
    assert margin_loss(apart, apart[:, None], 1.1, pairing).item() > 0.0


def test_one_task_alone_has_nothing_to_be_told_apart_from() -> None:
    sentences = random_units(1, 4).requires_grad_()
    loss = margin_loss(sentences, random_units(1, 2, 4), 0.1)
    loss.backward()
    assert loss.item() == 0.0 and sentences.grad is not None


# --- entropy and control ---


def test_entropy_is_the_normal_distributions() -> None:
    log_std = th.randn(4, 7)
    expected = Independent(Normal(th.zeros(4, 7), log_std.exp()), 1).entropy()
    th.testing.assert_close(gaussian_entropy(log_std), expected)
    # Equation 1 for one action of sigma 1: log sqrt(2 pi e).
    assert gaussian_entropy(th.zeros(1)).item() == pytest.approx(
        math.log(math.sqrt(2 * math.pi * math.e))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_control_error(kind: ControlLoss) -> None:
    mean, log_std, acts, noise = th.randn(4, 6, 7, generator=th.Generator().manual_seed(0))
    normal = Normal(mean, log_std.exp())
    expected = {
        "mse": ((mean - acts) ** 2).sum(-1),
        "sampled_mse": ((normal.icdf(Normal(0.0, 1.0).cdf(noise)) - acts) ** 2).sum(-1),
        "nll": -Independent(normal, 1).log_prob(acts),
        "beta_nll": -(2 * normal.variance * normal.log_prob(acts)).sum(-1),
    }[kind]
    error = control_error(kind, mean, log_std, acts, noise)
    th.testing.assert_close(error, expected, rtol=1e-3, atol=1e-3)
    assert error.shape == (6,)


def test_unknown_options_are_named() -> None:
    with pytest.raises(ValueError, match="pairing is 'both', expected 'sentence' or 'query'"):
        LossConfig(pairing="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="control_loss is 'mae', expected one of .'mse', 's"):
        LossConfig(control_loss="mae")  # type: ignore[arg-type]


@pytest.mark.parametrize(("ent_weight", "weight"), [(0.2, 0.5), (0.1, 2.0)])
def test_on_a_sample_sigma_settles_where_theory_says(ent_weight: float, weight: float) -> None:
    # d/d sigma (w sigma^2 - lambda log sigma) = 0: sigma^2 = lambda / (2 w) in each dimension.
    log_std = th.zeros(7, requires_grad=True)
    optimizer = th.optim.Adam([log_std], lr=0.05)
    noise = th.randn(4096, 7, generator=th.Generator().manual_seed(0))
    mean = acts = th.zeros(4096, 7)
    for _ in range(300):
        optimizer.zero_grad()
        errors = control_error("sampled_mse", mean, log_std, acts, noise)
        (weight * errors.mean() - ent_weight * gaussian_entropy(log_std)).backward()
        optimizer.step()
    expected = th.full((7,), ent_weight / (2 * weight))
    th.testing.assert_close((2 * log_std).exp().detach(), expected, rtol=0.1, atol=0)


def test_with_beta_nll_the_mean_learns_as_from_its_squared_error() -> None:
    mean, log_std, acts, noise = th.randn(4, 6, 7, generator=th.Generator().manual_seed(0))
    gradients = []
    for kind in ("mse", "beta_nll"):
        leaf = mean.clone().requires_grad_()
        control_error(kind, leaf, log_std, acts, noise).sum().backward()
        gradients.append(leaf.grad)
    th.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", ["nll", "beta_nll"])
def test_likelihood_finds_the_noise_of_the_data(kind: ControlLoss) -> None:
    log_std = th.zeros(1, requires_grad=True)
    optimizer = th.optim.Adam([log_std], lr=0.05)
    acts = 0.3 * th.randn(4096, 1, generator=th.Generator().manual_seed(0))
    for _ in range(150):
        optimizer.zero_grad()
        control_error(kind, th.zeros(1), log_std, acts, th.zeros(1)).mean().backward()
        optimizer.step()
    assert log_std.exp().item() == pytest.approx(0.3, rel=0.1)


# --- where to look ---


def test_attention_is_drawn_to_its_label() -> None:
    # A map that looks at the labelled cell alone costs less than one that looks elsewhere.
    positions = coordinate_grid(8, 8)[[10, 10]]
    right, wrong = th.zeros(1, 64), th.zeros(1, 64)
    right[0, 10] = wrong[0, 20] = 10.0
    at_label = attention_cross_entropy(right.view(1, 8, 8), positions[:1])
    elsewhere = attention_cross_entropy(wrong.view(1, 8, 8), positions[:1])
    nowhere = attention_cross_entropy(th.zeros(1, 8, 8), positions[:1])
    assert at_label < 0.1 < nowhere < elsewhere
    assert nowhere.item() == pytest.approx(math.log(64))  # uniform: the label does not matter


def test_rows_with_an_unknown_place_do_not_count() -> None:
    logits = th.randn(4, 6, 6, requires_grad=True)
    places = th.tensor([[0.1, 0.2], [math.nan, 0.0], [-0.5, 0.5], [math.nan, math.nan]])
    losses = attention_cross_entropy(logits, places)
    assert losses[[1, 3]].tolist() == [0.0, 0.0]
    th.testing.assert_close(losses[[0, 2]], attention_cross_entropy(logits[[0, 2]], places[[0, 2]]))
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad[[1, 3]].abs().max() == 0 and (logits.grad[[0, 2]].abs() > 0).any()


def test_no_known_place_at_all_costs_nothing() -> None:
    logits = th.randn(2, 6, 6, requires_grad=True)
    losses = attention_cross_entropy(logits, th.full((2, 2), math.nan))
    losses.sum().backward()
    assert (
        losses.tolist() == [0.0, 0.0] and logits.grad is not None and logits.grad.abs().max() == 0
    )


# --- accuracies ---


def test_retrieval_accuracy_counts_queries_that_find_their_own_task() -> None:
    sentences = th.stack([EAST, NORTH, WEST])
    queries = th.stack(
        [th.stack([EAST, SLANTED]), th.stack([NORTH, SLANTED]), th.stack([WEST, EAST])]
    )
    # Slanted is nearest to north; the last east is a mistake: 4 of 6.
    assert retrieval_accuracy(sentences, queries).item() == pytest.approx(4 / 6)
    assert retrieval_accuracy(sentences, sentences[:, None]).item() == 1.0


def test_twin_accuracy_compares_with_the_twin_alone() -> None:
    sentences = th.stack([EAST, WEST, NORTH])
    queries = th.stack([SLANTED, EAST, WEST])[:, None]
    twins = th.tensor([1, 0, -1])
    # Slanted is nearer to east than to west; east is not west; the third has no twin here.
    assert twin_accuracy(sentences, queries, twins) == pytest.approx(1 / 2)
    assert twin_accuracy(sentences, queries, th.full((3,), -1)) is None


# --- the whole loss ---


def evaluate(ent_weight: float = 1e-3, **options: Any) -> tuple[Metrics, Any]:
    model = make_model(losses=LossConfig(**options), ent_weight=ent_weight)
    with th.no_grad():  # sigma shall depend on the observation from the start
        model.policy.log_std_net.weight.normal_(0, 0.1)
    assert model._batches is not None
    batch = tree_map(th.as_tensor, model._batches.batch(0))
    return model.loss_calculator(model.policy, batch["obs"], batch["acts"]), model.policy


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_weighted_sum_of_its_parts(kind: ControlLoss) -> None:
    metrics, _ = evaluate(
        0.5, control_loss=kind, embedding_weight=2.0, support_weight=0.3, query_weight=0.7
    )
    expected = (
        2.0 * metrics.embedding_loss
        + 0.3 * metrics.support_loss
        + 0.7 * metrics.query_loss
        - 0.5 * metrics.entropy
    )
    assert metrics.embedding_loss > 0
    assert metrics.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_l2_penalty_is_half_the_squared_norm() -> None:
    model = make_model(l2_weight=0.1)
    assert model._batches is not None
    batch = tree_map(th.as_tensor, model._batches.batch(0))
    metrics = model.loss_calculator(model.policy, batch["obs"], batch["acts"])
    squares = sum(p.detach().square().sum().item() for p in model.policy.parameters())
    assert metrics.l2_loss.item() == pytest.approx(0.1 * squares / 2, rel=1e-4)


def sigma_gradient(ent_weight: float, kind: ControlLoss) -> th.Tensor:
    metrics, policy = evaluate(ent_weight, control_loss=kind)
    metrics.loss.backward()
    gradient: th.Tensor = policy.log_std_net.bias.grad
    return gradient


def test_on_the_mean_sigma_gets_its_gradient_from_the_entropy_alone() -> None:
    assert sigma_gradient(0.0, "mse").abs().max() == 0
    # dL / d(log sigma) = -ent_weight for each action dimension.
    th.testing.assert_close(sigma_gradient(0.01, "mse"), th.full((N_ACTIONS,), -0.01))
    for kind in KINDS[1:]:
        assert sigma_gradient(0.0, kind).abs().min() > 0


def test_the_entropy_term_raises_sigma() -> None:
    def trained(ent_weight: float) -> float:
        model = make_model(ent_weight=ent_weight, losses=LossConfig(control_loss="mse"))
        model.train(n_batches=30, progress_bar=False)
        with th.no_grad():
            control = model.policy.control(th.zeros(1, STATE_DIM), th.ones(1, 20))
        return float(control.log_std.exp().mean())

    assert trained(0.0) == 1.0  # as initialised
    assert trained(1e-5) > 1.1


def test_control_is_told_the_sentence_of_the_support_alone() -> None:
    # Other last frames of the queries' videos change the embedding loss, and no control.
    model = make_model()
    assert model._batches is not None and isinstance(model.loss_calculator, TaskLoss)
    batch = tree_map(th.as_tensor, model._batches.batch(0))
    before = model.loss_calculator(model.policy, batch["obs"], batch["acts"])
    batch["obs"]["demo"][:, 1:] = th.randn_like(batch["obs"]["demo"][:, 1:])
    after = model.loss_calculator(model.policy, batch["obs"], batch["acts"])
    assert after.query_loss == before.query_loss and after.support_loss == before.support_loss
    assert after.embedding_loss != before.embedding_loss
    batch["obs"]["demo"][:, :1] = th.randn_like(batch["obs"]["demo"][:, :1])
    moved = model.loss_calculator(model.policy, batch["obs"], batch["acts"])
    assert moved.query_loss != before.query_loss


def test_nets_with_attention_are_told_where_to_look() -> None:
    model = make_model("pixels", losses=LossConfig(attention_weight=0.3))
    assert model._batches is not None
    batch = tree_map(th.as_tensor, model._batches.batch(0))
    metrics = model.loss_calculator(model.policy, batch["obs"], batch["acts"])
    assert metrics.attention_loss > 0
    for key in ("attention_target", "demo_target"):
        batch["obs"][key][:] = math.nan
    unknown = model.loss_calculator(model.policy, batch["obs"], batch["acts"])
    assert unknown.attention_loss == 0
    assert (metrics.loss - unknown.loss).item() == pytest.approx(
        0.3 * metrics.attention_loss.item(), rel=1e-4
    )
