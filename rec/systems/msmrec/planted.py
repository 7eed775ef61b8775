"""How well a gate's weights tell what generated users truly follow, and when they begin to follow something else.

Letters: U users, K modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rec.data.generated.catalogue import FOLLOWED, FOLLOWED_LATER
from rec.data.prepared import Prepared
from rec.evaluation.bootstrap import interval
from rec.sections import counted, number

Numbers = dict[str, Any]
Rows = Mapping[str, np.ndarray]
FOLLOWERS, OTHERS = "users who follow it", "other users"


def recovery(rows: Rows, data: Prepared) -> Numbers | None:
    """Return how well the gate's weights tell the planted modalities, None where nothing was planted.

    `found` is the share of users whose most weighted modality is one they follow, `found_from_mean` the same of weights
    less those of the average user, `weight` the mean weight on modalities that users follow, `chance` what guessing and
    equal weights would give, and `correlation` Pearson's between weights less the average user's and truth, over users
    and modalities. Users who switch are left out.
    """
    planted = _planted(rows, data)
    if planted is None:
        return None
    followed, later = planted
    stays_U = (followed == later).all(1)
    gate, followed = rows["gate"][stays_U], followed[stays_U]
    if not len(gate):
        return None
    every, weight, truth = np.arange(len(gate)), gate - gate.mean(0), followed - followed.mean(0)
    return {
        "found": float(followed[every, gate.argmax(1)].mean()),
        "found_from_mean": float(followed[every, weight.argmax(1)].mean()),
        "weight": float((gate * followed).sum(1).mean()),
        "chance": float(followed.mean()),
        "correlation": float(np.corrcoef(weight.ravel(), truth.ravel())[0, 1]) if weight.std() * truth.std() else None,
    }


def switches(rows: Rows, data: Prepared, resamples: int, rng: np.random.Generator) -> Numbers | None:
    """Return how the weights of users who follow other modalities in the second half move, None where nobody does.

    Halves are those of what the model reads, the planted ones where it reads whole histories (`model.max_length`).
    `first` and `second` are the shares of users whose most weighted modality in that half is one they follow then,
    `seen` the share whose weight on what they follow later is higher in the second half than in the first, and
    `gained` how much higher, with its interval over users.
    """
    planted = _planted(rows, data)
    if planted is None:
        return None
    followed, later = planted
    moves_U = ~(followed == later).all(1) & (rows["length"] > 1)
    if not moves_U.any():
        return None
    first, second = rows["gate_first"][moves_U], second_half(rows, "gate_first")[moves_U]
    before, after, every = followed[moves_U], later[moves_U], np.arange(int(moves_U.sum()))
    gained_U = ((second - first) * after).sum(1)
    return {
        "users": len(every),
        "first": float(before[every, first.argmax(1)].mean()),
        "second": float(after[every, second.argmax(1)].mean()),
        "seen": float((gained_U > 0).mean()),
        "gained": interval(gained_U, resamples, rng).plain(),
    }


def second_half(rows: Rows, first: str) -> np.ndarray:
    """Return the mean weights over what `first`, the larger half, leaves of each history, (U, K)."""
    length = rows["length"][:, None].astype(np.float64)
    size = np.ceil(length / 2)
    rest = np.clip((rows["gate"] * length - rows[first] * size) / np.maximum(length - size, 1), 0, None)
    share: np.ndarray = rest / np.maximum(rest.sum(1, keepdims=True), 1e-12)
    return share


def _planted(rows: Rows, data: Prepared) -> tuple[np.ndarray, np.ndarray] | None:
    """Return which modalities each user truly follows in the first and in the second half, (U, K) bool each."""
    if FOLLOWED not in data.users.column_names:
        return None
    first = followed_by(rows, data)
    if first.shape != rows["gate"].shape:
        return None
    return first, followed_by(rows, data, FOLLOWED_LATER) if FOLLOWED_LATER in data.users.column_names else first


def followed_by(rows: Rows, data: Prepared, column: str = FOLLOWED) -> np.ndarray:
    """Return which modalities each user truly follows, (U, K) bool."""
    return np.array(data.users[column].to_pylist(), dtype=bool)[rows["subject"]]


def followers(rows: Rows, data: Prepared, resamples: int, rng: np.random.Generator) -> dict[str, list[Numbers]]:
    """Return, per modality, how far the weights of users who follow it, and of others, lie from the average user's.

    Users who switch are left out.
    """
    planted = _planted(rows, data)
    assert planted is not None, "asked where something is planted"
    stays_U = (planted[0] == planted[1]).all(1)
    followed_UK, from_mean_UK = planted[0][stays_U], (rows["gate"] - rows["gate"].mean(0))[stays_U]
    found: dict[str, list[Numbers]] = {}
    for name, inside_UK in ((FOLLOWERS, followed_UK), (OTHERS, ~followed_UK)):
        columns = [from_mean_UK[inside_UK[:, k], k] for k in range(followed_UK.shape[1])]
        found[name] = [interval(column_U, resamples, rng).plain() if len(column_U) else {} for column_U in columns]
    return found


def followers_shown(found: Mapping[str, Sequence[Numbers]]) -> dict[str, list[list[float | None]]]:
    """Return values, low and high ends of `followers`, by who they are of."""
    return {
        who: [[entry.get(key) for entry in entries] for key in ("mean", "low", "high")]
        for who, entries in found.items()
    }


def recovered(truth: Numbers) -> str:
    """Return in one line how well planted modalities are told."""
    return "the heaviest modality is a planted one for {found:.1%} of users (chance {chance:.1%})".format(**truth)


def in_words(truth: Numbers | None, moved: Numbers | None) -> list[str]:
    """Return what was found, as a person reads it."""
    told = [] if truth is None else [_recovered_in_words(truth)]
    if moved is not None:
        told.append(_moved_in_words(moved))
    return told


def _recovered_in_words(truth: Numbers) -> str:
    return (
        f"The generated users follow some modalities and not others. For {truth['found']:.1%} of them the modality "
        f"with most weight is one that they truly follow; guessing would give {truth['chance']:.1%}. Of all weight "
        f"{truth['weight']:.1%} lies on modalities that users follow. Where weights are taken less the average user's, "
        f"{truth['found_from_mean']:.1%} are found. Correlation of weights with the truth: "
        f"{number(truth['correlation'], 3)} (1 is perfect, 0 none)."
    )


def _moved_in_words(moved: Numbers) -> str:
    gained = moved["gained"]
    return (
        f"{counted(moved['users'], 'user')} follow other modalities from the middle of their history on. "
        f"{moved['seen']:.1%} of them are seen to: their weight on those is higher in the second half, by "
        f"{number(gained['mean'], 3)} ({number(gained['low'], 3)} to {number(gained['high'], 3)}). The heaviest "
        f"modality of the first half is one they follow then for {moved['first']:.1%}, that of the second for "
        f"{moved['second']:.1%}. All else is told of users who stay with what they follow."
    )
