"""Values of a column as ids, texts and numbers, and the errors that name the one that is none."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.tables.shown import shown
from rec.errors import DataError

CP1252 = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in range(256))
"""The character of every byte; the five that cp1252 leaves open stay what they are."""
MISSING = pa.array(["", "nan", "na", "n/a", "<na>", "null", "none", "nat", "\\n"])
"""How programs write that a number or a time is missing, in lower case."""
NUMBER = r"^[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|[iI][nN][fF]([iI][nN][iI][tT][yY])?|[nN][aA][nN])$"
COMMA = r"^[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?$"
"""Numbers with a decimal comma."""
PARTS = {"0": 0, "train": 0, "training": 0, "1": 1, "val": 1, "valid": 1, "validate": 1, "validation": 1, "dev": 1,
         "2": 2, "test": 2, "testing": 2}  # fmt: skip
"""What is written for a part of a split, in lower case."""
EXACT = {16: 1 << 11, 32: 1 << 24, 64: 1 << 53}
"""Whole numbers below these are told apart by floats of so many bits."""


class Kind(Enum):
    """What a column is read as."""

    ID = "id"
    """Text as written; whole numbers of Parquet as decimal text; what is empty is null."""
    TEXT = "text"
    """Text of whatever is there; what is empty is null."""
    NUMBER = "number"
    """float64; what is missing or not a number is null."""
    PART = "part"
    """int8 of a split: 0 training, 1 validation, 2 test, from these numbers or from words; what is missing is null."""
    TIME = "time"
    """int64 that keeps order and distinctness; see `rec.data.tables.times`."""
    ANY = "any"
    """As Parquet has it; text of text files, to be typed when the whole column is there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where values come from."""

    file: str
    column: str = ""
    """Its own name, "" where `file` says it."""
    row: int = 0
    """Of the first value, counted from 0; errors count from 1."""
    key: str = ""
    """The config's table that says how the file is written, "" where none does."""

    def error(self, index: int, found: Any, expected: str) -> DataError:
        """Return the error of one value."""
        return self._error(self.row + index, shown(found, 80), expected)

    def refusal(self, kind: pa.DataType, expected: str) -> DataError:
        """Return the error of a whole column's type."""
        return self._error(self.row, kind, expected)

    def _error(self, row: int, found: Any, expected: str) -> DataError:
        column = f", column {self.column!r}" if self.column else ""
        return DataError(f"{self.file}: row {row + 1}{column}: found {found}, expected {expected}")

    def told_by(self, name: str, value: str, what: str) -> str:
        """Return the end of an error that names a key which reads the value; "" where there is none."""
        return f"; {self.key}.{name} = {value} {what}" if self.key else ""


