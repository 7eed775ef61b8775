"""Cold items and subjects: what training told nothing, or little, of.

Letters: B examples, I items with padding as item 0, P (example, relevant item) pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rec.evaluation.bootstrap import intervals
from rec.evaluation.records import column, ragged
from rec.evaluation.task import Measured
from rec.evaluation.tasks.ranking.ranks import of_ranks, ranked, ranks
from rec.seeds import generator
from rec.systems.capabilities import RankingExamples

if TYPE_CHECKING:
    from rec.evaluation.tasks.ranking.task import Ranking


def is_cold(system: Any, most: int) -> np.ndarray:
    """Return which items have at most `most` training events, (I,); padding is none."""
    cold_I: np.ndarray = system.event_count() <= most
    cold_I[0] = False
    return cold_I


def ranked_among_cold(score_BI: Tensor, examples: RankingExamples, cold_I: Tensor) -> dict[str, Tensor]:
    """Return the ranks of relevant cold items among cold ones alone; `score_BI` is overwritten."""
    cold_I = cold_I.to(score_BI.device)
    row_P, item_P = examples.target
    score_BI.masked_fill_(~cold_I, -torch.inf)
    rank_P = ranks(score_BI, (row_P, item_P), examples.subject_B)
    found = {"each/rank_among_cold": rank_P, "each/cold": cold_I[item_P]}
    return found | {"ranked_cold": ranked(score_BI)}


def measure(task: Ranking, measured: Measured) -> dict[str, Any]:
    """Return metrics, with intervals, of cold items among all and among cold ones, and of subjects not known at all."""
    records = measured.records
    rng = generator(measured.seed, "bootstrap", "cold")
    rank_P, example_P = ragged(records, "rank")
    cold_P = ragged(records, "cold")[0].astype(bool)
    ranked = {
        "cold items": (np.where(cold_P, rank_P, 0), column(records, "ranked")),
        "among cold items": (ragged(records, "rank_among_cold")[0], column(records, "ranked_cold")),
    }
    found: dict[str, Any] = {}
    for name, (rank, count) in ranked.items():
        values = of_ranks(rank, example_P, count, task.cuts)
        told = intervals({m: values[m] for m in shown(task)}, measured.config.bootstrap, rng)
        if told:
            found[name] = {"subjects": int((~np.isnan(values["mrr"])).sum()), **told}
    unknown = column(records, "known") == 0
    if unknown.any() and not unknown.all():
        values = {m: measured.values[m][unknown] for m in shown(task)}
        told = intervals(values, measured.config.bootstrap, rng)
        if told:
            found["cold subjects"] = {"subjects": int((~np.isnan(values["auc"])).sum()), **told}
    return found


def shown(task: Ranking) -> tuple[str, ...]:
    """Return the metrics that are told of cold items."""
    return task.headline, "auc"
