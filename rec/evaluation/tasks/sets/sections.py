"""The sets task's parts of a report: sizes and rounds, the labels that are given most, some examples.

Letters: B examples, V labels, P (example, label) pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rec.data.prepared import Prepared
from rec.evaluation.records import column, ragged
from rec.evaluation.task import Measured
from rec.sections import Section, Table, Text, number
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
    names = label_names(measured.data, measured.system.entity)
    return [_sizes(measured), _labels(measured, names), _examples(measured, names)]


def label_names(data: Prepared, entity: str) -> list[str]:
    """Return what people call each label, in the order of labels: label v is the entity's member v."""
    table = data.entity(entity)
    source = next(name for name in ("title", "name", "id") if name in table.column_names)
    return [""] * data.entities[entity].first + [str(name) for name in table[source].to_pylist()]


def _sizes(measured: Measured) -> Section:
    found = measured.numbers["metrics"]
    rows = [
        ["labels of an example", number(found["medications"], 2), number(found["true_medications"], 2)],
        ["share of pairs that interact", number(found["ddi_rate"]), number(found["true_ddi_rate"])],
    ]
    rounds = [[n, f"{number(e['mean'])} ± {number(e['sd'])}"] for n, e in measured.numbers.get("rounds", {}).items()]
    parts: list[Any] = [Table(head=["", "given", "true"], rows=rows)]
    parts += [Text(text=ROUNDS_NOTE, tone="note"), Table(head=["metric", "over rounds"], rows=rounds)]
    return Section(title="Sizes of sets, and rounds", parts=parts)


def _labels(measured: Measured, names: list[str]) -> Section:
    """Return the labels that hold most often, with how often each was given, and rightly."""
    true_P, true_example_P = ragged(measured.records, "target")
    given_P, given_example_P = ragged(measured.records, "predicted")
    size = len(names)
    true_V, given_V = (np.bincount(label, minlength=size) for label in (true_P.astype(int), given_P.astype(int)))
    both = np.intersect1d(true_example_P * size + true_P, given_example_P * size + given_P).astype(int) % size
    both_V = np.bincount(both, minlength=size)
    rows = [
        [names[v], f"{true_V[v]:,}", f"{given_V[v]:,}", _share(both_V[v], given_V[v]), _share(both_V[v], true_V[v])]
        for v in np.argsort(-true_V, kind="stable")[:LABELS]
    ]
    head = ["label", "true", "given", "precision", "recall"]
    note = Text(text="The labels that hold for most examples.", tone="note")
    return Section(title="Labels", parts=[note, Table(head=head, rows=rows)])


def _share(part: int, whole: int) -> str:
    return number(part / whole) if whole else "-"


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
