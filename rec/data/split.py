"""Relevant pairs to training, validation and test, with cold users and cold items held out.

Letters: P pairs, U users, I items (indices from 1).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rec.errors import DataError
from rec.keys_pairs import PairsConfig
from rec.seeds import generator

SPLITS = ("train", "val", "test")
TRAIN, VALIDATION, TEST = range(3)


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs sorted by user, and which part each belongs to."""

    user: np.ndarray
    item: np.ndarray
    part: np.ndarray

    @property
    def train_users(self) -> np.ndarray:
        """Users with a training pair, sorted."""
        return np.unique(self.user[self.part == TRAIN])

    @property
    def train_items(self) -> np.ndarray:
        """Positions (index - 1) of items with a training pair, sorted."""
        return np.unique(self.item[self.part == TRAIN]) - 1

    def rows(self, name: str) -> pa.Table:
        """Return a split's rows: user, history (what is known), target (what is relevant)."""
        part = SPLITS.index(name)
        users = np.unique(self.user[self.part == part])
        history = lists(users, self.user, self.item, self.part < part)
        target = lists(users, self.user, self.item, self.part == part)
        return pa.table({"user": pa.array(users, pa.int64()), "history": history, "target": target})


def split_pairs(
    user: np.ndarray, item: np.ndarray, num_users: int, num_items: int, config: PairsConfig, dropped: Counter[str]
) -> Split:
    """Return the split of these pairs (user from 0, item from 1), the same for the same seed.

    Of each user who is not cold, shares of the pairs with items that are not cold go to validation and test, at random;
    fractions of a pair are rounded at random, and at least one pair stays for training.

    Raises:
        DataError: a part is empty.
    """
    rng = generator(config.seed, "split")
    cold_user = _cold(np.unique(user), num_users, config.cold_users, rng)
    cold_item = _cold(np.arange(1, num_items + 1), num_items + 1, config.cold_items, rng)
    order = np.lexsort((rng.random(len(user)), user))
    user, item = user[order], item[order]
    part = np.where(cold_user[user] > 0, cold_user[user], cold_item[item])
    clash = (cold_user[user] > 0) & (cold_item[item] > 0) & (cold_user[user] != cold_item[item])
    dropped["pair of a cold user and a cold item of the other half"] += int(clash.sum())
    user, item, part = user[~clash], item[~clash], part[~clash]
    warm = np.flatnonzero(part == TRAIN)
    part[warm] = _shares(user[warm], num_users, config, rng)
    found = Split(user, item, part)
    for number, name in enumerate(SPLITS):
        if not (part == number).any():
            raise DataError(
                f"{len(user):,} relevant pairs leave none for {name}; more pairs or other shares are needed"
            )
    return found


def _cold(candidates: np.ndarray, size: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return 0 for what is not cold, VALIDATION or TEST for halves of what is, by index."""
    cold = np.zeros(size, dtype=np.int64)
    chosen = rng.permutation(candidates)[: round(share * len(candidates))]
    cold[chosen[::2]], cold[chosen[1::2]] = TEST, VALIDATION
    return cold


def _shares(user: np.ndarray, num_users: int, config: PairsConfig, rng: np.random.Generator) -> np.ndarray:
    """Return the part of each pair; pairs are sorted by user and in random order within one."""
    count = np.bincount(user, minlength=num_users)
    place = np.arange(len(user)) - (np.cumsum(count) - count)[user]
    test = np.floor(count * config.test_share + rng.random(num_users)).astype(np.int64)
    validation = np.floor(count * config.validation_share + rng.random(num_users)).astype(np.int64)
    test = np.minimum(test, np.maximum(count - 1, 0))
    validation = np.minimum(validation, np.maximum(count - 1 - test, 0))
    part = np.where(place < test[user], TEST, np.where(place < (test + validation)[user], VALIDATION, TRAIN))
    return part


def lists(users: np.ndarray, user: np.ndarray, item: np.ndarray, chosen: np.ndarray) -> pa.Array:
    """Return each user's chosen items as a list."""
    inside = chosen & np.isin(user, users)
    count = np.bincount(np.searchsorted(users, user[inside]), minlength=len(users))
    offset = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offset), pa.array(item[inside].astype(np.int32)))
