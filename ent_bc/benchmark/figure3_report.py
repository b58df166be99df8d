"""Figure 3 in numbers: a Markdown file in which every sentence follows the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ent_bc.benchmark.figure3_claims import influence, verdicts
from ent_bc.benchmark.figure3_curves import Curves, happened
from ent_bc.benchmark.figure3_runs import SEEDS, VARIANTS
from ent_bc.benchmark.results import LETTERS

_COMMAND = "ent-bc benchmark figure3"


def markdown(curves: Mapping[str, Curves], records: Sequence[Any]) -> str:
    """The verdicts, the figures, their numbers, and what was not run.

    Args:
        curves: By variant.
        records: Of all their runs.
    """
    lines = ["# The paper's figure 3, and what it hides", "", *_runs(records), ""]
    lines += [f"{place}. {verdict}" for place, verdict in enumerate(verdicts(curves), 1)]
    lines += ["", "![Entropy and embedding accuracy](figure3.png)", "", *_accuracies(curves), ""]
    lines += ["![Sentences and trials](figure3_hidden.png)", "", *_trials(curves), ""]
    done = {(record["variant"], record["seed"]) for record in records}
    missing = [f"{v} seed {s}" for v in VARIANTS for s in SEEDS if (v, s) not in done]
    return "\n".join([*lines, f"Not run: {', '.join(missing) or 'nothing'}.", ""])


def _runs(records: Sequence[Any]) -> list[str]:
    """What was run, on what, and how long it took."""
    config = records[0]["config"]
    training, measuring = (
        np.array([record["seconds"][part] for record in records])
        for part in ("training", "measuring")
    )
    minutes, share = (training + measuring) / 60, measuring.sum() / (training + measuring).sum()
    n_demos, on_cpu = config["n_demos"], config["device"] == "cpu"
    demos = (
        "one support and one query demonstration"
        if n_demos == 1
        else f"{n_demos} support and {n_demos} query demonstrations"
    )
    known = {key: sorted({r[key][:12] for r in records}) for key in ("code", "data_sha256")}
    return [
        f"`{_COMMAND}{'' if on_cpu else ' --gpu'}`: preset `paper`, {demos}, "
        f"{config['n_batches']} steps of {config['batch_size']} tasks, {config['image_size']} "
        f"pixels; {len(records)} runs of {minutes.min():.1f} to {minutes.max():.1f} minutes on "
        f"{'one thread' if on_cpu else config['device']}, of which measuring took "
        f"{100 * share:.0f}%. Held out are {len(records[0]['task_ids'])} val tasks, of each two "
        "demonstrations and one trial with its own and one with its twin's. In brackets 95% "
        "intervals in percent, bootstrap over seeds and pairs of objects.",
        "",
        f"Code {', '.join(known['code'])}; data {', '.join(known['data_sha256'])}.",
    ]


def _accuracies(curves: Mapping[str, Curves]) -> list[str]:
    """A row for each variant: what the paper's figure shows, at the start and at the end."""
    columns = ("", "seeds", "entropy, nats", "sigma, N m", "embedding accuracy, training batches")
    rows = [[*columns, "held-out, at first", "held-out, at last", "twin accuracy, held-out"]]
    for name, some in curves.items():
        entropy, sigma = some.entropy.mean(axis=0), some.sigma.mean(axis=0)
        batch = 100 * some.batch_accuracy.mean(axis=0)
        rows.append(
            [
                f"`{name}`: {VARIANTS[name].title}",
                str(len(some.seeds)),
                f"{entropy[0]:.2f} to {entropy[-1]:.2f}",
                f"{sigma[0]:.2f} to {sigma[-1]:.2f}",
                f"{batch[0]:.1f} to {batch[-1]:.1f}",
                *(str(some.estimate(some.embedding_accuracy[:, place])) for place in (0, -1)),
                str(some.estimate(some.twin_accuracy[:, -1])),
            ]
        )
    return _table(rows)


def _trials(curves: Mapping[str, Curves]) -> list[str]:
    """Two rows for each variant: how trials end after training, by the mean and by samples."""
    rows = [["", "action", "n", *LETTERS, "twin control", "what the demonstration changes"]]
    for name, some in curves.items():
        for action, trials in (("mean", some.trials), ("sampled", some.sampled)):
            own, twin = (trials[shown][:, -1] for shown in ("own", "twin"))
            hits = [happened(own, letter) for letter in LETTERS.values()]
            estimates = [some.estimate(each) for each in (*hits, happened(twin, "ob"))]
            estimates.append(influence(some, trials))
            rows.append([f"`{name}`", action, str(own.size), *map(str, estimates)])
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown; the first row is the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]
