"""Documents of knowledge files: rows of tables and of JSON lines, and the paragraphs of texts."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rec.data.modalities.knowledge_config import KnowledgeConfig
from rec.data.sources.metadata import ALIASES
from rec.data.tables import ForeignTable, Kind, Piece, TableFormat, columns, files, pieces, read
from rec.data.tables.files import ENDINGS, UNREADABLE, Location, locate, opened
from rec.data.tables.types import PLAIN
from rec.errors import DataError

JSON_LINES, TEXTS = (".jsonl", ".ndjson"), (".txt", ".md")
USUAL = {
    "title": ALIASES["title"],
    "year": ALIASES["year"],
    "text": ("text", *ALIASES["plot"], "abstract", "content", "body", "review", "passage"),
}
ROWS_PER_PIECE = 100_000
FILES_PER_PIECE = 1_000
MISSING = ("n/a", "nan", "none", "null")
"""What programs write where there is no text."""
NAMED = re.compile(r"^(?P<title>.+) \((?P<year>\d{4})\)$")


@dataclass(frozen=True, slots=True)
class Document:
    """A row, or a paragraph, before it is cut into passages."""

    file: str
    row: int
    """From 1."""
    title: str
    year: str
    text: str


@dataclass(frozen=True, slots=True)
class DocumentColumns:
    """The columns of a table: titles and years may be missing."""

    title: str
    year: str
    text: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """Documents that are read together: a piece of a table, or files of JSON lines or text."""

    piece: Piece | None = None
    chosen: DocumentColumns | None = None
    format: TableFormat = PLAIN
    uris: tuple[str, ...] = ()


def knowledge_files(config: KnowledgeConfig) -> list[str]:
    """Return the files of all paths, sorted within each.

    Raises:
        DataError: there is no such file, or a folder holds none that can be read.
    """
    found = [uri for path in config.paths for uri in files(path, (*ENDINGS, *JSON_LINES, *TEXTS))]
    return list(dict.fromkeys(found))


def parts(config: KnowledgeConfig) -> list[DocumentPart]:
    """Return what there is to read, in parts that can be read apart from one another.

    Raises:
        DataError: a file cannot be read, or a table has no column of text.
    """
    found: list[DocumentPart] = []
    texts: list[str] = []
    for uri in knowledge_files(config):
        if _ends(uri, TEXTS):
            texts.append(uri)
        elif _ends(uri, JSON_LINES):
            found.append(DocumentPart(uris=(uri,)))
        else:
            table = ForeignTable((uri,), config.format)
            chosen = _chosen(columns(table), config, uri)
            found += [DocumentPart(piece, chosen, config.format) for piece in pieces(table, ROWS_PER_PIECE)]
    found += [
        DocumentPart(uris=tuple(texts[at : at + FILES_PER_PIECE])) for at in range(0, len(texts), FILES_PER_PIECE)
    ]
    return found


def documents(part: DocumentPart, config: KnowledgeConfig) -> Iterator[Document]:
    """Yield the documents of a part that have a text.

    Raises:
        DataError: a file cannot be read, or a row is not as it must be.
    """
    if part.piece is not None and part.chosen is not None:
        yield from _of_table(part.piece, part.chosen, part.format)
    for uri in part.uris:
        yield from (_of_text(locate(uri)) if _ends(uri, TEXTS) else _of_lines(locate(uri), config))


def _of_table(piece: Piece, chosen: DocumentColumns, format: TableFormat) -> Iterator[Document]:
    wanted = {f"text {n}": (name, Kind.TEXT) for n, name in enumerate(chosen.text)}
    wanted |= {ours: (name, Kind.TEXT) for ours, name in (("title", chosen.title), ("year", chosen.year)) if name}
    for table in read(piece, wanted, format):
        rows, nothing = table["row"].to_pylist(), [None] * len(table)
        titles, years = (table[name].to_pylist() if name in wanted else nothing for name in ("title", "year"))
        texts = zip(*(table[f"text {n}"].to_pylist() for n in range(len(chosen.text))), strict=True)
        for row, title, year, values in zip(rows, titles, years, texts, strict=True):
            if text := _joined(values):
                yield Document(piece.location.name, row + 1, _known(title), _known(year), text)


def _of_lines(location: Location, config: KnowledgeConfig) -> Iterator[Document]:
    """Yield the objects of JSON lines."""
    chosen = None
    for row, line in enumerate(_lines(location), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{location.name}: line {row}: not JSON ({error})") from error
        if not isinstance(value, dict):
            raise DataError(f"{location.name}: line {row}: found {line[:60]!r}, expected an object")
        if chosen is None or not all(name in value for name in chosen.text):
            chosen = _chosen(list(value), config, f"{location.name}: line {row}")
        if text := _joined([value[name] for name in chosen.text]):
            title, year = (_known(value.get(name)) for name in (chosen.title, chosen.year))
            yield Document(location.name, row, title, year, text)


def _of_text(location: Location) -> Iterator[Document]:
    """Yield a text that its file's name gives a title, whole, else its paragraphs: what stands between blank lines."""
    name = location.name.rsplit("/", 1)[-1]
    for ending in (".gz", ".bz2", ".xz", ".zst", *TEXTS):
        name = name.removesuffix(ending)
    paragraphs = _paragraphs(location)
    if named := NAMED.match(name):
        if text := " ".join(paragraphs):
            yield Document(location.name, 1, named["title"], named["year"], text)
        return
    for number, text in enumerate(paragraphs, 1):
        yield Document(location.name, number, "", "", text)


