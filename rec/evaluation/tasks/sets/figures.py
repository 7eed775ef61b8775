"""The sets task's figures: what fewer bad pairs cost, rare labels, and examples and labels in one space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rec.evaluation.task import Measured
from rec.evaluation.tasks.sets import trade_off
from rec.evaluation.tasks.sets.metrics import RARE
from rec.evaluation.tasks.sets.space import space
from rec.sections import Event, Lines, LineSeries, Mark, Section, Table, Text, number

NAMES = {
    "none": "no filter, other thresholds",
    "greedy": "greedy filter, other thresholds",
    "two_sat": "two_sat filter, other thresholds",
    trade_off.ALLOWED: "greedy filter, frequent pairs stay",
    trade_off.CERTAIN: "greedy filter, probable labels stay",
}
TRADE_OFF_NOTE = (
    "What fewer bad pairs cost. Each point is a way to make sets from the same probabilities: another threshold, a "
    "filter that takes labels out until no two of a set are known to interact, or the greedy filter that lets stand "
    "what enough of training's examples have together, or what is probable enough by itself. Up and to the left is "
    "better."
)
FILTER_NOTE = (
    "The system takes labels out of sets that interact with others in them; before is the threshold alone. Metrics "
    "elsewhere on this page are those after."
)
SPACE_NOTE = (
    "The model compares examples and labels as vectors of one space. Each figure draws these vectors in a plane by "
    "t-SNE, which keeps near what is near: only who is beside whom counts, not the axes. Before training the model is "
    "as initialised by the run's seed. Labels that lie among the examples are compared with them; a cloud of labels "
    "apart from all examples is not."
)


def filters(numbers: Mapping[str, Any]) -> list[Section]:
    """Return metrics before and after the system's filter, where it has one."""
    found = numbers.get("filter")
    if not found:
        return []
    names = [name for name, value in found["before"].items() if value is not None]
    rows = [[name, *(number(found[when][name]) for when in ("before", "after"))] for name in names]
    table = Table(head=["metric", "before the filter", "after"], rows=rows)
    return [Section(title="Before and after the filter", parts=[Text(text=FILTER_NOTE, tone="note"), table])]


def interactions(numbers: Mapping[str, Any]) -> list[Section]:
    """Return overlap beside the share of bad pairs, by thresholds and filters, where interactions are known."""
    curves = numbers.get("trade_off")
    if not curves:
        return []
    metrics = numbers["metrics"]
    series = [
        LineSeries(
            name=NAMES[how],
            x=[point["ddi_rate"] for point in points],
            y=[point["jaccard_patient"] for point in points],
            style="points" if how in ("greedy", "two_sat") else "line",
        )
        for how, points in curves.items()
    ]
    x, y = metrics.get("ddi_rate"), metrics.get("jaccard_patient")
    true = metrics.get("true_ddi_rate")
    least = min([point["jaccard_patient"] for points in curves.values() for point in points], default=0.0)
    lines = Lines(
        title="overlap beside interactions",
        series=series,
        x_axis="share of pairs of given labels that interact (ddi_rate)",
        y_axis="jaccard_patient",
        marks=[Mark(x=x, y=y, name=f"this run, threshold {numbers['threshold']['value']:g}")] if x is not None else [],
        events=[Event(x=true, name="true sets")] if true is not None else [],
        caption="The line without a filter runs from a threshold of 0.2 to one of 0.9. Filtered sets have no known "
        "interaction at all, unless frequent pairs or probable labels stand.",
        low=max(math.floor(20 * least - 0.5) / 20, 0.0),
        wide=True,
    )
    head = ["sets", "threshold", "what stands", "jaccard_patient", "ddi_rate", "labels given"]
    rows = [
        [
            NAMES[how].partition(",")[0],
            f"{point['threshold']:g}",
            _standing(point),
            *(number(point[name]) for name in ("jaccard_patient", "ddi_rate")),
            number(point["medications"], 2),
        ]
        for how, points in curves.items()
        for point in points
    ]
    note = Text(text=TRADE_OFF_NOTE, tone="note")
    table = Section(title="Overlap beside interactions: every point", parts=[Table(head=head, rows=rows)], folded=True)
    return [Section(title="Overlap beside interactions", parts=[note, lines]), table]


def _standing(point: Mapping[str, Any]) -> str:
    """Return what a filter lets stand all the same."""
    if "share" in point:
        return f"pairs from {point['share']:.1%} of training"
    return f"labels from {point['certain']:g}" if "certain" in point else "-"


def rare(numbers: Mapping[str, Any]) -> list[Section]:
    """Return how labels fare that training has seldom."""
    found = numbers.get("rare")
    if not found:
        return []
    share = f"{100 * found['share']:g} %"
    note = (
        f"Rare labels are those that fewer than {share} of training's examples have: {found['labels']:,} of "
        f"{found['of']:,}. Precision and recall are over all pairs of an example and a rare label."
    )
    rows = [
        ["rare labels that are true", f"{found['true']:,}"],
        ["given", f"{found['given']:,}"],
        ["given rightly", f"{found['right']:,}"],
        ["precision", number(found["precision"])],
        ["recall", number(found["recall"])],
        *([name, number(numbers["metrics"].get(name))] for name in RARE),
    ]
    return [Section(title="Rare labels", parts=[Text(text=note, tone="note"), Table(head=["", ""], rows=rows)])]


def in_space(measured: Measured) -> list[Section]:
    """Return examples and labels in a plane before and after training, where the system has vectors of them."""
    found = space(measured)
    if found is None:
        return []
    parts: list[Any] = [Text(text=SPACE_NOTE, tone="note")]
    for when, example_N2, label_M2 in found.planes(measured.seed):
        parts.append(
            Lines(
                title=f"{when} training",
                series=[
                    LineSeries(name="examples", x=example_N2[:, 0], y=example_N2[:, 1], style="points"),
                    LineSeries(name="labels", x=label_M2[:, 0], y=label_M2[:, 1], style="points"),
                ],
                x_axis="first axis of t-SNE",
                y_axis="second axis",
                caption=f"{len(example_N2):,} examples and {len(label_M2):,} labels, {when} training.",
            )
        )
    rows = [
        [f"{when} training", number(points.own), number(points.others)]
        for when, points in (("before", found.before), ("after", found.after))
    ]
    head = ["mean cosine of an example's vector with", "its own labels", "other labels"]
    parts.append(Table(head=head, rows=rows, caption="The wider apart the two, the better they are told apart."))
    return [Section(title="Examples and labels in one space", parts=parts)]
