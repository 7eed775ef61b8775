"""Examples by how much their user wrote in training, where the view of the data tells it."""

from __future__ import annotations

import numpy as np

from rec.data.prepared import Prepared
from rec.data.views.sentences import SPARSITY_GROUPS
from rec.evaluation.task import Groups
from rec.sections import counted

COUNT, GROUP = "user_count", "user_sparsity"
"""Tables of the view `sentences`."""
START = tuple(f"{name}:" for name in SPARSITY_GROUPS)


def by_sparsity(data: Prepared, user_B: np.ndarray) -> Groups | None:
    """Return the sparsity group of each example's user, named with its users and their range; None without tables.

    Args:
        data: Seen as its view.
        user_B: Index of the user, (B,); -1 and other strangers count as users without a review.
    """
    if not data.holds(GROUP):
        return None
    group_U, count_U = np.asarray(data.array(GROUP)), np.asarray(data.array(COUNT))
    names = []
    for number, start in enumerate(START):
        counts = count_U[group_U == number]
        told = f"{counts.min():,} to {counts.max():,} records of training" if len(counts) else "nobody"
        names.append(f"{start} {counted(len(counts), 'user')} of {told}" if len(counts) else f"{start} {told}")
    known_B = (user_B >= 0) & (user_B < len(group_U))
    stranger = len(START) - 1
    return Groups(tuple(names), np.where(known_B, group_U[np.where(known_B, user_B, 0)], stranger).astype(np.int64))


def meaning_of_group(name: str) -> str:
    """Return what a group is, empty where it is none of these."""
    if name.startswith(START[-1]):
        return "users without a record of training"
    if name.startswith(START):
        return "a fifth of the users of training, those with the fewest records first"
    return ""