def plain(array: pa.Array) -> pa.Array:
    """Return an array without dictionary, extension type, runs or views."""
    if isinstance(array, pa.ExtensionArray):
        array = _uuids(array) if array.type.extension_name == "arrow.uuid" else array.storage
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.type in (pa.large_string(), pa.string_view()):
        array = array.cast(pa.string())
    return array


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of `plain` arrays of a type."""
    return plain(pa.array([], kind)).type


def to_id(array: pa.Array, at: Place) -> pa.Array:
    """Return ids as text.

    Raises:
        DataError: a value is neither text nor a whole number.
    """
    array, kind = plain(array), array.type
    if pa.types.is_floating(array.type):
        array = _whole(array, at, "text or a whole number (an id)")
    elif pa.types.is_decimal(array.type):
        array = _whole_decimals(array, at)
    if pa.types.is_integer(array.type) or pa.types.is_null(array.type):
        return array.cast(pa.string())
    if pa.types.is_string(array.type) or _is_binary(array.type):
        return without_empty(utf8(array, at))
    raise at.refusal(kind, "text or whole numbers (ids)")


def to_text(array: pa.Array, at: Place) -> pa.Array:
    """Return texts; numbers as they are shown, whole ones without a point, lists joined by commas.

    Raises:
        DataError: the column holds what has no text.
    """
    array, kind = plain(array), array.type
    if pa.types.is_string(array.type) or _is_binary(array.type):
        return without_empty(utf8(array, at))
    if pa.types.is_floating(array.type):
        return pa.array([_shown(value) for value in array.to_pylist()], pa.string())
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _joined(array, at)
    if pa.types.is_nested(array.type):
        raise at.refusal(kind, "text, numbers, dates or lists of these")
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise at.refusal(kind, "text, numbers, dates or lists of these") from error


def to_number(array: pa.Array, at: Place) -> pa.Array:
    """Return numbers as float64, null where one is missing or NaN.

    Raises:
        DataError: a value is no number.
    """
    array, kind = plain(array), array.type
    if _is_binary(array.type):
        array = utf8(array, at)
    if pa.types.is_string(array.type):
        numbers = _parsed(array, at)
    elif _has_numbers(array.type):
        numbers = array.cast(pa.float64(), safe=False)
    else:
        raise at.refusal(kind, "numbers")
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)


def to_part(array: pa.Array, at: Place) -> pa.Array:
    """Return parts of a split as int8, null where one is missing.

    Raises:
        DataError: a value is none.
    """
    array, expected = plain(array), "0, 1 or 2, or train, val or test, in any case"
    if pa.types.is_nested(array.type) or pa.types.is_boolean(array.type):
        raise at.refusal(array.type, expected)
    if pa.types.is_integer(array.type):
        bad = first_true(pc.or_(pc.less(array, 0), pc.greater(array, 2)))
        if bad is not None:
            raise at.error(bad, array[bad].as_py(), expected)
        return array.cast(pa.int8())
    texts = pc.utf8_lower(without_missing(to_text(array, at)))
    texts = pc.replace_substring_regex(texts, r"^([012])\.0*$", r"\1")
    place = pc.index_in(texts, value_set=pa.array(list(PARTS)))
    bad = first_true(pc.and_(pc.is_valid(texts), pc.is_null(place)))
    if bad is not None:
        raise at.error(bad, texts[bad].as_py(), expected)
    return pa.array(list(PARTS.values()), pa.int8()).take(place)


def with_points(array: pa.Array, at: Place) -> pa.Array:
    """Return numbers that are written with a decimal comma with a point; what is no text stays as it is.

    Raises:
        DataError: a number has a point.
    """
    if not pa.types.is_string(array.type):
        return array
    texts = without_missing(array)
    pointed = pc.and_(pc.match_substring(texts, "."), pc.match_substring_regex(texts, NUMBER))
    if (bad := first_true(pointed)) is not None:
        raise at.error(bad, texts[bad].as_py(), "a number with a decimal comma and without a point")
    return pc.if_else(pc.match_substring_regex(texts, COMMA), pc.replace_substring(texts, ",", "."), array)


def without_missing(texts: pa.Array) -> pa.Array:
    """Return trimmed texts, null where a program has written that there is none."""
    trimmed = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.is_in(pc.utf8_lower(trimmed), MISSING), pa.scalar(None, pa.string()), trimmed)


def without_empty(texts: pa.Array) -> pa.Array:
    """Return texts with null for those of no character."""
    empty = pc.equal(pc.binary_length(texts), 0)
    if not pc.any(empty).as_py():
        return texts
    return pc.if_else(empty, pa.scalar(None, pa.string()), texts)


def utf8(array: pa.Array, at: Place, encoding: str = "utf-8") -> pa.Array:
    """Return bytes as text; `encoding` "" takes what is not UTF-8 as cp1252.

    Raises:
        DataError: a value is not text.
    """
    if pa.types.is_string(array.type):
        return array
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        values = array.to_pylist()
    for index, value in enumerate(values):
        if value is not None:
            try:
                values[index] = value.decode()
            except UnicodeDecodeError as error:
                if encoding:
                    raise at.error(index, value, f"text in {encoding}") from error
                values[index] = codecs.charmap_decode(value, "strict", CP1252)[0]
    return pa.array(values, pa.string())


def first_true(mask: pa.Array) -> int | None:
    """Return the index of the first true value, None where there is none."""
    index = pc.index(mask, pa.scalar(True)).as_py()
    return None if index < 0 else int(index)


def _parsed(texts: pa.Array, at: Place) -> pa.Array:
    """Return texts as numbers."""
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        texts = without_missing(texts)
    bad = first_true(pc.invert(pc.match_substring_regex(texts, NUMBER)))
    if bad is not None:
        found = texts[bad].as_py()
        comma = at.told_by("decimal", '","', "reads decimal commas") if re.match(COMMA, found) else ""
        raise at.error(bad, found, f"a number{comma}")
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:  # a number beyond float64's range
        return pa.array([None if text is None else float(text) for text in texts.to_pylist()], pa.float64())


def _whole(array: pa.Array, at: Place, expected: str) -> pa.Array:
    """Return floats that are whole and told apart as int64, NaN as null."""
    limit = EXACT[array.type.bit_width]
    numbers = array.cast(pa.float64())
    values = numbers.to_numpy(zero_copy_only=False)
    missing = np.isnan(values)
    with np.errstate(invalid="ignore"):
        bad = ~missing & ((values != np.floor(values)) | (np.abs(values) >= limit))
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise at.error(index, float(values[index]), expected)
    return pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)


def _whole_decimals(array: pa.Array, at: Place) -> pa.Array:
    """Return decimals without a fraction as text."""
    texts = []
    for index, value in enumerate(array.to_pylist()):
        if value is not None and value != value.to_integral_value():
            raise at.error(index, str(value), "text or a whole number (an id)")
        texts.append(None if value is None else str(int(value)))
    return pa.array(texts, pa.string())


def _joined(array: pa.Array, at: Place) -> pa.Array:
    """Return lists as texts, their values joined by commas."""
    if pa.types.is_nested(array.type.value_type):
        raise at.refusal(array.type, "text, numbers, dates or lists of these")
    values = to_text(array.flatten(), at).to_pylist()
    texts, start = [], 0
    for length in pc.list_value_length(array).to_pylist():
        part = values[start : start + (length or 0)]
        texts.append(", ".join(value for value in part if value is not None) or None)
        start += length or 0
    return pa.array(texts, pa.string())


def _shown(value: float | None) -> str | None:
    if value is None or value != value:
        return None
    return str(int(value)) if abs(value) < EXACT[64] and value == int(value) else repr(value)


def _uuids(array: pa.Array) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )


def _has_numbers(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )
