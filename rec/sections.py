"""What a report says, as data: sections of texts, tables, figures and galleries that a renderer lays out.

Sequences and arrays are kept as tuples; a number that is missing or not finite is kept as None and shown as a gap.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal

import numpy as np

from rec.errors import DataError

Values = Sequence[float | None] | np.ndarray
"""Numbers of a figure; None or NaN is a gap."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; a warning stands out, a note steps back."""

    text: str
    tone: Literal["plain", "note", "warning"] = "plain"

    def __post_init__(self) -> None:
        _one_of(self, "tone", ("plain", "note", "warning"))


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under a head; `number` and `interval` write the cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        _keep(self, head=tuple(self.head), rows=tuple(tuple(row) for row in self.rows))
        for index, row in enumerate(self.rows):
            if len(row) != len(self.head):
                raise DataError(f"Table {list(self.head)}: row {index} has {len(row)} cells, expected {len(self.head)}")
        for cell in (cell for row in (self.head, *self.rows) for cell in row):
            if not isinstance(cell, str):
                raise DataError(f"Table {list(self.head)}: found the cell {cell!r}, expected text")


@dataclass(frozen=True, kw_only=True)
class BarSeries:
    """One bar in every group, with the ends of its interval where it has one; muted series are drawn in grey."""

    name: str
    values: Values
    low: Values | None = None
    high: Values | None = None
    muted: bool = False

    def __post_init__(self) -> None:
        _keep(self, values=_numbers(self.values))
        _keep_interval(self, len(self.values))


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars of several series in groups, beside each other or stacked.

    `axis` says what the values are and in which unit, `group_axis` what the groups are.
    """

    title: str
    groups: Sequence[str]
    series: Sequence[BarSeries]
    axis: str
    group_axis: str = ""
    caption: str = ""
    reference: float | None = None
    reference_name: str = ""
    horizontal: bool = False
    stacked: bool = False
    wide: bool = False

    def __post_init__(self) -> None:
        _keep(self, groups=tuple(self.groups), series=tuple(self.series), reference=_finite(self.reference))
        for series in self.series:
            if len(series.values) != len(self.groups):
                found = f"{len(series.values)} values in {series.name!r}"
                raise DataError(f"Bars {self.title!r}: {found}, expected one for each of {len(self.groups)} groups")
            if self.stacked and series.low is not None:
                raise DataError(f"Bars {self.title!r}: {series.name!r} has intervals, which stacked bars cannot show")


@dataclass(frozen=True, kw_only=True)
class LineSeries:
    """A curve with the ends of its band where it has one; without a name it stays out of the legend."""

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    style: Literal["line", "dashed", "points"] = "line"
    muted: bool = False

    def __post_init__(self) -> None:
        _one_of(self, "style", ("line", "dashed", "points"))
        _keep(self, x=_numbers(self.x), y=_numbers(self.y))
        if len(self.x) != len(self.y):
            raise DataError(f"LineSeries {self.name!r}: {len(self.y)} values of y, expected {len(self.x)} as of x")
        _keep_interval(self, len(self.y))


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point that stands out, explained in the legend."""

    x: float
    y: float | None
    name: str

    def __post_init__(self) -> None:
        _keep(self, y=_finite(self.y))


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened at one x, drawn as a vertical line with its name above the axes."""

    x: float
    name: str


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Curves or points over x; with `x_names` (one for each of x = 0, 1, ...) x counts categories."""

    title: str
    series: Sequence[LineSeries]
    x_axis: str
    y_axis: str
    caption: str = ""
    marks: Sequence[Mark] = ()
    events: Sequence[Event] = ()
    reference: float | None = None
    reference_name: str = ""
    low: float | None = None
    high: float | None = None
    x_names: Sequence[str] = ()
    x_log: bool = False
    wide: bool = False

    def __post_init__(self) -> None:
        _keep(self, series=tuple(self.series), marks=tuple(self.marks), events=tuple(self.events))
        _keep(self, x_names=tuple(self.x_names), reference=_finite(self.reference))
        if self.x_log and any(x is not None and x <= 0 for series in self.series for x in series.x):
            raise DataError(f"Lines {self.title!r}: x_log, but an x is not above 0")


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """A matrix as colours, row 0 at the bottom; `meaning` says what a colour stands for, in which unit."""

    title: str
    matrix: Sequence[Values] | np.ndarray
    x_names: Sequence[str]
    y_names: Sequence[str]
    x_axis: str
    y_axis: str
    meaning: str
    caption: str = ""
    low: float | None = None
    high: float | None = None
    wide: bool = False

    def __post_init__(self) -> None:
        _keep(self, matrix=tuple(_numbers(row) for row in self.matrix))
        _keep(self, x_names=tuple(self.x_names), y_names=tuple(self.y_names))
        shape = (len(self.matrix), *sorted({len(row) for row in self.matrix}))
        if self.matrix and shape != (len(self.y_names), len(self.x_names)):
            expected = f"{len(self.y_names)} rows of {len(self.x_names)}"
            raise DataError(f"Heatmap {self.title!r}: {shape[0]} rows of {shape[1:]} values, expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One thing shown: lines of text, its picture (JPEG, PNG, GIF or WebP) if it has one, marked or not."""

    caption: Sequence[str]
    picture: bytes | None = None
    marked: bool = False

    def __post_init__(self) -> None:
        _keep(self, caption=tuple(self.caption))


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A row of cards after a sentence that says whose they are."""

    lead: str
    cards: Sequence[Card]
    detail: str = ""

    def __post_init__(self) -> None:
        _keep(self, cards=tuple(self.cards))


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Shelves of cards; `mark` is the word on marked cards, as "relevant"."""

    shelves: Sequence[Shelf]
    mark: str = ""

    def __post_init__(self) -> None:
        _keep(self, shelves=tuple(self.shelves))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure drawn elsewhere: the bytes of an SVG, PNG or JPEG file on a white ground."""

    title: str
    content: bytes
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Code:
    """A text whose spaces count: a config, a command, output."""

    text: str


Part = Text | Table | Bars | Lines | Heatmap | Gallery | Picture | Code


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and its parts; a folded section is a detail that opens on demand. Figures in a row stand side by side,
    unless they are wide."""

    title: str
    parts: Sequence[Part]
    folded: bool = False

    def __post_init__(self) -> None:
        _keep(self, parts=tuple(self.parts))
        for part in self.parts:
            if not isinstance(part, Part):
                raise DataError(f"Section {self.title!r}: found a part of {type(part).__name__}, expected {Part}")


KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Section, Text, Table, Bars, BarSeries, Lines, LineSeries, Mark, Event),
        *(Heatmap, Gallery, Shelf, Card, Picture, Code),
    )
}


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as a cell: thousands apart, no sign on zero, "-" where it is missing or not finite."""
    value = _finite(value)
    return "-" if value is None else f"{value:z,.{digits}f}"


def interval(mean: float | None, low: float | None, high: float | None, digits: int = 4) -> str:
    """Return a mean with its interval as a cell, the mean alone where an end is missing or not finite."""
    ends = (_finite(low), _finite(high))
    if _finite(mean) is None or None in ends:
        return number(mean, digits)
    return f"{number(mean, digits)} ({number(low, digits)} to {number(high, digits)})"


def spread(found: Mapping[str, Any] | None, examples: int, digits: int = 4) -> str:
    """Return a mean with its interval (mean, low, high) as a cell; that of one example has none."""
    if found is None:
        return number(None)
    return interval(**found, digits=digits) if examples > 1 else number(found["mean"], digits)


def counted(count: float, one: str, many: str = "") -> str:
    """Return a number with its noun: "1 seed", "1,200 seeds", "2 queries"; `many` where the plural is another."""
    told = f"{int(count):,}" if count == int(count) else f"{count:g}"
    return f"{told} {one if count == 1 else many or plural(one)}"


def plural(noun: str) -> str:
    """Return the plural of a noun: "users", "queries", "diagnoses", "indexes", "epochs"."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    if noun.endswith("sis"):
        return f"{noun[:-2]}es"
    hissing = noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch")
    return f"{noun}es" if hissing else f"{noun}s"


