"""The writing task's parts of a report: texts beside those that were written, and texts that are written often."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from rec.evaluation.records import column
from rec.evaluation.task import Measured
from rec.sections import Section, Table, Text, number
from rec.seeds import generator

if TYPE_CHECKING:
    from rec.evaluation.tasks.writing.task import Writing

EXAMPLES, REPEATED = 8, 8
SHOWN = "rouge1_f"


def sections(task: Writing, measured: Measured) -> list[Section]:
    """Return the parts; none where there is no example."""
    records = measured.records
    if not len(records):
        return []
    texts, references, score = (column(records, name) for name in ("text", "reference", SHOWN))
    places = np.sort(generator(0, "examples").permutation(len(records))[:EXAMPLES])
    rows = [[str(references[i]), str(texts[i]), number(float(score[i]), 1)] for i in places]
    decoding = task.decoding
    how = "the most probable token each time" if decoding.temperature == 0 else f"temperature {decoding.temperature:g}"
    note = f"A few examples, drawn at random; decoded with {how}, at most {decoding.max_tokens} tokens."
    found: list[Any] = [Text(text=note, tone="note"), Table(head=["written", "by the model", SHOWN], rows=rows)]
    often = [(text, count) for text, count in Counter(texts.tolist()).most_common(REPEATED) if count > 1]
    about = Text(text="Texts that the model writes more than once.", tone="note")
    table = Table(head=["text", "examples", "share"], rows=[[t, f"{c:,}", number(c / len(texts))] for t, c in often])
    repeated = [Section(title="Repeated texts", parts=[about, table], folded=True)] if often else []
    return [Section(title="Some texts", parts=found), *repeated]
