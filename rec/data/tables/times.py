"""Times of every kind as int64 that keep order and distinctness to the last unit.

What a column's times become is decided once, from all of it: nanoseconds since 1970 where they fit into 64 bits, else
the unit that they have. Numbers too small to be times, such as ranks, stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.table_format import TableFormat
from rec.data.tables.values import COMMA, NUMBER, Place, first_true, plain, utf8, with_points, without_missing
from rec.errors import DataError

POWERS: dict[str, int] = {"": 0, "s": 9, "ms": 6, "us": 3, "ns": 0}
SMALLEST = {"ns": 10**17, "us": 10**14, "ms": 10**11, "s": 10**8}
"""Numbers from these on are times of a unit: all but seconds start in March 1973, seconds end in the year 5138."""
MOST = (1 << 63) - 1
WHOLE = r"^[+-]?\d+$"
DECIMAL = r"^[+-]?\d{0,18}\.?\d{0,9}$"
DATE = r"^\d{4}[-/]\d\d[-/]\d\d([T ]\d\d(:\d\d(:\d\d([.,]\d{1,9})?)?)?( ?(Z|UTC|[+-]\d\d(:?\d\d)?))?)?$"
ZONED = r"[T ]\d\d.*(Z|UTC|[+-]\d\d(:?\d\d)?)$"
FINE = r"[.,]\d{6}\d*[1-9]"
KINDS = {"number": "a number", "date": "a date without time zone", "zoned": "a date with time zone"}
EXPECTED = "a time: a number, or a date such as 2024-01-31 or 2024-01-31T12:00:00Z"


@dataclass(frozen=True, slots=True)
class TimeForm:
    """What the times of one column become."""

    kind: str = ""
    """"number", "real" (floats whose order alone is kept), "date" or "zoned"; "" where no time is given."""
    digits: int = 0
    """Numbers are multiplied by ten to this power."""
    exact: bool = True
    """Whether numbers in text are taken digit by digit, not as floats."""
    unit: str = ""
    """Of the outcome; "" where only the order has a meaning."""


@dataclass(slots=True)
class ColumnTimes:
    """What a column's times look like, gathered over all of it."""

    kind: str = ""
    where: str = ""
    largest: float = 0
    """Absolute value of numbers."""
    digits: int = 0
    """Behind the point of numbers."""
    exact: bool = True
    fine: bool = False
    """Whether a date tells nanoseconds."""
    far: bool = False
    """Whether a date is too far from 1970 for them."""

    def look(self, array: pa.Array, at: Place) -> None:
        """Take in some values of the column.

        Raises:
            DataError: a value is no time, or of another kind than those before.
        """
        array, kind = plain(array), array.type
        if _is_text(array.type):
            self._look_at_texts(without_missing(utf8(array, at)), at)
        elif array.null_count == len(array):
            return
        elif pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
            zoned = pa.types.is_timestamp(array.type) and array.type.tz is not None
            self._of("zoned" if zoned else "date", array, at, None)
            self._range(array)
        elif pa.types.is_integer(array.type):
            self._of("number", array, at, None)
            self._largest(array)
            if self.largest > MOST + 1 or (pa.types.is_uint64(array.type) and self.largest > MOST):
                raise at.error(0, self.largest, "numbers of 64 bits with sign")
        elif pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
            self._look_at_fractions(array, at)
        else:
            raise at.refusal(kind, EXPECTED)

    def form(self, unit: str, at: Place) -> TimeForm:
        """Return what the times become.

        Args:
            unit: Of numbers, "" to tell it from the largest.
            at: The column, for errors.

        Raises:
            DataError: dates are both too far apart and too fine for 64 bits.
        """
        if self.kind in ("", "date", "zoned"):
            if self.far and self.fine:
                raise DataError(
                    f"{at.file}: column {at.column!r}: found nanoseconds and dates before 1678 or after 2261, "
                    "expected times that 64 bits hold"
                )
            return TimeForm(self.kind, unit="us" if self.far else "ns")
        unit = unit or next((u for u, least in SMALLEST.items() if self.largest >= least), "")
        if not self.exact:
            fits = bool(unit) and self.largest * 10 ** POWERS[unit] <= MOST
            return TimeForm("number", POWERS[unit], exact=False, unit="ns") if fits else TimeForm("real")
        for digits in (POWERS[unit], self.digits):
            if digits >= self.digits and self.largest * 10**digits <= MOST + (digits == 0):
                outcome = "ns" if digits == POWERS[unit] and unit else unit if digits == 0 else ""
                return TimeForm("number", digits, unit=outcome)
        return TimeForm("real")

    def _of(self, kind: str, array: pa.Array, at: Place, which: pa.Array | None) -> None:
        """Check that values, all or `which`, are of the kind of those before."""
        there = pc.is_valid(array) if which is None else pc.and_(which, pc.is_valid(array))
        index = first_true(there)
        if index is None:
            return
        if self.kind and self.kind != kind:
            raise at.error(index, str(array[index].as_py()), f"{KINDS[self.kind]} as in {self.where}")
        if not self.kind:
            self.kind, self.where = kind, f"row {at.row + index + 1} of {at.file}"

    def _look_at_texts(self, texts: pa.Array, at: Place) -> None:
        if texts.null_count == len(texts):
            return
        number = pc.match_substring_regex(texts, NUMBER)
        if pc.all(number).as_py():
            self._of("number", texts, at, None)
            self._look_at_numbers(texts, at)
            return
        date = pc.match_substring_regex(texts, DATE)
        bad = first_true(pc.invert(pc.or_(number, date)))
        if bad is not None:
            other = at.told_by("time_format", '"%d.%m.%Y %H:%M"', "and the like tell another form")
            comma = at.told_by("decimal", '","', "reads decimal commas") if re.match(COMMA, texts[bad].as_py()) else ""
            raise at.error(bad, texts[bad].as_py(), f"{EXPECTED}{comma or other}")
        zoned = pc.and_(date, pc.match_substring_regex(texts, ZONED))
        which = {"number": number, "date": pc.and_not(date, zoned), "zoned": zoned}
        # The kind of the first value counts, so that the error names the first that differs.
        first = sorted(which, key=lambda name: len(texts) if (i := first_true(which[name])) is None else i)
        for name in first:
            self._of(name, texts, at, which[name])
        for unit in ("ns", "us"):
            dates = _dates(texts, unit, zoned=self.kind == "zoned")
            if dates is not None:
                self._range(dates)
                self.fine = self.fine or bool(pc.any(pc.match_substring_regex(texts, FINE)).as_py())
                return
        self.far, self.fine = self._far_or_wrong(texts, at)

    def _far_or_wrong(self, texts: pa.Array, at: Place) -> tuple[bool, bool]:
        """Return whether dates are far and fine, one by one."""
        far, fine = self.far, self.fine
        for index in range(len(texts)):
            one = texts.slice(index, 1)
            in_ns, in_us = (_dates(one, unit, zoned=self.kind == "zoned") for unit in ("ns", "us"))
            if in_ns is None and in_us is None:
                raise at.error(index, texts[index].as_py(), "a date that exists and that 64 bits hold")
            far, fine = far or in_ns is None, fine or in_us is None
        return far, fine

    def _look_at_numbers(self, texts: pa.Array, at: Place) -> None:
        if pc.all(pc.match_substring_regex(texts, WHOLE)).as_py():
            try:
                self._largest(_unsigned_texts(texts).cast(pa.int64()))
            except pa.ArrowInvalid as error:
                index, value = next((i, v) for i, v in enumerate(texts.to_pylist()) if v and abs(int(v)) > MOST)
                raise at.error(index, value, "a number of 64 bits") from error
        elif pc.all(pc.match_substring_regex(texts, DECIMAL)).as_py():
            digits = pc.max(pc.utf8_length(pc.replace_substring_regex(texts, r"^[^.]*\.?", ""))).as_py()
            self.digits = max(self.digits, int(digits))
            self._largest_float(texts.cast(pa.float64()), at)
        else:
            self._look_at_fractions(texts.cast(pa.float64()), at)

    def _look_at_fractions(self, array: pa.Array, at: Place) -> None:
        if pa.types.is_decimal(array.type) and 0 <= array.type.scale <= 9:
            self.digits = max(self.digits, array.type.scale)
            bad = first_true(pc.greater(pc.abs(array.cast(pa.float64())), float(MOST)))
            if bad is not None:
                raise at.error(bad, str(array[bad].as_py()), "a number of 64 bits")
        else:
            values = array.cast(pa.float64(), safe=False).drop_null().to_numpy()
            values = values[np.isfinite(values)]
            if (values != np.floor(values)).any():
                self.exact = False
        self._largest_float(array.cast(pa.float64(), safe=False), at)

    def _largest(self, integers: pa.Array) -> None:
        bounds = pc.min_max(integers).as_py()
        self.largest = max(self.largest, *(abs(v) for v in bounds.values() if v is not None))

    def _largest_float(self, numbers: pa.Array, at: Place) -> None:
        numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
        self._of("number", numbers, at, None)
        if (index := first_true(pc.is_inf(numbers))) is not None:
            raise at.error(index, numbers[index].as_py(), EXPECTED)
        largest = pc.max(pc.abs(numbers)).as_py()
        self.largest = max(self.largest, int(largest) if largest is not None else 0)

    def _range(self, dates: pa.Array) -> None:
        try:
            nanoseconds = dates.cast(pa.timestamp("ns", _zone(dates.type)))
        except pa.ArrowInvalid:
            self.far = True
            return
        if getattr(dates.type, "unit", "") == "ns":
            values = nanoseconds.drop_null().cast(pa.int64()).to_numpy()
            self.fine = self.fine or bool((values % 1000 != 0).any())


