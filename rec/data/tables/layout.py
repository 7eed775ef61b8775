"""How a text file is laid out: its encoding, what stands between values, the names of its columns."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from rec.data.table_format import TableFormat
from rec.data.tables.files import UNREADABLE, Location, opened
from rec.data.tables.stream import CHUNK_BYTES, binary_chunks
from rec.data.tables.values import CP1252
from rec.errors import DataError

SAMPLE_BYTES = 1 << 18
SAMPLE_RECORDS = 50
DELIMITERS = (",", "\t", ";", "|", "::")
MARKS = {
    re.compile(rb"\xef\xbb\xbf"): "",
    re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"): "utf-32",
    re.compile(rb"\xff\xfe|\xfe\xff"): "utf-16",
    re.compile(rb"[^\0]\0[^\0]\0"): "utf-16-le",
    re.compile(rb"\0[^\0]\0[^\0]"): "utf-16-be",
}
"""How a file starts: with a mark of the order of bytes, or with two letters of two bytes each."""
NUMBERS_BETWEEN_SPACES = re.compile(r"[\d.+-]+( [\d.+-]+)+")
FIRST_LINE_END = re.compile(r'"(?:[^"]|"")*"|\r\n|\n|\r')
SPARE = tuple(bytes([b]) for b in (31, *range(1, 9), *range(14, 31), 11, 12, 127))
"""Bytes that hardly a text holds; one that a file has nowhere may take another's place while it is parsed."""
MAXIMUM_CHARACTERS = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class TextLayout:
    """What must be known to read a text file."""

    encoding: str
    """"" is UTF-8, and cp1252 for values that are not."""
    delimiter: str
    names: tuple[str, ...]
    header: bool
    """Whether the first row holds the names."""
    carriage: bool = False
    """Whether rows end in a carriage return alone."""
    swaps: tuple[tuple[bytes, bytes], ...] = ()
    """(what stands in the file, the byte that takes its place while it is parsed)."""
    restores: bool = False
    """Whether values may hold a byte that took another's place."""
    mark: int = 0
    """Bytes at the start that mark the order of bytes."""
    note: str = ""
    """What a person should know about the file."""

    @property
    def separator(self) -> str:
        """The one byte that stands between values while they are parsed."""
        stands = dict(self.swaps)
        return stands.get(self.delimiter.encode(), self.delimiter.encode()).decode()


def layout(location: Location, format: TableFormat) -> TextLayout:
    """Return a text file's layout, as far as its start tells.

    Raises:
        DataError: the file is empty, is JSON or no text in its encoding, or names a column twice.
    """
    try:
        with opened(location) as stream:
            first = b"".join(iter_bytes(stream, SAMPLE_BYTES + 1))
        encoding = _encoding(first, format)
        sample = b"".join(binary_chunks(iter([first[:SAMPLE_BYTES]]), encoding, final=False))
    except UNREADABLE as error:
        raise DataError(f"{location.name}: cannot be read ({error})") from error
    except UnicodeError as error:
        raise DataError(f"{location.name}: not {format.encoding or 'the text of its first bytes'} ({error})") from error
    text = sample.decode("utf-8", "surrogateescape")
    if ".json" in location.name.rpartition("/")[2].lower() and text.lstrip()[:1] in ("{", "["):
        raise DataError(f"{location.name}: found JSON, expected a table with a line of column names: CSV, TSV, Parquet")
    whole = len(first) <= SAMPLE_BYTES
    delimiter = format.delimiter or sniff(text, len(format.header), whole)
    head = next(_records(text, delimiter), None)
    if head is None:
        raise DataError(f"{location.name}: is empty, expected a first line with the names of columns")
    names = format.header or tuple(_name(value) for value in head)
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{location.name}: header: column {twice[0]!r} stands twice, expected once")
    ends = (match.group() for match in FIRST_LINE_END.finditer(text) if match.group() in ("\n", "\r", "\r\n"))
    mark = len(codecs.BOM_UTF8) * first.startswith(codecs.BOM_UTF8)
    return TextLayout(encoding, delimiter, names, not format.header, next(ends, "\n") == "\r", mark=mark)


