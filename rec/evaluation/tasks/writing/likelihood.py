"""The negative log likelihood of the true texts, where a writer tells it.

Letters: B examples, S sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from rec.evaluation.bootstrap import Summed
from rec.evaluation.records import Records, column
from rec.evaluation.tasks.values import MetricValue, quotient

NAME = "nll"
"""The metric, per token; and the column of records with the sum over the tokens of each example's text."""
TOKENS = "nll_tokens"
"""The column with how many tokens those are."""
UNLIKE = "never compared: texts are cut into other tokens"


def columns(told: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    """Return what a writer tells of a batch as columns of its records, float64 and int64 (B,); empty: nothing."""
    return {} if told is None else {NAME: told[0].double(), TOKENS: told[1].long()}


def per_token(nll_B: np.ndarray, tokens_B: np.ndarray) -> Summed:
    """Return the metric of some texts: sums 6.0 and 2.0 over 3 and 1 tokens are 2.0 per token."""
    return Summed(part_BS=np.stack([nll_B, tokens_B], 1).astype(np.float64), of_total=_quotient)


def sums(records: Records) -> dict[str, Summed]:
    """Return the metric; empty where it is not told."""
    if TOKENS not in records.column_names:
        return {}
    return {NAME: per_token(column(records, NAME), column(records, TOKENS))}


def value(records: Records) -> MetricValue:
    """Return the metric over all examples, or why there is none."""
    found = sums(records).get(NAME)
    if found is None:
        return MetricValue(value=None, count=0, note="no likelihoods are told" if len(records) else "no rows")
    total, count = found.part_BS.sum(0)
    return quotient(float(total), float(count), of="tokens")


def unlike(ours: Records, theirs: Records) -> str:
    """Return why two runs do not compare, empty where they do or where one of them tells nothing."""
    if not all(TOKENS in records.column_names for records in (ours, theirs)):
        return ""
    return "" if np.array_equal(column(ours, TOKENS), column(theirs, TOKENS)) else UNLIKE


def _quotient(total_S: np.ndarray) -> float | None:
    return float(total_S[0] / total_S[1]) if total_S[1] else None
