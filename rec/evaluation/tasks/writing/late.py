"""What is known of texts once a run is measured: how factual they are, and what models say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rec.evaluation.records import column
from rec.evaluation.task import Measured, Values, mean
from rec.evaluation.tasks.writing.baselines import known_of
from rec.evaluation.tasks.writing.bertscore import encoder_of
from rec.evaluation.tasks.writing.facts import Support
from rec.evaluation.tasks.writing.judge import judge
from rec.sections import counted, number

if TYPE_CHECKING:
    from rec.evaluation.tasks.writing.task import Writing

JUDGE = "gptscore"
"""The metric's name in the field, whichever model is asked."""
UNSUPPORTED = "unsupported"
"""Of `Measured.kept`: what each text states without support."""
KNOWN = "known"
"""Of `Measured.kept`: what simple answers are measured by too."""
ABOUT = "about/"
"""Start of the names of records' columns with the members that a text is of."""


def values(task: Writing, measured: Measured) -> Values:
    """Return every late metric of each example that can be measured."""
    records = measured.records
    if not len(records):
        return {}
    if measured.batches is None:
        return task.similar(records, encoder_of(task.bertscore)) | _judged(task, measured)
    known = known_of(task, measured.system, measured.batches)
    measured.kept[KNOWN] = known
    return _factual(task, measured, known.support) | task.similar(records, known.encoder) | _judged(task, measured)


def _factual(task: Writing, measured: Measured, support: Support | None) -> Values:
    """Return how factual each text is; empty where no items or features are told."""
    records = measured.records
    if support is None or f"{ABOUT}{task.about}" not in records.column_names:
        return {}
    item, texts = column(records, f"{ABOUT}{task.about}").tolist(), task.scored(records)
    true = support.measure(item, task.wanted(records))
    measured.kept[UNSUPPORTED] = [support.unsupported(i, text) for i, text in zip(item, texts, strict=True)]
    measured.numbers["statements"] = {
        "features": support.reader.counts["feature"],
        "opinions": support.reader.counts["opinion"],
        "without_reviews": sum(i not in support.evidence for i in item),
        "true_texts": {name: mean(value_N) for name, value_N in true.items()},
    }
    return support.measure(item, texts)


def _judged(task: Writing, measured: Measured) -> Values:
    """Return the judge's scores; empty where none is asked."""
    config = measured.config.judge
    if not config.url:
        return {}
    folder = config.cache or f"{measured.folder.rstrip('/')}/judge"
    found = judge(task.scored(measured.records), task.wanted(measured.records), config, folder)
    there = found.score_N[~np.isnan(found.score_N)]
    measured.numbers["judge"] = {
        "scored": len(there),
        "asked": found.asked,
        "fault": found.fault,
        "sd": float(there.std(ddof=1)) if len(there) > 1 else None,
    }
    return {JUDGE: found.score_N}


def notes(measured: Measured) -> list[str]:
    """Return what people must know of the late metrics."""
    found = []
    if told := measured.numbers.get("statements"):
        true = told["true_texts"]
        found.append(
            f"the true texts themselves: factual {number(true['factual'])}, factual_pairs "
            f"{number(true['factual_pairs'])}, as people say what nobody has said of the item before"
        )
        if not told["opinions"]:
            found.append("factual: opinions are not known, so that statements are features alone")
        if told["without_reviews"]:
            count = counted(told["without_reviews"], "example")
            found.append(f"factual: {count} of items without a training review, left out")
    if told := measured.numbers.get("judge"):
        spread = f", standard deviation over texts {number(told['sd'], 1)}" if told["sd"] is not None else ""
        found.append(f"gptscore: {told['scored']:,} of {len(measured.records):,} texts scored{spread}")
        if told["fault"]:
            found.append(told["fault"])
    return found