def as_written(array: pa.Array, at: Place, format: TableFormat) -> pa.Array:
    """Return times that are text in a form of their own as timestamps, and numbers with a decimal point.

    Raises:
        DataError: a value is not of the form.
    """
    array = plain(array)
    if not _is_text(array.type) or not (format.time_format or format.decimal == ","):
        return array
    texts = without_missing(utf8(array, at))
    if not format.time_format:
        return with_points(texts, at)
    values = pd.Series(texts.to_pylist(), dtype="str")
    zoned = "%z" in format.time_format
    found = pd.to_datetime(values, format=format.time_format, errors="coerce", utc=zoned)
    bad = first_true(pa.array((found.isna() & values.notna()).to_numpy()))
    if bad is not None:
        key = f"{at.key}.time_format" if at.key else "time_format"
        raise at.error(bad, texts[bad].as_py(), f"a time as {key} = {format.time_format!r} has it")
    return pa.Array.from_pandas(found)


def to_time(array: pa.Array, at: Place, form: TimeForm) -> pa.Array:
    """Return times as int64 of a form that was made from the whole column, null where one is missing.

    Raises:
        DataError: a value does not fit the form: the file is not what it was.
    """
    array = plain(array)
    if _is_text(array.type):
        array = without_missing(utf8(array, at))
    if array.null_count == len(array):
        return pa.nulls(len(array), pa.int64())
    try:
        if form.kind in ("date", "zoned"):
            return _date_numbers(array, form)
        return _real_numbers(array) if form.kind == "real" else _numbers(array, form)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError) as error:
        seen = ColumnTimes(form.kind, "the rows before")
        seen.look(array, at)
        raise DataError(f"{at.file}: row {at.row + 1}, column {at.column!r}: {error}, expected {KINDS}") from error


