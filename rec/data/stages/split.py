"""Which records are for training, validation and test, as a number per record.

Letters: E records, sorted by user and, within one, by time and row. U users, I items (indices from 1).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from rec.data.config import SplitConfig
from rec.data.schema import PART, TIME
from rec.data.stages.records import Records
from rec.data.tables import TimeForm
from rec.data.views.view import SPLITS, TEST, TRAIN, VALIDATION, starts
from rec.errors import ConfigError, DataError
from rec.seeds import generator

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
TEN = 10
"""Records from which on a user's share for validation and test grows in MMRec's split."""


@dataclass(frozen=True, slots=True)
class Split:
    """Records in the order in which they are kept, and the part of each."""

    records: Records
    part_E: np.ndarray

    def sha256(self) -> str:
        """Return the hash of all records' users, items from 0 and parts, in order, as little-endian int64."""
        digest = hashlib.sha256()
        for column in (self.records.user_E, self.records.item_E.astype(np.int64) - 1, self.part_E):
            digest.update(np.ascontiguousarray(column.astype("<i8", copy=False)).data)
        return digest.hexdigest()


def split_records(
    records: Records,
    num_users: int,
    num_items: int,
    config: SplitConfig,
    dropped: Counter[str],
    name: str,
    *,
    strangers: bool = False,
) -> Split:
    """Return the split of these records; what has no place in it is dropped and counted.

    Args:
        records: Sorted by user, then by time and row.
        num_users: Users, those without a record included.
        num_items: Items, those without a record included.
        config: The protocol and its keys.
        dropped: Counts of what was dropped, by reason.
        name: In messages.
        strangers: Whether users without a record of training may stay, as systems know them by what is recorded.

    Raises:
        ConfigError: the protocol needs what the source does not bring.
        DataError: a part is empty.
    """
    refuse_unserved(config, records.columns)
    if config.protocol == "ratio":
        found = ratio(records, num_users, num_items, config, dropped)
    else:
        if config.protocol == "mmrec":  # goes by the order of the input, as MMRec does, whatever times say
            records = records.take(np.lexsort((records.row_E, records.user_E)))
        rules = {
            "leave-one-out": _last_ones, "warm": _warm, "mmrec": _mmrec, "subjects": _subjects, "time": _time,
            "given": _given,
        }  # fmt: skip
        found = Split(records, rules[config.protocol](records, config).astype(np.int8))
    if config.protocol in ("mmrec", "given", "time") and not strangers:
        user = found.records.user_E
        trained = np.isin(user, user[found.part_E == TRAIN])
        dropped["record of a user without training"] += int((~trained).sum())
        found = Split(found.records.take(trained), found.part_E[trained])
    for number, split in enumerate(SPLITS):
        if not (found.part_E == number).any():
            raise DataError(
                f"{name}: no record for {split} among {len(records):,}; more data or other shares are needed"
            )
    return found


def refuse_unserved(config: SplitConfig, columns: Collection[str]) -> None:
    """Refuse a protocol that goes by what the records of a source do not tell.

    Raises:
        ConfigError: it does.
    """
    if config.protocol == "time" and TIME not in columns:
        raise ConfigError("data.split.protocol: 'time' needs a source that tells when records happened")
    if config.protocol == "given" and PART not in columns:
        raise ConfigError(
            "data.split.protocol: 'given' needs a source that brings the split; own tables: data.read.columns.part"
        )


