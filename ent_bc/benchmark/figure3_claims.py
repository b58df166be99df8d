"""What figure 3's runs say of the paper's claims, in words that follow the numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from ent_bc.benchmark.estimates import Estimate
from ent_bc.benchmark.figure3_curves import Curves, happened

Answer = Literal["holds", "holds in part", "fails", "not settled", "not run"]

SIGMA_FACTOR = 2.0
"""An entropy is maintained while sigma, averaged over dimensions, is within this factor."""
COST = 0.05
"""A loss of embedding accuracy that would count as none."""
HALF = 0.5
"""Of the trials: a demonstration that changes more of them decides."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim, whether it holds here, and by which numbers."""

    claim: str
    answer: Answer
    why: str

    def __str__(self) -> str:
        return f"{self.claim}: **{self.answer}**. {self.why}"


def verdicts(curves: Mapping[str, Curves]) -> list[Verdict]:
    """The paper's two claims, and the finding that its figure hides."""
    return [rises_while_maintained(curves), costs_nothing(curves), demonstration_decides(curves)]


def rises_while_maintained(curves: Mapping[str, Curves]) -> Verdict:
    """The paper's first claim, of held-out tasks.

    It holds where the accuracy rises (the interval of the rise is above 0) and sigma stays within
    `SIGMA_FACTOR`; in part, where sigma grows beyond; it fails where the accuracy does not rise or
    sigma falls.
    """
    claim = "Embedding accuracy rises while entropy is maintained"
    if "ent-bc" not in curves:
        return Verdict(claim, "not run", _NEEDS.format("ent-bc"))
    ours = curves["ent-bc"]
    first, last = (ours.embedding_accuracy[:, place] for place in (0, -1))
    rise = ours.estimate(last - first)
    rises = rise.low > 0
    sigma = ours.sigma.mean(axis=0)
    falls, grows = sigma.min() * SIGMA_FACTOR < sigma[0], sigma.max() > SIGMA_FACTOR * sigma[0]
    entropy = "falls" if falls else "grows" if grows else "is maintained"
    h, steps = ours.entropy.mean(axis=0), ours.steps
    answer: Answer = "fails" if falls or not rises else "holds in part" if grows else "holds"
    return Verdict(
        claim,
        answer,
        f"The accuracy {'rises' if rises else 'does not rise'}: from "
        f"{100 * first.mean():.1f}% to {100 * last.mean():.1f}% in {steps[-1]} steps, by {rise} "
        f"points ({_n(rise)}; chance {100 / rise.n_trials:.1f}%). The entropy {entropy}: from "
        f"{h[0]:.2f} to {h[-1]:.2f} nats, lowest {h.min():.2f}, highest {h.max():.2f}; sigma from "
        f"{sigma[0]:.2f} to {sigma[-1]:.2f} N m." + _entropy_without_the_term(curves),
    )


def costs_nothing(curves: Mapping[str, Curves]) -> Verdict:
    """The paper's second claim, of held-out tasks, over the seeds that both were run with.

    It holds where the interval of the difference is above -`COST`, it fails where it is below 0.
    """
    claim = "The entropy term costs no embedding accuracy"
    common = _common_seeds(curves)
    if not common:
        return Verdict(claim, "not run", _NEEDS.format("ent-bc and original of the same seed"))
    ours, original = (curves[name].of_seeds(common) for name in ("ent-bc", "original"))
    last = [some.embedding_accuracy[:, -1] for some in (ours, original)]
    cost = ours.estimate(last[0] - last[1])
    answer: Answer = "fails" if cost.high < 0 else "holds" if cost.low > -COST else "not settled"
    return Verdict(
        claim,
        answer,
        f"After {ours.steps[-1]} steps {100 * last[0].mean():.1f}% with the term and "
        f"{100 * last[1].mean():.1f}% without: a difference of {cost} points ({_n(cost)}); less "
        f"than {100 * COST:.0f} points would count as none.",
    )


def demonstration_decides(curves: Mapping[str, Curves]) -> Verdict:
    """What an embedding accuracy does not say, of the mean action's trials after training.

    It holds where the twin's demonstration, shown instead of the task's own, makes the other object
    go in over `HALF` of the trials more (the whole interval), in part where in more at all; it
    fails where none is seen and the interval ends below `HALF`.
    """
    claim = "The policy does what the demonstration shows"
    if "ent-bc" not in curves:
        return Verdict(claim, "not run", _NEEDS.format("ent-bc"))
    ours = curves["ent-bc"]
    effect = influence(ours, ours.trials)
    answer: Answer = "fails" if effect.high < HALF else "not settled"
    if effect.low > 0:
        answer = "holds" if effect.low > HALF else "holds in part"
    accuracy, twin = (a[:, -1].mean() for a in (ours.embedding_accuracy, ours.twin_accuracy))
    return Verdict(
        claim,
        answer,
        f"With an embedding accuracy of {100 * accuracy:.1f}% and a twin accuracy of "
        f"{100 * twin:.1f}%, the twin's demonstration changes the rate at which the other object "
        f"is brought by {effect} points ({_n(effect)}): 0 is a policy that ignores the "
        "demonstration, 100 one that follows it.",
    )


def influence(curves: Curves, trials: Mapping[str, np.ndarray]) -> Estimate:
    """How much oftener the other object goes after the twin's demonstration than after the own."""
    other = {shown: happened(letters[:, -1], "ob") for shown, letters in trials.items()}
    return curves.estimate(other["twin"] - other["own"])


_NEEDS = "It needs runs of {}."


def _common_seeds(curves: Mapping[str, Curves]) -> list[int]:
    if not {"ent-bc", "original"} <= set(curves):
        return []
    return [seed for seed in curves["ent-bc"].seeds if seed in curves["original"].seeds]


def _entropy_without_the_term(curves: Mapping[str, Curves]) -> str:
    if "original" not in curves:
        return ""
    entropy = curves["original"].entropy.mean(axis=0)
    return f" Without the entropy term it goes from {entropy[0]:.2f} to {entropy[-1]:.2f} nats."


def _n(estimate: Estimate) -> str:
    seeds = "seed" if estimate.n_seeds == 1 else "seeds"
    return f"n = {estimate.n_seeds} {seeds} x {estimate.n_trials} tasks"
