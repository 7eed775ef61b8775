"""The bytes of a text file as UTF-8, in pieces that a parser can take one after the other."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import numpy as np

from rec.data.tables.shown import shown

CHUNK_BYTES = 1 << 22
LONGEST_ROW_BYTES = 1 << 30
LONE_RETURN = re.compile(rb"\r(?!\n)")


def binary_chunks(chunks: Iterator[bytes], encoding: str, *, final: bool = True) -> Iterator[bytes]:
    """Yield bytes as UTF-8 without a mark of byte order; what is no text in `encoding` stays the bytes it is.

    `encoding` "" and "utf-8" take the bytes as they are. Without `final` the text may end in half a character.
    """
    first = next(chunks, b"")
    if encoding in ("", "utf-8"):
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from chunks
        return
    errors = "strict" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    yield decoder.decode(first).removeprefix("\ufeff").encode("utf-8", "surrogateescape")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogateescape")
    if final:
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")


def swapped(chunks: Iterator[bytes], swaps: tuple[tuple[bytes, bytes], ...]) -> Iterator[bytes]:
    """Yield bytes with every first of a pair replaced by its second; a lone `\\r` is one without `\\n` after it."""
    for written, spare in swaps:
        chunks = _without_lone_returns(chunks, spare) if written == b"\r" else _replaced(chunks, written, spare)
    yield from chunks


def rows_together(chunks: Iterator[bytes], separator: str, end: bytes, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield bytes in chunks of about `size` that end where a row does, whatever stands inside quotes.

    pyarrow's own reader of blocks loses the place where a block ends beside a quote or between `\\r` and `\\n`.

    Raises:
        ValueError: a row does not end.
    """
    mark = separator.encode()
    held, wanted = b"", size
    for chunk in chunks:
        held += chunk
        if len(held) < wanted:
            continue
        cut = _last_end(held, mark, end)
        if cut:
            yield held[:cut]
        elif len(held) > LONGEST_ROW_BYTES:
            raise ValueError(f"found a row of more than {LONGEST_ROW_BYTES:,} bytes, expected one that ends")
        held = held[cut:]
        wanted = size if cut else 2 * len(held)
    if held:
        _refuse_open(held, mark)
        yield held


def _refuse_open(data: bytes, separator: bytes) -> None:
    opens, closes = _quoted(data, separator)
    if len(closes) and closes[-1] == len(data):
        start = shown(data[opens[-1] :][:60].decode("utf-8", "replace"), 80)
        raise ValueError(f"found {start} at its end, expected a quote that closes the one that opens")


def _last_end(data: bytes, separator: bytes, end: bytes) -> int:
    """Return where the last row ends that is whole, 0 where none is."""
    at = data.rfind(end)
    if b'"' not in data:
        return at + 1
    opens, closes = _quoted(data, separator)
    while at >= 0:
        last = int(np.searchsorted(opens, at)) - 1
        if last < 0 or closes[last] < at:
            return at + 1
        at = data.rfind(end, 0, int(opens[last]))
    return 0


def _quoted(data: bytes, separator: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return where values inside quotes start and end; doubled quotes may count as an end and a start.

    What is still open ends where the bytes do.
    """
    characters = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(characters == ord('"'))
    opens, closes = quotes[0::2], np.append(quotes[1::2], [len(data)] * (len(quotes) % 2))
    before = characters[opens - 1]
    starts = (opens == 0) | (before == separator[0]) | (before == ord("\n")) | (before == ord("\r"))
    starts[1:] |= opens[1:] == closes[:-1] + 1
    if starts.all():
        return opens, closes
    # A quote inside a value that starts without one is a character like others.
    pattern = rb'(?:\A|(?<=[%b\r\n]))("[^"]*(?:""[^"]*)*("|\Z))' % re.escape(separator)
    spans = [(m.start(1), m.end(1) - 1 if m.group(2) else len(data)) for m in re.finditer(pattern, data)]
    found = np.array(spans, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _replaced(chunks: Iterator[bytes], written: bytes, spare: bytes) -> Iterator[bytes]:
    held = b""
    for chunk in chunks:
        chunk = (held + chunk).replace(written, spare)
        size = next((n for n in range(len(written) - 1, 0, -1) if chunk.endswith(written[:n])), 0)
        held = chunk[len(chunk) - size :]
        yield chunk[: len(chunk) - size]
    yield held


def _without_lone_returns(chunks: Iterator[bytes], spare: bytes) -> Iterator[bytes]:
    held = b""
    for chunk in chunks:
        chunk = held + chunk
        held = b"\r" if chunk.endswith(b"\r") else b""
        yield LONE_RETURN.sub(spare, chunk[: len(chunk) - len(held)])
    yield held