def _date_numbers(array: pa.Array, form: TimeForm) -> pa.Array:
    if pa.types.is_string(array.type):
        dates = _dates(array, form.unit, zoned=form.kind == "zoned")
        if dates is None:
            raise pa.ArrowInvalid(f"found what is no date of {form.unit}")
        array = dates
    return array.cast(pa.timestamp(form.unit, _zone(array.type))).cast(pa.int64())


def _numbers(array: pa.Array, form: TimeForm) -> pa.Array:
    if pa.types.is_string(array.type):
        if form.exact and form.digits <= 9:
            array = _unsigned_texts(array).cast(pa.decimal128(38, form.digits))
        else:
            array = array.cast(pa.float64())
    if pa.types.is_floating(array.type):
        return _scaled_floats(array, form.digits)
    if pa.types.is_decimal(array.type):
        return _last_words(array.cast(pa.decimal128(38, form.digits)))
    return pc.multiply_checked(array.cast(pa.int64()), pa.scalar(10**form.digits, pa.int64()))


def _scaled_floats(array: pa.Array, digits: int) -> pa.Array:
    values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    missing = np.isnan(values)
    values = np.where(missing, 0, values)
    whole = np.floor(values)
    parts = np.rint((values - whole) * 10**digits).astype(np.int64)
    return pa.array(whole.astype(np.int64) * 10**digits + parts, mask=missing)


def _last_words(array: pa.Array) -> pa.Array:
    """Return decimals without their point, which 64 bits must hold."""
    words = np.frombuffer(array.buffers()[1], dtype=np.int64)[2 * array.offset : 2 * (array.offset + len(array))]
    missing = ~pc.is_valid(array).to_numpy(zero_copy_only=False)
    low, high = words[0::2], words[1::2]
    if (~missing & (high != low >> 63)).any():
        raise OverflowError("found more than 64 bits hold")
    return pa.array(np.where(missing, 0, low), mask=missing)


def _real_numbers(array: pa.Array) -> pa.Array:
    """Return integers in the order of floats: the bits of a float, those of negative ones turned around."""
    values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    missing = np.isnan(values)
    bits = np.where(missing, 0.0, values + 0.0).view(np.int64)
    return pa.array(np.where(bits < 0, bits ^ MOST, bits), mask=missing)


def _dates(texts: pa.Array, unit: str, *, zoned: bool) -> pa.Array | None:
    """Return texts as dates of a unit, None where one is none."""
    if not pa.types.is_string(texts.type):
        return None
    texts = pc.replace_substring(pc.replace_substring(texts, "/", "-"), ",", ".")
    texts = pc.replace_substring_regex(texts, r" ?(UTC|Z)$", "Z")
    texts = pc.replace_substring_regex(texts, r" ([+-]\d\d:?\d?\d?)$", r"\1")
    texts = pc.replace_substring_regex(texts, r"(\.\d{6})0+(Z|[+-].*)?$", r"\1\2")
    try:
        return texts.cast(pa.timestamp(unit, "UTC" if zoned else None))
    except pa.ArrowInvalid:
        return None


def _unsigned_texts(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, r"^\+", "")


def _zone(kind: pa.DataType) -> Any:
    return kind.tz if pa.types.is_timestamp(kind) else None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
