"""The writing task's parts of a report: texts beside those that were written, and texts that are written often."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rec.evaluation.records import column
from rec.evaluation.task import Measured
from rec.evaluation.tasks.writing.late import UNSUPPORTED
from rec.sections import Section, Table, Text, number
from rec.seeds import generator

if TYPE_CHECKING:
    from rec.evaluation.tasks.writing.task import Writing

EXAMPLES, REPEATED = 6, 8
SHOWN = "rouge_l_f1"
"""What the best and the worst texts are chosen by."""


def sections(task: Writing, measured: Measured) -> list[Section]:
    """Return the parts; none where there is no example."""
    records = measured.records
    if not len(records):
        return []
    texts = column(records, "text")
    how = ", ".join(f"{name}: {told}" for name, told in task.settings(measured.system).items())
    parts: list[Any] = [Text(text=f"Measured with {how}.", tone="note")]
    for title, places in chosen(column(records, SHOWN)).items():
        head, rows = _samples(measured, places)
        parts.append(Table(head=head, rows=rows, caption=title))
    often = [(text, count) for text, count in Counter(texts.tolist()).most_common(REPEATED) if count > 1]
    about = Text(text="Texts that the model writes more than once.", tone="note")
    table = Table(head=["text", "examples", "share"], rows=[[t, f"{c:,}", number(c / len(texts))] for t, c in often])
    repeated = [Section(title="Repeated texts", parts=[about, table], folded=True)] if often else []
    return [Section(title="Some texts", parts=parts), *repeated]


def chosen(score_B: np.ndarray) -> dict[str, np.ndarray]:
    """Return the places of the best, the worst and some random examples, each once, by what tables call them.

    Of few examples the best and the worst share what there is: of five, two are the best and two the worst.
    """
    count = min(EXAMPLES, len(score_B) // 2)
    order = np.argsort(-score_B, kind="stable")
    best, worst = order[:count], order[len(order) - count :][::-1]
    rest = np.setdiff1d(np.arange(len(score_B)), [*best, *worst])
    drawn = np.sort(generator(0, "examples").permutation(rest)[:EXAMPLES])
    found = {f"the best by {SHOWN}": best, f"the worst by {SHOWN}": worst, "drawn at random": drawn}
    return {title: places for title, places in found.items() if len(places)}


def _samples(measured: Measured, places: np.ndarray) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table of examples: what is known of each beside its texts, both texts, their likeness,
    and what nothing supports."""
    texts, references, score = (column(measured.records, name) for name in ("text", "reference", SHOWN))
    unsupported = measured.kept.get(UNSUPPORTED)
    known = {name.removesuffix("_id"): values for name, values in {**measured.keys, **measured.beside}.items()}
    head = [*known, "written", "by the model", SHOWN, *(["without support"] if unsupported is not None else [])]
    rows = []
    for i in places:
        beside = [_cell(values[int(i)]) for values in known.values()]
        more = [", ".join(unsupported[i])] if unsupported is not None else []
        rows.append([*beside, str(references[i]), str(texts[i]), number(float(score[i]), 1), *more])
    return head, rows


def _cell(value: Any) -> str:
    """Return an id, a number with three digits, or nothing where an example has none."""
    plain = value.as_py() if isinstance(value, pa.Scalar) else value
    return "" if plain is None else f"{plain:.3g}" if isinstance(plain, float) else str(plain)