def _paragraphs(location: Location) -> Iterator[str]:
    held = list[str]()
    for line in _lines(location):
        if line.strip():
            held.append(line.strip())
        elif held:
            yield " ".join(held)
            held = []
    if held:
        yield " ".join(held)


def _lines(location: Location) -> Iterator[str]:
    """Yield the lines of a UTF-8 file."""
    try:
        with opened(location) as file:
            decoder, held = codecs.getincrementaldecoder("utf-8-sig")(), ""
            while chunk := file.read(1 << 20):
                *whole, held = (held + decoder.decode(chunk)).split("\n")
                yield from whole
            yield held + decoder.decode(b"", final=True)
    except UNREADABLE as error:
        raise DataError(f"{location.name}: cannot be read ({error})") from error
    except UnicodeError as error:
        raise DataError(f"{location.name}: not UTF-8 ({error})") from error


def _chosen(names: Sequence[str], config: KnowledgeConfig, where: str) -> DocumentColumns:
    """Return which columns are read.

    Raises:
        DataError: a column that the config names is missing, or there is none of text.
    """
    shown = ", ".join(map(str, names[:40]))
    for key, asked in {"title": (config.title,), "year": (config.year,), "text": config.text}.items():
        for name in asked:
            if name and name not in names:
                raise DataError(f"{where}: no column {name!r} (knowledge.{key}); there are {shown}")
    lower: Mapping[str, str] = {str(name).lower(): str(name) for name in reversed(names)}
    usual = {key: next((lower[name] for name in known if name in lower), "") for key, known in USUAL.items()}
    text = config.text or ((usual["text"],) if usual["text"] else ())
    if not text:
        raise DataError(f"{where}: no column of text; there are {shown}; name it in knowledge.text")
    return DocumentColumns(config.title or usual["title"], config.year or usual["year"], text)


def _joined(values: Sequence[Any]) -> str:
    return " ".join(text for text in map(_known, values) if text)


def _known(value: Any) -> str:
    """Return a value as one line of text, "" where nothing is known."""
    if value is None:
        return ""
    text = re.sub(r"\s+", " ", str(value)).strip()
    return "" if text.lower() in MISSING else text


def _ends(uri: str, endings: tuple[str, ...]) -> bool:
    name = uri.partition("?")[0].lower()
    for packed in (".gz", ".bz2", ".xz", ".zst"):
        name = name.removesuffix(packed)
    return name.endswith(endings)
