"""What a report tells of MSMRec's gate by how popular a user's items are, and of how few modalities hold its weight.

Letters: U users, K modalities, S shares of the weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rec.evaluation.bootstrap import intervals, resampled_means
from rec.evaluation.records import column
from rec.evaluation.task import Groups, Measured
from rec.evaluation.tasks.ranking.grouping import of_popularity
from rec.nn.modality import KEPT_SHARES
from rec.sections import Bars, BarSeries, Part, Section, Table, Text, counted, interval
from rec.seeds import generator

Numbers = dict[str, Any]
ENOUGH = 0.8
"""Share of the weight for which a report says in words how many modalities hold it."""


def weights(gate_UK: np.ndarray, resamples: int, rng: np.random.Generator) -> Numbers:
    """Return the mean weight of each modality over users with 95 % intervals."""
    low, high = np.quantile(resampled_means(gate_UK, resamples, rng), [0.025, 0.975], axis=0)
    return {"gate": gate_UK.mean(0).tolist(), "gate_low": low.tolist(), "gate_high": high.tolist()}


def popularity(measured: Measured, gate_UK: np.ndarray, told_U: np.ndarray) -> Numbers | None:
    """Return the mean weights of users of popular, mixed and niche items; None where popularity is not known.

    Args:
        measured: The measurement.
        gate_UK: The weights of users who have some.
        told_U: Which of all records' users those are, bool.
    """
    subject = column(measured.records, "subject")
    groups = of_popularity(measured.system, measured.data, subject, measured.config.popular_share)
    return None if groups is None else by_groups(groups, gate_UK, told_U, measured)


def by_groups(groups: Groups, gate_UK: np.ndarray, told_U: np.ndarray, measured: Measured) -> Numbers:
    """Return the mean weights of each group's users with intervals over users."""
    rng, resamples = generator(measured.seed, "bootstrap", "gate by popularity"), measured.config.bootstrap
    found: Numbers = {}
    for name, inside in groups.each():
        gate = gate_UK[inside[told_U]]
        if len(gate):
            found[name] = weights(gate, resamples, rng) | {"users": len(gate)}
    return found


def concentration_numbers(measured: Measured, told_U: np.ndarray) -> Numbers:
    """Return how much of the weight the heaviest modalities hold, and how few hold given shares, with intervals."""
    rng, resamples = generator(measured.seed, "bootstrap", "gate concentration"), measured.config.bootstrap
    held_UK = column(measured.records, "gate_sorted")[told_U].cumsum(1)
    needed_US = column(measured.records, "gate_needed")[told_U]
    values = {f"held by {k + 1}": value for k, value in enumerate(held_UK.T)}
    values |= {f"needed for {share:g}": value for share, value in zip(KEPT_SHARES, needed_US.T, strict=True)}
    return intervals(values, resamples, rng)


def popularity_section(names: Sequence[str], found: Mapping[str, Numbers], share: float) -> Section:
    """Return the mean weights by how popular the users' items are."""
    text = (
        f"Users by how much of their history is popular, items with more than {share:g} of all events: three ranges of "
        "equal width between the lowest and the highest share, from Niche to Blockbuster. Mean gate weight of each "
        "modality with its 95 % bootstrap interval over users; where intervals overlap, groups are not clearly apart."
    )
    head = ["modality", *(f"{name} ({counted(entry['users'], 'user')})" for name, entry in found.items())]
    rows = [
        [
            modality,
            *(interval(entry["gate"][k], entry["gate_low"][k], entry["gate_high"][k], 3) for entry in found.values()),
        ]
        for k, modality in enumerate(names)
    ]
    series = [
        BarSeries(name=name, values=entry["gate"], low=entry["gate_low"], high=entry["gate_high"])
        for name, entry in found.items()
    ]
    bars = Bars(
        title="mean weight of each modality",
        caption="With 95 % bootstrap intervals over users.",
        groups=names,
        series=series,
        axis="gate weight",
        group_axis="modality",
        reference=1 / len(names),
        reference_name="equal use",
        wide=True,
    )
    parts: list[Part] = [Text(text=text, tone="note"), bars, Table(head=head, rows=rows)]
    return Section(title="Modality weights by how popular a user's items are", parts=parts)


def concentration_section(names: Sequence[str], found: Mapping[str, Mapping[str, float]]) -> Section:
    """Return how few modalities hold the gate's weight, and the keys that keep those alone."""
    count = len(names)
    held = [found[f"held by {k + 1}"] for k in range(count)]
    needed = {share: found[f"needed for {share:g}"] for share in KEPT_SHARES}
    text = (
        f"For each item of a user's history, modalities ordered by their weight there: {needed[ENOUGH]['mean']:.2f} of "
        f"{count} hold {ENOUGH:.0%} of it on average (an even gate needs {_even(ENOUGH, count)}). Training with "
        "model.top_k keeps a fixed number of the heaviest, with model.top_share the fewest that hold a share (static "
        "and dynamic top-k); rec sweep compares both with all."
    )
    rows = [[str(k + 1), interval(**one, digits=3), f"{(k + 1) / count:.3f}"] for k, one in enumerate(held)]
    static = Table(
        head=["heaviest modalities kept", "share of the weight (95 % interval over users)", "of an even gate"],
        rows=rows,
    )
    rows = [[f"{share:.0%}", interval(**one, digits=2), str(_even(share, count))] for share, one in needed.items()]
    dynamic = Table(
        head=["share of the weight", "fewest modalities that hold it (95 % interval)", "of an even gate"], rows=rows
    )
    parts: list[Part] = [Text(text=text), static, dynamic]
    return Section(title="How few modalities hold the weight", parts=parts, folded=False)


def _even(share: float, count: int) -> int:
    return int(np.ceil(share * count - 1e-9))
