"""Simple rankings that every model is told beside, measured by the same records.

Letters: B examples, U users, I items with padding as item 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rec.data.prepared import Prepared
from rec.evaluation.records import joined, records_of
from rec.evaluation.task import mean
from rec.evaluation.tasks.ranking.known import Marks
from rec.evaluation.tasks.ranking.meanings import PLANTED
from rec.evaluation.tasks.ranking.members import names_of, vectors_of
from rec.evaluation.tasks.ranking.ranks import hide, ranked, ranks
from rec.seeds import generator

if TYPE_CHECKING:
    from rec.evaluation.tasks.ranking.task import Ranking

Score = Callable[[np.ndarray], np.ndarray]
"""Scores of all items for some users, (B, I)."""


def rankings(system: Any, data: Prepared) -> dict[str, Score]:
    """Return simple rankings: popular items, random ones, what users with similar texts liked, the planted truth.

    Users' texts are compared by their vectors, where those were prepared. Where the data were generated, the truth by
    which relevant items were drawn ranks too: what is left beyond it is chance.
    """
    count_I = system.event_count().astype(np.float32)
    rng = generator(0, "random ranking")
    found: dict[str, Score] = {"popularity": lambda users: np.broadcast_to(count_I, (len(users), len(count_I)))}
    found["random"] = lambda users: rng.random((len(users), len(count_I)), dtype=np.float32)
    marks = Marks.of(system)
    if data.storage.exists(f"{system.subject}_text.npy") and marks.subject and marks.target:
        found["similar users"] = _similar_users(data, system.subject, marks, len(count_I))
    if all("truth" in names_of(data, entity) for entity in (system.subject, system.entity)):
        truth_IT, truth_UT = (vectors_of(data, entity, "truth") for entity in (system.entity, system.subject))
        found[PLANTED] = lambda users: truth_UT[users] @ truth_IT.T
    return {name: _of_somebody(score) for name, score in found.items()}


def _of_somebody(score: Score) -> Score:
    """Return a score that is the same for all items where a subject is in no table."""
    return lambda users: np.where((users < 0)[:, None], np.float32(0), score(users))


def measure(task: Ranking, system: Any, data: Prepared, batches: Iterator[Any]) -> dict[str, dict[str, float]]:
    """Return every metric of every simple ranking, over the examples that a model ranks for."""
    scores = rankings(system, data)
    parts: dict[str, list[Any]] = {name: [] for name in scores}
    for batch in batches:
        examples = system.examples(batch)
        users = examples.subject_B.numpy()
        for name, score in scores.items():
            score_BI = hide(torch.tensor(score(users)), examples.left_out, examples.target, examples.forbidden_BI)
            rank_P = ranks(score_BI, examples.target, examples.subject_B)
            columns = {"rank": (rank_P, examples.target[0]), "ranked": ranked(score_BI)}
            parts[name].append(records_of(columns, len(users)))
    found = {}
    for name, tables in parts.items():
        values = task.values(joined(tables))
        found[name] = {metric: told for metric, value in values.items() if (told := mean(value)) is not None}
    return found


def _similar_users(data: Prepared, entity: str, marks: Marks, items: int) -> Score:
    """Return a score of items for users: the summed similarity of users who liked them in training.

    What training rows tell as known is part of training as well.
    """
    assert marks.subject is not None
    rows = data.rows("train")
    columns = [rows[column.name].to_numpy() for column in (marks.known, marks.target) if column is not None]
    liked = [
        np.concatenate([np.atleast_1d(np.asarray(part)) for part in parts]) for parts in zip(*columns, strict=True)
    ]
    row_P = torch.from_numpy(np.repeat(np.arange(len(liked)), [len(part) for part in liked]))
    item_P = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *liked]).astype(np.int64))
    vector_UM = np.asarray(data.array(f"{entity}_text"))
    teacher_M = vector_UM[rows[marks.subject.name].to_numpy()]

    def score(users: np.ndarray) -> np.ndarray:
        similar_BR = torch.from_numpy(vector_UM[users] @ teacher_M.T)
        found_BI = torch.zeros(len(users), items)
        return np.asarray(found_BI.index_add_(1, item_P, similar_BR[:, row_P]).numpy())

    return score
