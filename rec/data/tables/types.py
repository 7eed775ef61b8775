"""Types of columns of text, told from the whole column."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from rec.data.table_format import ColumnType, TableFormat
from rec.data.tables.times import DATE, ColumnTimes, as_written, to_time
from rec.data.tables.values import (
    COMMA,
    NUMBER,
    Place,
    first_true,
    plain,
    to_number,
    to_text,
    with_points,
    without_missing,
)
from rec.errors import DataError

PLAIN = TableFormat()

WHOLE = r"^-?(0|[1-9]\d{0,16})$"
CODE = r"^(\+\d+|-?0\d+|-?\d{18,})$"
"""Numbers that are ids: with zeros or a plus in front, or longer than those that are counted with."""
TRUTH = r"^(?i:true|false)$"


def typed(
    column: pa.ChunkedArray, declared: ColumnType | None = None, where: str = "", format: TableFormat = PLAIN
) -> pa.ChunkedArray:
    """Return a column of text as what all of it is: int64, float64, bool, timestamp, or text.

    Values that no type holds, such as 007 or 18 digits and more, keep the column text; what is missing is null and
    changes no type. A column of another type than text is returned as it is, unless a type is declared.

    Args:
        column: All rows, over all files.
        declared: The type it must have.
        where: What errors call the column.
        format: How numbers and times are written.

    Raises:
        DataError: a value is not of the declared type.
    """
    at = Place(where or "column")
    arrays = [plain(chunk) for chunk in column.chunks]
    if declared is not None:
        return _chunked(_cast(declared, format), arrays, DECLARED[declared], at)
    if not arrays or any(not pa.types.is_string(array.type) for array in arrays):
        return column
    texts = [without_missing(array) for array in arrays]
    if all(array.null_count == len(array) for array in texts):
        return _chunked(to_text, arrays, pa.string(), at)
    if _all(texts, TRUTH):
        return _chunked(_to_boolean, arrays, pa.bool_(), at)
    if _all(texts, WHOLE):
        return _chunked(_to_integer, arrays, pa.int64(), at)
    numbers = NUMBER if format.decimal == "." else f"{NUMBER}|{COMMA}"
    if _all(texts, numbers) and not any(_any(array, CODE) for array in texts):
        return _chunked(_cast("number", format), arrays, pa.float64(), at)
    if _all(texts, DATE):
        try:
            return to_dates(texts, at)
        except DataError:  # 2023-02-30, or some with a time zone: text
            pass
    return _chunked(to_text, arrays, pa.string(), at)


def as_declared(array: pa.Array, declared: ColumnType, at: Place, format: TableFormat = PLAIN) -> pa.Array:
    """Return some values of a column as the type that is declared for it.

    Raises:
        DataError: a value is not of the type.
    """
    return _cast(declared, format)(plain(array), at)


def to_dates(arrays: list[pa.Array], at: Place) -> pa.ChunkedArray:
    """Return texts, dates or numbers that are times as timestamps, of nanoseconds where a value tells them.

    Raises:
        DataError: a value is no date, or some have a time zone and some have none.
    """
    seen = ColumnTimes()
    for array in arrays:
        seen.look(array, at)
    form = seen.form("", at)
    if form.kind in ("number", "real"):
        if not form.unit:
            raise at.refusal(
                arrays[0].type, "dates such as 2024-01-31, or numbers that are seconds since 1970 or parts"
            )
        kind = pa.timestamp(form.unit)
        return pa.chunked_array([to_time(array, at, form).cast(kind) for array in arrays], kind)
    zone = "UTC" if form.kind == "zoned" else None
    kind = pa.timestamp("ns" if seen.fine else "us", zone)
    wide = pa.timestamp(form.unit, zone)
    return pa.chunked_array([to_time(array, at, form).cast(wide).cast(kind) for array in arrays], kind)


def _to_integer(array: pa.Array, at: Place) -> pa.Array:
    if pa.types.is_string(array.type):
        texts = without_missing(array)
        bad = first_true(pc.invert(pc.match_substring_regex(texts, r"^[+-]?\d+$")))
        if bad is not None:
            raise at.error(bad, texts[bad].as_py(), "a whole number")
        array = pc.replace_substring_regex(texts, r"^\+", "")
    try:
        return array.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{at.file}: column {at.column!r}: {error}, expected whole numbers of 64 bits") from error


def _to_boolean(array: pa.Array, at: Place) -> pa.Array:
    if pa.types.is_string(array.type):
        texts = pc.utf8_lower(without_missing(array))
        bad = first_true(pc.invert(pc.match_substring_regex(texts, r"^(true|false|0|1|yes|no)$")))
        if bad is not None:
            raise at.error(bad, array[bad].as_py(), "true or false")
        return pc.if_else(
            pc.is_valid(texts), pc.is_in(texts, pa.array(["true", "1", "yes"])), pa.scalar(None, pa.bool_())
        )
    try:
        return array.cast(pa.bool_())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise at.refusal(array.type, "true or false") from error


def _to_date(array: pa.Array, at: Place) -> pa.Array:
    return to_dates([array], at).combine_chunks()


CASTS: dict[ColumnType, Callable[[pa.Array, Place], pa.Array]] = {
    "text": to_text,
    "integer": _to_integer,
    "number": to_number,
    "boolean": _to_boolean,
    "time": _to_date,
}
DECLARED: dict[ColumnType, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("us"),
}


def _cast(declared: ColumnType, format: TableFormat) -> Callable[[pa.Array, Place], pa.Array]:
    """Return what casts values that are written in some way."""
    cast = CASTS[declared]
    if declared == "time":
        return lambda array, at: cast(as_written(array, at, format), at)
    if declared == "number" and format.decimal == ",":
        return lambda array, at: cast(with_points(array, at), at)
    return cast


def _chunked(
    cast: Callable[[pa.Array, Place], pa.Array], arrays: list[pa.Array], kind: pa.DataType, at: Place
) -> pa.ChunkedArray:
    done, row = [], 0
    for array in arrays:
        done.append(cast(array, Place(at.file, at.column, row)))
        row += len(array)
    return pa.chunked_array(done, done[0].type if done else kind)


def _all(arrays: list[pa.Array], pattern: str) -> bool:
    return all(pc.all(pc.match_substring_regex(array, pattern)).as_py() is not False for array in arrays)


def _any(array: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(array, pattern)).as_py())