def sentence(text: str) -> str:
    """Return a note as a sentence of its own: with a full stop and a capital, unless it begins with a name of code."""
    if re.match(r"[a-z]+\b(?![@/_.])", text):
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) or not text else f"{text}."


def floats(values: Values) -> np.ndarray:
    """Return values as float64 with NaN in the gaps."""
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def to_plain(sections: Iterable[Section]) -> list[dict[str, Any]]:
    """Return sections as what `json` writes: objects with a `kind`, bytes in base64, defaults left out."""
    return [_plain(section) for section in sections]


def from_plain(plain: Any) -> tuple[Section, ...]:
    """Return the sections that `to_plain` wrote.

    Raises:
        DataError: another kind or field, or a value that a section cannot hold.
    """
    found = _parsed(plain)
    if not isinstance(found, tuple) or not all(isinstance(section, Section) for section in found):
        raise DataError(f"sections: found {str(plain)[:80]}, expected a list of objects of kind Section")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"kind": "bytes", "base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if not is_dataclass(value):
        return value
    named = ((field, getattr(value, field.name)) for field in fields(value))
    kept = {field.name: _plain(entry) for field, entry in named if field.default is MISSING or entry != field.default}
    return {"kind": type(value).__name__, **kept}


def _parsed(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_parsed(entry) for entry in plain)
    if not isinstance(plain, dict):
        return plain
    kind, rest = plain.get("kind"), {name: _parsed(entry) for name, entry in plain.items() if name != "kind"}
    try:
        return base64.b64decode(rest["base64"], validate=True) if kind == "bytes" else KINDS[str(kind)](**rest)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise DataError(f"sections: {kind!r} with {sorted(rest)} cannot be read: {error!r}") from error


def _keep(part: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(part, name, value)


def _keep_interval(series: BarSeries | LineSeries, size: int) -> None:
    if (series.low is None) != (series.high is None):
        raise DataError(f"series {series.name!r}: one end of the interval is missing, expected low and high")
    if series.low is not None and series.high is not None:
        _keep(series, low=_numbers(series.low), high=_numbers(series.high))
        if {len(series.low), len(series.high)} != {size}:
            found = f"low has {len(series.low)}, high {len(series.high)}"
            raise DataError(f"series {series.name!r}: {found}, expected {size} values")


def _one_of(part: Any, name: str, known: Sequence[str]) -> None:
    if getattr(part, name) not in known:
        raise DataError(f"{type(part).__name__}.{name}: found {getattr(part, name)!r}, expected one of {list(known)}")


def _numbers(values: Values) -> tuple[float | None, ...]:
    return tuple(_finite(value) for value in values)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
