"""A shard of the index of passages: written once, then mapped into memory.

passages.arrow      id, source, title, year, text of each passage
name.npy            (N,) uint64 sorted hashes of titles, and name_document.npy (N,) the document of each
document.npy        (D + 1,) the first passage of each document
main.npy            (D,) uint64 hash of a document's own title, 0 where it has none
year.npy            (D,) int16, 0 where it is unknown
file.npy            (D,) int32 number of the file
word.npy            (W,) uint64 sorted hashes of the words' stems
by_word_*.npy       BM25 of words in passages, as bm25s makes it: value, place (passage), start (W + 1)
by_passage_*.npy    the same by passage: value, place (word), start (P + 1)
vector.npy          (P, C) float16 vectors of passages
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse
from pyarrow import fs

from rec.data.modalities.documents import Document
from rec.data.modalities.passages import Passage, passage_id
from rec.data.modalities.titles import names_of
from rec.data.modalities.words import Words, stretches
from rec.storage import Storage, open_uri

FIELDS = ("id", "source", "title", "year", "text")
PASSAGES = "passages.arrow"


@dataclass(slots=True)
class ShardDraft:
    """A shard in the making."""

    words: Words
    passages: list[Passage] = field(default_factory=list)
    first: list[int] = field(default_factory=lambda: [0])
    main: list[int] = field(default_factory=list)
    year: list[int] = field(default_factory=list)
    file: list[int] = field(default_factory=list)
    names: list[tuple[int, int]] = field(default_factory=list)
    hashes: list[list[int]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    repeated: int = 0
    """Documents that say nothing but what one before says of the same title."""

    def add(self, document: Document, file: int, words: int, overlap: int) -> None:
        """Cut a document into passages; those that are there already are not taken again."""
        names = names_of(document.title, document.year)
        year = f"{names.year:04}" if names.year else ""
        where, before = f"{document.file.rsplit('/', 1)[-1]}:{document.row}", len(self.passages)
        for text in stretches(document.text, words, overlap):
            name = passage_id(document.title, year, text)
            if name not in self.seen:
                self.seen.add(name)
                self.passages.append(Passage(name, where, document.title, year, text))
                self.hashes.append(self.words.hashes(text))
        if len(self.passages) == before:
            self.repeated += 1
            return
        self.names += [(name, len(self.main)) for name in names.all]
        self.main.append(names.main)
        self.year.append(names.year)
        self.file.append(file)
        self.first.append(len(self.passages))

    def write(self, storage: Storage) -> None:
        """Write all but the vectors."""
        columns = {name: pa.array([getattr(p, name) for p in self.passages], pa.string()) for name in FIELDS}
        stream = io.BytesIO()
        with pa.ipc.new_file(stream, pa.table(columns).schema) as writer:
            writer.write_table(pa.table(columns), max_chunksize=1 << 16)
        storage.write(PASSAGES, stream.getvalue())
        name_N, document_N = np.array(self.names, np.uint64).reshape(-1, 2).T
        order = np.argsort(name_N, kind="stable")
        arrays: dict[str, np.ndarray] = {
            "name": name_N[order], "name_document": document_N[order].astype(np.int32),
            "document": np.array(self.first, np.int32), "main": np.array(self.main, np.uint64),
            "year": np.array(self.year, np.int16), "file": np.array(self.file, np.int32),
        }  # fmt: skip
        for name, array in (arrays | _bm25(self.hashes)).items():
            write_array(storage, name, array)


def _bm25(hashes: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Return the words and the BM25 score of each in each passage, by word and by passage."""
    import bm25s

    length = [len(row) for row in hashes]
    flat = np.fromiter((h for row in hashes for h in row), np.uint64, sum(length))
    word_W, place = np.unique(flat, return_inverse=True)
    ids = [part.tolist() for part in np.split(place, np.cumsum(length)[:-1])]
    model = bm25s.BM25(backend="numpy")
    score = model.build_index_from_ids(range(max(1, len(word_W))), ids, show_progress=False) if len(word_W) else None
    shape = (len(hashes), len(word_W))
    if score is None:
        by_word = scipy.sparse.csc_matrix(shape, dtype=np.float32)
    else:
        by_word = scipy.sparse.csc_matrix((score["data"], score["indices"], score["indptr"]), shape)
    found = {"word": word_W}
    for name, matrix in (("by_word", by_word), ("by_passage", by_word.tocsr())):
        found[f"{name}_value"] = matrix.data.astype(np.float32)
        found[f"{name}_place"] = matrix.indices.astype(np.int32)
        found[f"{name}_start"] = matrix.indptr.astype(np.int64)
    return found


class Shard:
    """A shard that is read."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __getattr__(self, name: str) -> np.ndarray:
        """Return an array, mapped into memory where the disk is local."""
        if name.startswith("_"):
            raise AttributeError(name)
        array = self.__dict__[name] = read_array(self.storage, name)
        return array

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage}

    def __len__(self) -> int:
        return int(self.document[-1])

    @cached_property
    def table(self) -> pa.Table:
        """The passages."""
        filesystem, path = open_uri(self.storage.uri_of(PASSAGES))
        local = isinstance(filesystem, fs.LocalFileSystem)
        source: Any = pa.memory_map(path) if local else pa.BufferReader(self.storage.read(PASSAGES))
        return pa.ipc.open_file(source).read_all()

    def passages(self, rows: Sequence[int] | np.ndarray) -> list[Passage]:
        """Return some passages."""
        return [Passage(**row) for row in self.table.take(pa.array(rows, pa.int64())).to_pylist()]

    @cached_property
    def untitled(self) -> np.ndarray:
        """Whether a passage's document has no title, (P,) bool."""
        return np.repeat(np.asarray(self.main) == 0, np.diff(self.document))

    @cached_property
    def by_passage(self) -> scipy.sparse.csr_matrix:
        """BM25 of words in passages."""
        parts = (self.by_passage_value, self.by_passage_place, self.by_passage_start)
        return scipy.sparse.csr_matrix(parts, (len(self), len(self.word)), copy=False)

    @cached_property
    def searcher(self) -> Any:
        """What scores all passages for a question, of bm25s."""
        import bm25s

        found = bm25s.BM25(backend="numpy")
        found.nonoccurrence_array = None  # which only indexing sets
        found.scores = {
            "data": self.by_word_value, "indices": self.by_word_place, "indptr": self.by_word_start,
            "num_docs": len(self),
        }  # fmt: skip
        return found

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """Return where words stand among the shard's, -1 where they do not."""
        if not len(self.word):
            return np.full(len(hashes), -1)
        place = np.minimum(np.searchsorted(self.word, hashes), len(self.word) - 1)
        return np.where(self.word[place] == hashes, place, -1)


def write_array(storage: Storage, name: str, array: np.ndarray) -> None:
    """Write an array as a file of its own."""
    storage.write_with(f"{name}.npy", lambda stream: np.save(stream, array))


def read_array(storage: Storage, name: str) -> np.ndarray:
    """Return an array, mapped into memory where the disk is local."""
    filesystem, path = open_uri(storage.uri_of(f"{name}.npy"))
    if isinstance(filesystem, fs.LocalFileSystem):
        return np.load(path, mmap_mode="r")
    return np.asarray(np.load(io.BytesIO(storage.read(f"{name}.npy"))))
