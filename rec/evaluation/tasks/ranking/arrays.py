"""The evaluator on plain arrays: any model's scores, ranked by the protocol all systems here are ranked by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from rec.errors import DataError
from rec.evaluation.task import mean
from rec.evaluation.tasks.ranking.ranks import hide, of_ranks, ranked, ranks
from rec.sections import counted

CHUNK, CUTS = 512, (10, 50, 100)


def evaluate_arrays(
    *,
    target: np.ndarray,
    state: np.ndarray | None = None,
    item: np.ndarray | None = None,
    score: np.ndarray | None = None,
    seen_offset: np.ndarray | None = None,
    seen_item: np.ndarray | None = None,
    cuts: Sequence[int] = CUTS,
) -> tuple[dict[str, float], np.ndarray]:
    """Return the mean of every metric over users, and each user's rank.

    Shapes: state (U, d) and item (I, d), or score (U, I); target (U); seen_offset (U + 1); seen_item (M).

    Raises:
        DataError: shapes do not fit, or an index lies outside the catalogue.
    """
    users = len(target)
    if (score is None) == (state is None or item is None):
        raise DataError("arrays: expected either score, or both state and item")
    num_items = score.shape[1] if score is not None else len(item)  # type: ignore[arg-type]
    offset = np.zeros(users + 1, np.int64) if seen_offset is None else np.asarray(seen_offset, np.int64)
    seen = np.zeros(0, np.int64) if seen_item is None else np.asarray(seen_item, np.int64)
    rows = score if score is not None else state
    assert rows is not None
    if state is not None and item is not None and state.shape[1:] != item.shape[1:]:
        raise DataError(f"arrays: state has width {state.shape[1:]}, item {item.shape[1:]}")
    if len(rows) != users:
        raise DataError(f"arrays: {counted(len(rows), 'row')} of scores or states for {counted(users, 'target')}")
    if len(offset) != users + 1 or offset[0] != 0 or offset[-1] != len(seen) or (np.diff(offset) < 0).any():
        raise DataError(f"arrays: seen_offset must rise from 0 to {len(seen)} in {users + 1} steps")
    for name, index in (("target", np.asarray(target)), ("seen_item", seen)):
        bad = np.flatnonzero((index < 0) | (index >= num_items))
        if len(bad):
            raise DataError(f"arrays: {name}[{bad[0]}] is {index[bad[0]]}, expected 0 to {num_items - 1}")
    parts = [
        _ranks(rows, item if score is None else None, target, offset, seen, start, min(start + CHUNK, users))
        for start in range(0, users, CHUNK)
    ]
    rank, ranked = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else (np.zeros(0), np.zeros(0))
    values = of_ranks(rank, np.arange(users), ranked, cuts)
    return {name: told for name, value in values.items() if (told := mean(value)) is not None}, rank


def _ranks(
    rows: np.ndarray, item: np.ndarray | None, target: np.ndarray, offset: np.ndarray, seen: np.ndarray, a: int, b: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranks of users a to b, and how many items are ranked for each.

    Item 0 of the evaluator is padding, so every index moves up by one.
    """
    part = torch.from_numpy(np.ascontiguousarray(rows[a:b]))
    score = part @ torch.from_numpy(np.ascontiguousarray(item)).T if item is not None else part
    padded = torch.nn.functional.pad(score, (1, 0))
    user = torch.from_numpy(np.repeat(np.arange(b - a), np.diff(offset[a : b + 1])))
    items = torch.from_numpy(seen[offset[a] : offset[b]] + 1)
    wanted = torch.arange(b - a), torch.from_numpy(np.asarray(target[a:b], np.int64) + 1)
    hide(padded, (user, items), wanted)
    rank = ranks(padded, wanted, torch.arange(a, b))
    return rank.numpy(), ranked(padded).numpy()


def load_arrays(path: str) -> Mapping[str, np.ndarray]:
    """Return the arrays of an .npz file.

    Raises:
        DataError: it cannot be read or holds an unknown array.
    """
    known = {"state", "item", "score", "target", "seen_offset", "seen_item"}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from error
    if unknown := sorted(arrays.keys() - known):
        raise DataError(f"{path}: unknown array {unknown[0]!r}; expected {', '.join(sorted(known))}")
    if "target" not in arrays:
        raise DataError(f"{path}: array 'target' is missing")
    return arrays
