"""Cells of a column whose type is not known: as numbers, as days, or as words, whatever pandas has made of them.

What is missing is None, NaN, NaT, pandas' NA, no text or white space, or the text nan. N cells in a column.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

Kind = Literal["numbers", "times", "words", "lists"]
NAN_TEXTS = ("nan", "NaN", "NAN")
DAY = timedelta(days=1)
TIME_TEXT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?)?(Z|[+-][0-9:]{4,6})?"
)
"""A date or time as ISO 8601 writes it."""


def kind_of(column: pd.Series[Any]) -> Kind:
    """Return what the whole column holds: one kind of cell, or words where kinds are mixed."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "mM":
        return "times"
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return "numbers"
    cells = [cell for cell in _cells(column) if cell is not None]
    if any(isinstance(cell, list | tuple | set | dict | np.ndarray) for cell in cells):
        return "lists"
    if any(isinstance(cell, bool | np.bool_) for cell in cells):
        return "words"
    if cells and all(_is_time(cell) for cell in cells):
        return "times"
    number = numbers(column)
    given = np.array([cell is not None for cell in _cells(column)], dtype=bool)
    return "numbers" if given.any() and not np.isnan(number[given]).any() else "words"


def numbers(column: pd.Series[Any]) -> np.ndarray:
    """Return each cell as a number, NaN where it is none, (N,) float64; truths are 0 and 1."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufb":
        return column.to_numpy(np.float64)
    return np.array([_number(cell) for cell in _cells(column)], dtype=np.float64)


def days(column: pd.Series[Any]) -> np.ndarray:
    """Return times as days since 1970-01-01 (UTC) and lengths of time as days, NaN where there is none, (N,) float64.

    Numbers are days already.
    """
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "mM":
        time = column.to_numpy()
        return np.asarray((time - np.zeros(1, time.dtype)) / np.timedelta64(1, "D"), dtype=np.float64)
    return np.array([_days(cell) for cell in _cells(column)], dtype=np.float64)


def words(column: pd.Series[Any]) -> list[str | None]:
    """Return each cell as text, None where it is missing; a whole number is its digits, whatever its type."""
    return [None if cell is None else _word(cell) for cell in _cells(column)]


def _cells(column: pd.Series[Any]) -> list[Any]:
    """Return the cells as plain values, None where one is missing."""
    return [None if _missing(cell) else cell for cell in column.astype(object)]


def _missing(cell: Any) -> bool:
    if cell is None or cell is pd.NaT or cell is pd.NA:
        return True
    if isinstance(cell, str):
        return not cell.strip() or cell in NAN_TEXTS
    if isinstance(cell, list | tuple | set | dict | np.ndarray):
        return False
    return bool(cell != cell)


def _is_time(cell: Any) -> bool:
    if isinstance(cell, str):
        return TIME_TEXT.fullmatch(cell.strip()) is not None and not np.isnan(_days(cell))
    return isinstance(cell, date | timedelta | np.datetime64 | np.timedelta64)


def _number(cell: Any) -> float:
    if cell is None or isinstance(cell, date | timedelta | np.datetime64 | np.timedelta64):
        return np.nan
    if isinstance(cell, str) and "_" in cell:  # Python's own way to write digits, and nobody else's
        return np.nan
    try:
        return float(cell)
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return np.nan


def _days(cell: Any) -> float:
    if isinstance(cell, np.datetime64 | np.timedelta64):
        return float(days(pd.Series([cell]))[0])
    if isinstance(cell, str) and TIME_TEXT.fullmatch(cell.strip()):
        try:
            cell = datetime.fromisoformat(cell.strip())
        except ValueError:
            return np.nan
    if isinstance(cell, timedelta):
        return cell / DAY
    if isinstance(cell, date) and not isinstance(cell, datetime):
        return float(cell.toordinal() - date(1970, 1, 1).toordinal())
    if isinstance(cell, datetime):
        return ((cell.astimezone(UTC).replace(tzinfo=None) if cell.tzinfo else cell) - datetime(1970, 1, 1)) / DAY
    return _number(cell)


def _word(cell: Any) -> str:
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell))
    try:
        whole = not isinstance(cell, str) and cell == int(cell)
    except (TypeError, ValueError, OverflowError):
        whole = False
    return str(int(cell)) if whole else str(cell)
