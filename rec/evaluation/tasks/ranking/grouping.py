"""Groups of subjects: as their table says, by the popular share of what they saw, or by how much is known of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rec.data.prepared import Prepared
from rec.evaluation.task import Groups
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.ranking import popularity_groups
from rec.evaluation.tasks.ranking.known import Marks
from rec.evaluation.tasks.ranking.members import known_of, names_of

FEW = 5
NONE = -1
"""The label of a subject that is in no group."""
TOTAL = "item_total"
"""The table of all events of each item, by which items are popular."""


def groups(
    kind: str, system: Any, data: Prepared, subject_B: np.ndarray, known_B: np.ndarray, config: EvaluateConfig
) -> Groups:
    """Return the groups of these subjects."""
    if "group" in names_of(data, system.subject):
        of_subject = known_of(data, system.subject, "group", subject_B).to_pylist()
        names = sorted({str(name) for name in of_subject if name is not None})
        place = {name: index for index, name in enumerate(names)}
        return Groups(tuple(names), np.array([NONE if n is None else place[str(n)] for n in of_subject]))
    found = of_popularity(system, data, subject_B, config.popular_share) if kind == "popular_share" else None
    return found or Groups(
        ("nothing known", f"up to {FEW} items known", "more known"), np.digitize(known_B, [1, FEW + 1])
    )


def of_popularity(system: Any, data: Prepared, subject_B: np.ndarray, share: float) -> Groups | None:
    """Return the groups of these subjects by how popular what they saw is; None where that is not known."""
    marks = Marks.of(system)
    if not (marks.told and data.storage.exists(f"{TOTAL}.npy")):
        return None
    by_subject = by_popular_share(data, marks, system.subject, share)
    return Groups(popularity_groups.NAMES, np.where(subject_B < 0, NONE, by_subject[subject_B]))


def by_popular_share(data: Prepared, marks: Marks, entity: str, share: float) -> np.ndarray:
    """Return each subject's group by the popular share of all that it has seen, the test target included, (U,)."""
    table = data.rows("test")
    subject, known, target = (table[name].to_numpy() for name in marks.names)
    histories = [np.append(np.asarray(h), t) for h, t in zip(known, target, strict=True)]
    popular = popularity_groups.popular_items(np.asarray(data.array(TOTAL)), share)
    told = data.entities[entity]
    by_subject = np.full(told.first + told.count, NONE, dtype=np.int64)
    by_subject[subject] = popularity_groups.groups(popularity_groups.popular_share(histories, popular))
    return by_subject