def places(user_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each record stands among those of its user, from 0, and how many there are; sorted by user."""
    start = starts(user_E)
    count = np.diff(start, append=len(user_E))
    return np.arange(len(user_E)) - np.repeat(start, count), np.repeat(count, count)


def _last_ones(records: Records, config: SplitConfig) -> np.ndarray:
    """Return TEST for each user's last record, VALIDATION for the one before."""
    place, count = places(records.user_E)
    return np.clip(place - count + 3, TRAIN, TEST)


def ratio(records: Records, num_users: int, num_items: int, config: SplitConfig, dropped: Counter[str]) -> Split:
    """Return shares of each user's records at random, with cold users and items held out.

    Of each user who is not cold, shares of the records of items that are not cold go to validation and test; fractions
    of a record are rounded at random, and at least one stays for training. A user's records are kept in random order.
    """
    rng = generator(config.seed, "split")
    cold_user = _cold(np.unique(records.user_E), num_users, config.cold_users, rng)
    cold_item = _cold(np.arange(1, num_items + 1), num_items + 1, config.cold_items, rng)
    # What is drawn for a record depends on where it stood in the input.
    draw = np.empty(len(records))
    draw[np.argsort(records.row_E, kind="stable")] = rng.random(len(records))
    records = records.take(np.lexsort((draw, records.user_E)))
    user, item = records.user_E, records.item_E
    part = np.where(cold_user[user] > 0, cold_user[user], cold_item[item])
    clash = (cold_user[user] > 0) & (cold_item[item] > 0) & (cold_user[user] != cold_item[item])
    dropped["record of a cold user and a cold item of the other half"] += int(clash.sum())
    records, part = records.take(~clash), part[~clash]
    warm = np.flatnonzero(part == TRAIN)
    part[warm] = _shares(records.user_E[warm], num_users, config, rng)
    return Split(records, part.astype(np.int8))


def _cold(candidates: np.ndarray, size: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return 0 for what is not cold, VALIDATION or TEST for halves of what is, by index."""
    cold = np.zeros(size, dtype=np.int64)
    chosen = rng.permutation(candidates)[: round(share * len(candidates))]
    cold[chosen[::2]], cold[chosen[1::2]] = TEST, VALIDATION
    return cold


def _shares(user: np.ndarray, num_users: int, config: SplitConfig, rng: np.random.Generator) -> np.ndarray:
    """Return the part of each record; they are sorted by user and in random order within one."""
    count = np.bincount(user, minlength=num_users)
    place = np.arange(len(user)) - (np.cumsum(count) - count)[user]
    test = np.floor(count * config.test + rng.random(num_users)).astype(np.int64)
    validation = np.floor(count * config.validation + rng.random(num_users)).astype(np.int64)
    test = np.minimum(test, np.maximum(count - 1, 0))
    validation = np.minimum(validation, np.maximum(count - 1 - test, 0))
    return np.where(place < test[user], TEST, np.where(place < (test + validation)[user], VALIDATION, TRAIN))


def _warm(records: Records, config: SplitConfig) -> np.ndarray:
    """Return the part of each record: shares of all of them, none of a user's or an item's first in random order.

    Raises:
        DataError: users and items have too few records to lose so many.
    """
    order = generator(config.seed, "warm split").permutation(len(records))
    free = np.ones(len(records), bool)
    for member in (records.user_E, records.item_E):
        free[order[np.unique(member[order], return_index=True)[1]]] = False
    test, held = (round(share * len(records)) for share in (config.test, config.test + config.validation))
    free_order = order[free[order]]
    if held > len(free_order):
        raise DataError(
            f"data.split: {held:,} of {len(records):,} records are to be held out, but only {len(free_order):,} can be "
            "without leaving a user or an item without training; lower data.split.test and validation, or ask for more "
            "records of each by data.filter.core"
        )
    part = np.full(len(records), TRAIN)
    part[free_order[:test]], part[free_order[test:held]] = TEST, VALIDATION
    return part


def _mmrec(records: Records, config: SplitConfig) -> np.ndarray:
    return eight_one_one(records.user_E, records.item_E, config.seed)


def eight_one_one(user: np.ndarray, item: np.ndarray, seed: int) -> np.ndarray:
    """Return the part of each record (sorted by user), drawn 8:1:1 within each user over its items in their order.

    With n records: one each for validation and test where n < 10, else h = int(0.2 n) of which h // 2 for validation.
    Source: MMRec's `1splitting.ipynb`, which does not say its seed.
    """
    by_item = np.lexsort((item, user))
    count = np.bincount(user)[user]
    order = np.lexsort((generator(seed, "graph split").random(len(user)), user))
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user))
    place -= np.searchsorted(user, user)
    held = np.where(count < TEN, 2, count // 5)
    part = np.where(place < held, TEST, TRAIN)
    drawn = np.where(place < held // 2, VALIDATION, part)
    found = np.empty_like(drawn)
    found[by_item] = drawn
    return found


def _subjects(records: Records, config: SplitConfig) -> np.ndarray:
    """Return the part of each user, drawn at random, for all its records."""
    users = np.unique(records.user_E)
    order = generator(config.seed, "subjects").permutation(len(users))
    test, held = (round(share * len(users)) for share in (config.test, config.test + config.validation))
    part = np.full(len(users), TRAIN)
    part[order[:test]], part[order[test:held]] = TEST, VALIDATION
    return part[np.searchsorted(users, records.user_E)]


def _time(records: Records, config: SplitConfig) -> np.ndarray:
    """Return the part of each record by two points in time; equal times are never divided."""
    time = records.columns[TIME]
    if config.test_from is not None and config.validation_from is not None:
        form = records.form or TimeForm()
        validation, test = point(config.validation_from, form), point(config.test_from, form)
        if validation >= test:
            raise ConfigError("data.split.validation_from: expected a point in time before test_from")
        first, last = int(time.min()), int(time.max())
        for key, given, value in (
            ("validation_from", config.validation_from, validation), ("test_from", config.test_from, test)
        ):  # fmt: skip
            if not first < value <= last:
                held = f"{told(first, form)} to {told(last, form)}"
                part = "training" if value <= first else "validation and test" if key == "validation_from" else "test"
                raise ConfigError(
                    f"data.split.{key}: {given!r} leaves nothing for {part}: the records that are kept are from {held}"
                )
    else:
        ordered = np.sort(time)
        test = ordered[int(len(ordered) * (1 - config.test))]
        validation = ordered[int(len(ordered) * (1 - config.test - config.validation))]
    return np.where(time >= test, TEST, np.where(time >= validation, VALIDATION, TRAIN))


def point(given: str | int | float, form: TimeForm) -> int:
    """Return a point in time as records have it, from a number as the source writes it or a date (UTC unless it says).

    Raises:
        ConfigError: it is neither, or the source's times are mere ranks.
    """
    if not isinstance(given, str):
        if form.kind in ("date", "zoned", "real"):
            held = "fractions whose order alone is kept" if form.kind == "real" else "dates"
            raise ConfigError(f"data.split: {given!r} is a number, but the source's times are {held}")
        return int(given * 10**form.digits)
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise ConfigError(f"data.split: {given!r} is no point in time; expected a date as 2024-01-31") from error
    if form.unit not in PER_SECOND:
        raise ConfigError(f"data.split: {given!r} is a date, but the source's times are numbers without a unit")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    return microseconds * PER_SECOND[form.unit] // 10**6


def told(value: int, form: TimeForm) -> str:
    """Return a record's time as `point` reads it: a date where times have a unit, else the source's own number."""
    if form.unit not in PER_SECOND:
        return f"{value / 10**form.digits:g}" if form.digits else str(value)
    seconds, rest = divmod(value, PER_SECOND[form.unit])
    try:
        moment = datetime(1970, 1, 1) + timedelta(seconds=seconds, microseconds=rest * 10**6 // PER_SECOND[form.unit])
    except OverflowError:
        return f"{value} {form.unit} since 1970"
    return moment.isoformat()


def _given(records: Records, config: SplitConfig) -> np.ndarray:
    return records.columns[PART]
