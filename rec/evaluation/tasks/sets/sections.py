"""The sets task's parts of a report: sizes and rounds, the labels that are given most, some examples.

Letters: B examples, V labels, P (example, label) pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rec.evaluation.records import column, ragged
from rec.evaluation.task import Measured
from rec.evaluation.tasks.sets import figures
from rec.evaluation.tasks.sets.details import label_names
from rec.sections import Section, Table, Text, counted, number
from rec.seeds import generator

EXAMPLES, LABELS = 6, 15
ROUNDS_NOTE = (
    "The field's test protocol: ten rounds, each of as many subjects as 80 % of all, drawn with replacement; mean and "
    "standard deviation over rounds."
)


def sections(measured: Measured) -> list[Section]:
    """Return the parts; none where there is no example."""
    if not len(measured.records):
        return []
    names, numbers = label_names(measured.data, measured.system.entity), measured.numbers
    return [
        _sizes(measured),
        *figures.filters(numbers),
        *figures.interactions(numbers),
        *figures.rare(numbers),
        *_labels(numbers),
        *figures.in_space(measured),
        _examples(measured, names),
    ]


def _sizes(measured: Measured) -> Section:
    found = measured.numbers["metrics"]
    rows = [
        ["labels of an example", number(found["medications"], 2), number(found["true_medications"], 2)],
        ["share of pairs that interact", number(found["ddi_rate"]), number(found["true_ddi_rate"])],
    ]
    rounds = [[n, f"{number(e['mean'])} ± {number(e['sd'])}"] for n, e in measured.numbers.get("rounds", {}).items()]
    threshold = measured.numbers["threshold"]
    source = {"validation": "as validation chose it", "config": "as the config says", "protocol": "of the protocol"}
    words = f"Labels of a probability of at least {threshold['value']:g} are given, {source[threshold['from']]}."
    parts: list[Any] = [Text(text=words, tone="note"), Table(head=["", "given", "true"], rows=rows)]
    parts += [Text(text=ROUNDS_NOTE, tone="note"), Table(head=["metric", "over rounds"], rows=rounds)]
    return Section(title="Sizes of sets, and rounds", parts=parts)


def _labels(numbers: Any) -> list[Section]:
    """Return how often each label was given, and rightly: those that hold most often, and all of them."""
    head = ["label", "in training", "true", "given", "given rightly", "precision", "recall"]
    rows = [
        [
            found["label"],
            "-" if found["training"] is None else f"{found['training']:,}",
            *(f"{found[name]:,}" for name in ("true", "given", "right")),
            *(number(found[name]) for name in ("precision", "recall")),
        ]
        for found in numbers["labels"]
    ]
    told = Section(
        title="Labels",
        parts=[Text(text="The labels that hold for most examples.", tone="note"), Table(head=head, rows=rows[:LABELS])],
    )
    if len(rows) <= LABELS:
        return [told]
    note = Text(text=f"{counted(len(rows), 'label')}, those first that hold for most examples.", tone="note")
    return [told, Section(title="Every label", parts=[note, Table(head=head, rows=rows)], folded=True)]


def _examples(measured: Measured, names: list[str]) -> Section:
    """Return some examples with what is right, missed and given in vain."""
    places = np.sort(generator(0, "examples").permutation(len(measured.records))[:EXAMPLES])
    rows = []
    for place in places:
        record = measured.records.slice(int(place), 1)
        true, given = (set(ragged(record, name)[0].tolist()) for name in ("target", "predicted"))
        subject = str(column(record, "subject")[0])
        rows.append(
            [subject, *(", ".join(names[v] for v in sorted(s)) for s in (true & given, true - given, given - true))]
        )
    note = Text(text="A few examples, drawn at random.", tone="note")
    table = Table(head=["subject", "given rightly", "missed", "given in vain"], rows=rows)
    return Section(title="Some examples", parts=[note, table])
