"""Groups of subjects: as their table says, by the popular share of what they saw, or by how much is known of them."""

from __future__ import annotations

import numpy as np

from rec.data.prepared import Prepared
from rec.evaluation.task import Groups
from rec.evaluation.tasks.ranking import popularity_groups
from rec.keys import EvaluateConfig

FEW = 5


def groups(kind: str, data: Prepared, subject_B: np.ndarray, known_B: np.ndarray, config: EvaluateConfig) -> Groups:
    """Return the groups of these subjects."""
    if "group" in data.users.column_names:
        of_user = data.users["group"].to_pandas().astype(str).to_numpy()[subject_B]
        names = sorted(set(of_user))
        return Groups(tuple(names), np.searchsorted(names, of_user))
    if kind == "popular_share":
        return Groups(popularity_groups.NAMES, by_popular_share(data, config.popular_share)[subject_B])
    return Groups(("nothing known", f"up to {FEW} items known", "more known"), np.digitize(known_B, [1, FEW + 1]))


def by_popular_share(data: Prepared, share: float) -> np.ndarray:
    """Return each user's group by the popular share of everything the user has seen, the test target included, (U,)."""
    table = data.rows("test")
    columns = (table[name].to_numpy() for name in ("history", "target"))
    histories = [np.append(np.asarray(h), t) for h, t in zip(*columns, strict=True)]
    popular = popularity_groups.popular_items(np.asarray(data.array("item_total")), share)
    by_user = np.zeros(data.num_users, dtype=np.int64)
    by_user[table["user"].to_numpy()] = popularity_groups.groups(popularity_groups.popular_share(histories, popular))
    return by_user
