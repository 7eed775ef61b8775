"""Files of tables: found in folders and archives, opened unpacked."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from rec.errors import DataError
from rec.storage import absolute, open_uri

PARQUET = (".parquet", ".parq", ".pq")
TEXT = (".csv", ".tsv", ".txt", ".dat")
ENDINGS = (*PARQUET, ".csv", ".tsv")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PAR1": "parquet",
}
BZ2 = re.compile(rb"BZh[1-9]1AY&SY")
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, pa.ArrowException)
"""What opening and unpacking a damaged file may raise."""


@dataclass(frozen=True, slots=True)
class Location:
    """One file, alone or in an archive, and what it is."""

    uri: str
    member: str = ""
    """Its name inside a zip archive."""
    form: str = ""
    """"parquet", what a text file is packed with, or "" for plain text."""
    origin: str = ""
    """What errors call it in the place of itself, where it was made from another file ..."""
    before: int = 0
    """... and how many of that file's rows come before its first one."""

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.origin or (f"{self.uri}/{self.member}" if self.member else self.uri)

    @property
    def folder(self) -> str:
        """Where relative paths that stand in the file start."""
        return _split_query(self.uri)[0].rsplit("/", 1)[0]

    def stamp(self) -> str:
        """Return what changes when the file does."""
        filesystem, path = open_uri(self.uri)
        info = filesystem.get_file_info(path)
        return f"{info.size}/{info.mtime_ns}"


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows of one file that follow one another."""

    first: int
    """The number of the first row in the file."""
    rows: int
    row_groups: tuple[int, ...] = ()
    """Of Parquet: where the rows are."""
    span: tuple[int, int] | None = None
    """Of text: the bytes where the rows are, None for all."""
    skipped: int = 0
    """Rows at the start of the row groups or bytes that come before."""


def together(parts: Iterable[RowRange], rows: int) -> list[RowRange]:
    """Return parts of a file as stretches of about `rows` rows: small ones together, large ones cut."""
    found: list[RowRange] = []
    for part in parts:
        last = found[-1] if found else None
        if last is not None and not last.skipped and last.rows + part.rows <= rows:
            groups = last.row_groups + part.row_groups
            span = (last.span[0], part.span[1]) if last.span and part.span else None
            found[-1] = RowRange(last.first, last.rows + part.rows, groups, span)
            continue
        pieces = max(1, round(part.rows / max(rows, 1)))
        bounds = itertools.pairwise(part.rows * piece // pieces for piece in range(pieces + 1))
        found += [RowRange(part.first + a, b - a, part.row_groups, part.span, a) for a, b in bounds if b > a]
    return found


def files(uri: str, endings: tuple[str, ...] = ENDINGS) -> list[str]:
    """Return the files that `uri` names: itself, or the sorted files of a folder and of those below it.

    A file inside a zip archive is named as if the archive were a folder. Packed files count by the ending before it.

    Raises:
        DataError: there is no such file or folder, or none of the folder's files is a table.
    """
    filesystem, path = open_uri(uri)
    kind = filesystem.get_file_info(path).type
    if kind == fs.FileType.File:
        return [uri]
    if kind == fs.FileType.NotFound:
        if found := _in_archive(uri, endings):
            return found
        raise DataError(f"{uri}: no such file or folder")
    base, query = _split_query(uri)
    inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    names = [i.path[len(path.rstrip("/")) :] for i in inside if i.type == fs.FileType.File]
    names = sorted(name for name in names if _is_table(name, endings))
    if not names:
        raise DataError(f"{uri}: folder holds no file that ends in {' or '.join(endings)}")
    written = map(quote, names) if "://" in uri else names
    return [f"{base.rstrip('/')}{name}{query}" for name in written]


def locate(uri: str, endings: tuple[str, ...] = ENDINGS) -> Location:
    """Return a file's place and form, told by its first bytes; an archive stands for its only table.

    Raises:
        DataError: the file cannot be read, or the archive holds several tables or none.
    """
    uri, member = _archive_and_member(absolute(uri))
    plain = Location(uri, member)
    try:
        with opened(plain) as stream:
            form = _form(stream.read(16))
        if form != "parquet" and _is_table(plain.name, PARQUET):
            raise DataError(f"{plain.name}: cannot be read (it does not start as a Parquet file does)")
        if form == "parquet" and _is_table(plain.name, TEXT):  # a header that starts with PAR1
            form = ""
        if form != "zip":
            return Location(uri, member, form)
        if member:
            raise DataError(f"{plain.name}: an archive inside an archive, expected a table")
        return locate(f"{uri}/{_only_member(uri, endings)}")
    except UNREADABLE as error:
        raise DataError(f"{plain.name}: cannot be read ({error})") from error


@contextmanager
def opened(location: Location) -> Iterator[IO[bytes]]:
    """Open a file for reading from its start, unpacked; a Parquet file for random access."""
    filesystem, path = open_uri(location.uri)
    with ExitStack() as stack:
        file: Any = stack.enter_context(filesystem.open_input_file(path))
        if location.member:
            archive = stack.enter_context(zipfile.ZipFile(file))
            file = stack.enter_context(archive.open(location.member))
        if location.form == "parquet" and location.member:
            file = pa.BufferReader(file.read())
        elif location.form == "gzip":
            file = stack.enter_context(gzip.open(file))
        elif location.form == "bz2":
            file = stack.enter_context(bz2.open(file))
        elif location.form == "xz":
            file = stack.enter_context(lzma.open(file))
        elif location.form == "zstd":
            file = stack.enter_context(pa.CompressedInputStream(file, "zstd"))
        yield file


def members(uri: str) -> list[str]:
    """Return the names of the files in a zip archive, in its order."""
    filesystem, path = open_uri(uri)
    try:
        with filesystem.open_input_file(path) as file, zipfile.ZipFile(file) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except UNREADABLE as error:
        raise DataError(f"{uri}: cannot be read ({error})") from error
    return [name for name in names if not name.startswith("__MACOSX/")]


def is_archive(uri: str) -> bool:
    """Return whether a file is a zip archive."""
    filesystem, path = open_uri(uri)
    if filesystem.get_file_info(path).type != fs.FileType.File:
        return False
    with filesystem.open_input_file(path) as file:
        return _form(file.read(16)) == "zip"


def _form(first: bytes) -> str:
    if BZ2.match(first):
        return "bz2"
    return next((form for magic, form in MAGIC.items() if first.startswith(magic)), "")


def _is_table(name: str, endings: tuple[str, ...]) -> bool:
    """Return whether a name is one of a table, and of no file that a system hides."""
    base = name.rsplit("/", 1)[-1].lower()
    for packed in PACKED:
        base = base.removesuffix(packed)
    return base.endswith(endings) and not base.startswith(".")


def _only_member(uri: str, endings: tuple[str, ...]) -> str:
    every = members(uri)
    tables = [name for name in every if _is_table(name, endings)]
    if len(every) == 1 or len(tables) == 1:
        return (tables or every)[0]
    some = ", ".join(every[:5]) + (", ..." if len(every) > 5 else "")
    raise DataError(f"{uri}: an archive of {len(every)} files ({some}), expected one; name it as {uri}/FILE")


def _archive_and_member(uri: str) -> tuple[str, str]:
    """Return an archive and the file in it that are named together; the URI and "" where it names a file."""
    for match in re.finditer(r"\.zip/", uri, re.IGNORECASE):
        archive, member = uri[: match.end() - 1], uri[match.end() :]
        filesystem, path = open_uri(archive)
        if filesystem.get_file_info(path).type == fs.FileType.File:
            return archive, member
    return uri, ""


def _in_archive(uri: str, endings: tuple[str, ...]) -> list[str]:
    archive, member = _archive_and_member(uri)
    if not member:
        return []
    names = members(archive)
    if member in names:
        return [uri]
    below = sorted(n for n in names if n.startswith(f"{member.rstrip('/')}/") and _is_table(n, endings))
    if not below:
        raise DataError(f"{uri}: the archive holds no such file; there are {', '.join(names[:10])}")
    return [f"{archive}/{name}" for name in below]


def _split_query(uri: str) -> tuple[str, str]:
    base, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return base, mark + query
