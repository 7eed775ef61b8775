"""The NLG4RS layout: reviews.pickle or reviews.jsonl, and numbered folders of index files that give the split.

A review is {user, item, rating, text, predicted, template: (feature, adjective, sentence, score)}; in the output of the
extraction tools `sentence` is a list of such tuples in the place of `template`, missing or empty where nothing was
found. Index files hold one line of positions in the list of reviews, from 0.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.reviews.pickles import read_plain
from rec.data.tables.files import UNREADABLE, locate, opened
from rec.errors import DataError
from rec.storage import Storage

PICKLE, LINES = "reviews.pickle", "reviews.jsonl"
INDEX = ("train", "validation", "test")
TUPLE = ("feature", "opinion", "text", "score")
SCHEMA = pa.schema(
    {
        "position": pa.int64(), "user": pa.string(), "item": pa.string(), "rating": pa.float64(), "text": pa.string(),
        "feature": pa.string(), "opinion": pa.string(), "score": pa.int8(),
    }
)  # fmt: skip
ROWS_AT_ONCE = 1 << 16


def read_reviews(folder: Storage) -> tuple[pa.Table, int, Counter[str]]:
    """Return the reviews that can be used, how many there are in all, and how many were dropped for which reason.

    Raises:
        DataError: there are none, or a value is not what the layout has there.
    """
    name = next((name for name in (PICKLE, LINES) if folder.exists(name)), "")
    if not name:
        raise DataError(f"{folder.uri}: neither {PICKLE} nor {LINES} here")
    where, dropped = folder.uri_of(name), Counter[str]()
    tables, rows, total = [], [], 0
    for total, row in enumerate(_rows(folder, name, where), 1):
        used, reason = _row(row, total, where)
        if used is None:
            dropped[reason] += 1
            continue
        rows.append({"position": total - 1, **used})
        if len(rows) == ROWS_AT_ONCE:
            tables.append(_table(rows, where))
            rows = []
    return pa.concat_tables([*tables, _table(rows, where)]), total, dropped


def _table(rows: Sequence[Mapping[str, Any]], where: str) -> pa.Table:
    try:
        return pa.Table.from_pylist(list(rows), schema=SCHEMA)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: cannot be read as reviews ({error})") from error


def _rows(folder: Storage, name: str, where: str) -> Iterator[Any]:
    if name == PICKLE:
        found = read_plain(where)
        if not isinstance(found, list):
            raise DataError(f"{where}: holds a {type(found).__name__}, expected a list of reviews")
        yield from found
        return
    try:
        with opened(locate(where, (".jsonl",))) as file, io.TextIOWrapper(file, "utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _of_line(line, number, where)
    except (UnicodeError, *UNREADABLE) as error:
        raise DataError(f"{where}: cannot be read as JSON lines ({error})") from error


def _of_line(line: str, number: int, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: line {number:,}: not JSON ({error.msg} at character {error.pos + 1:,}): {line.strip()[:80]!r}"
        ) from error


def _row(row: Any, number: int, where: str) -> tuple[dict[str, Any] | None, str]:
    """Return what is used of a review, or None and the reason."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: review {number:,}: a {type(row).__name__}, expected a dict")
    found: dict[str, Any] = {}
    for name in ("user", "item"):
        if row.get(name) in (None, ""):
            return None, f"event without {name}"
        found[name] = str(row[name])
    rating = row.get("rating")
    if rating is None:
        return None, "event without rating"
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not np.isfinite(rating):
        raise DataError(f"{where}: review {number:,}: rating: found {rating!r}, expected a number")
    template = row.get("template") or next(iter(row.get("sentence") or ()), None)
    if not template:
        return None, "event without a feature"
    if not isinstance(template, tuple | list) or len(template) != len(TUPLE):
        raise DataError(
            f"{where}: review {number:,}: found {template!r}, expected (feature, adjective, sentence, score)"
        )
    found |= {"rating": float(rating), **dict(zip(TUPLE, template, strict=True))}
    for name in ("text", "feature"):
        if not str(found[name] or "").strip():
            return None, f"event without {'text' if name == 'text' else 'a feature'}"
    return found, ""


def read_fold(folder: Storage, fold: str, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions that a fold names, part by part in the order of its files, and the part of each.

    Raises:
        DataError: a file is missing or not of positions, or a position is none of the list or stands twice.
    """
    positions = []
    for name in INDEX:
        path = f"{fold}/{name}.index"
        if not folder.exists(path):
            folds = [name for name in folder.list() if folder.exists(f"{name}/{INDEX[0]}.index")]
            hint = "" if fold in folds else f"; data.read.fold may be {', '.join(folds) or 'unset'}"
            raise DataError(f"{folder.uri_of(path)}: no such file, expected {', '.join(INDEX)} of a fold{hint}")
        try:
            positions.append(np.array(folder.read(path).split(), dtype=np.int64))
        except ValueError as error:
            raise DataError(f"{folder.uri_of(path)}: expected positions divided by blanks ({error})") from error
        wrong = positions[-1][(positions[-1] < 0) | (positions[-1] >= total)]
        if len(wrong):
            raise DataError(f"{folder.uri_of(path)}: position {wrong[0]}, expected 0 to {total - 1} of the reviews")
    position = np.concatenate(positions)
    once, count = np.unique(position, return_counts=True)
    if (count > 1).any():
        raise DataError(f"{folder.uri_of(fold)}: position {once[count > 1][0]} stands twice in the index files")
    return position, np.repeat(np.arange(len(INDEX)), [len(part) for part in positions]).astype(np.int8)