def complete(known: TextLayout, location: Location) -> TextLayout:
    """Return the layout as the whole file tells it: what must be swapped to parse it, and what is to be noted.

    Raises:
        DataError: the file cannot be read.
    """
    spare, quoted, lone, last, valid = list(SPARE), False, False, b"", True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with opened(location) as stream:
            for chunk in binary_chunks(iter_bytes(stream), known.encoding):
                spare = [byte for byte in spare if byte not in chunk]
                quoted = quoted or b'"' in chunk
                lone = lone or (not known.carriage and _has_lone_return(last, chunk))
                last = chunk[-1:]
                valid = valid and _decodes(decoder, chunk)
    except UNREADABLE as error:
        raise DataError(f"{location.name}: cannot be read ({error})") from error
    except UnicodeError as error:
        raise DataError(f"{location.name}: not {known.encoding} ({error})") from error
    swapped = [known.delimiter.encode()] if len(known.delimiter.encode()) > 1 else []
    swapped += [b"\r"] if lone else []
    free = [byte for byte in spare if byte != known.delimiter.encode()]
    if len(swapped) > len(free):
        raise DataError(f"{location.name}: holds every control character, expected text between {known.delimiter!r}")
    note = "not UTF-8 everywhere: values that are not are read as cp1252" if not valid and not known.encoding else ""
    pairs = tuple(zip(swapped, free, strict=False))
    return replace(known, swaps=pairs, restores=lone or quoted, note=note)


def sniff(text: str, expected: int, whole: bool) -> str:
    """Return what stands between the values of a text, a comma where nothing does.

    Args:
        text: The start of a file.
        expected: How many columns there must be, 0 where that is not known.
        whole: Whether the text is all of the file.
    """
    counts = {delimiter: _counts(text, delimiter, whole) for delimiter in DELIMITERS}
    fitting = {d: n[0] for d, n in counts.items() if n and n[0] > 1 and len(set(n)) == 1 and expected in (0, n[0])}
    if fitting:
        return max(fitting, key=fitting.__getitem__)
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line][: SAMPLE_RECORDS + 1]
    lines = lines if whole or len(lines) <= 1 else lines[:-1]
    spaced = _counts(text, " ", whole)
    if lines and len(set(spaced)) == 1 and all(NUMBERS_BETWEEN_SPACES.fullmatch(line) for line in lines[1:] or lines):
        return " "
    return max(DELIMITERS, key=lambda delimiter: (counts[delimiter] or [0])[0])


def iter_bytes(stream: IO[bytes], most: int | None = None, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield a stream's bytes, at most `most` of them."""
    left = most if most is not None else size
    while left > 0 and (chunk := stream.read(min(size, left))):
        yield bytes(chunk)
        left = left - len(chunk) if most is not None else size


def text_of(value: str) -> str:
    """Return a value whose surrogates stand for bytes as the text of those bytes in UTF-8 or cp1252."""
    if value.isascii():
        return value
    written = value.encode("utf-8", "surrogateescape")
    try:
        return written.decode()
    except UnicodeDecodeError:
        return codecs.charmap_decode(written, "strict", CP1252)[0]


def _encoding(first: bytes, format: TableFormat) -> str:
    declared = codecs.lookup(format.encoding).name if format.encoding else ""
    if declared:
        return "utf-8" if declared == "utf-8-sig" else declared
    return next((encoding for mark, encoding in MARKS.items() if mark.match(first)), "")


def _name(value: str) -> str:
    return text_of(value).removeprefix("\ufeff")


def _records(text: str, delimiter: str) -> Iterator[list[str]]:
    """Yield the rows of a text that are not blank."""
    csv.field_size_limit(MAXIMUM_CHARACTERS)
    if len(delimiter) > 1:
        spare = next((byte.decode() for byte in SPARE if byte.decode() not in text), "\x1f")
        text, delimiter = text.replace(delimiter, spare), spare
    yield from (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)


def _counts(text: str, delimiter: str, whole: bool) -> list[int]:
    """Return how many values the first rows have."""
    counts = []
    try:
        for row in _records(text, delimiter):
            counts.append(len(row))
            if len(counts) > SAMPLE_RECORDS:
                break
    except csv.Error:
        return counts
    return counts if whole or len(counts) < 2 else counts[:-1]


def _has_lone_return(last: bytes, chunk: bytes) -> bool:
    """Return whether a carriage return stands without a line feed after it; a last one counts with the next chunk."""
    if last == b"\r" and not chunk.startswith(b"\n"):
        return True
    return b"\r" in chunk and chunk.count(b"\r") - chunk.endswith(b"\r") > chunk.count(b"\r\n")


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes) -> bool:
    try:
        decoder.decode(chunk)
    except UnicodeDecodeError:
        return False
    return True
