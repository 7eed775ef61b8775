"""Tensors in shards: each rank writes the numbers it owns into safetensors files, and reads the parts it needs.

A tensor is known by its name, its shape and its numbers in order, flat; a piece is a run of these. What maps names to
runs in files is a part of the manifest (see `rec.train.checkpoint`), so a reader opens what it needs and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import Tensor

from rec.errors import CheckpointError
from rec.json_text import json_text
from rec.storage import Storage

SHARD_BYTES = 4_000_000_000
"""Most bytes of tensors in one file; object stores take at most 5 GB in one request."""
CHUNK_BYTES = 1 << 24
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""As safetensors names them."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
Wrote = Callable[[int], None]
"""Told of bytes as they are written."""


@dataclass(frozen=True, slots=True)
class TensorPiece:
    """What a rank writes of a tensor: `values` are its numbers from `at` on, flat."""

    name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    at: int
    values: Tensor

    @classmethod
    def whole(cls, name: str, value: Tensor) -> TensorPiece:
        """Return a tensor as one piece."""
        return cls(name, tuple(value.shape), 0, value.detach().reshape(-1))

    @property
    def bytes(self) -> int:
        """Return the size of the numbers."""
        return self.values.numel() * self.values.element_size()

    @property
    def is_whole(self) -> bool:
        """Return whether nothing of the tensor is missing."""
        return self.values.numel() == math.prod(self.shape)

    def cut(self, size: int) -> Iterator[TensorPiece]:
        """Yield the piece in runs of at most so many numbers."""
        for start in range(0, max(1, self.values.numel()), size):
            yield TensorPiece(self.name, self.shape, self.at + start, self.values[start : start + size])


class Tensors(Mapping[str, Tensor]):
    """Tensors by name, of which parts can be had alone."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""

    @abstractmethod
    def part(self, name: str, at: int, size: int) -> Tensor:
        """Return `size` numbers of a tensor from `at` on, flat, on the CPU."""

    def __getitem__(self, name: str) -> Tensor:
        """Return a whole tensor."""
        shape = self.shape(name)
        return self.part(name, 0, math.prod(shape)).view(shape)


@dataclass(frozen=True, slots=True)
class TensorRun:
    """Where numbers of a tensor stand: `size` of them from `at` on, in a file from a byte on."""

    file: str
    byte: int
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in files."""

    dtype: str
    shape: tuple[int, ...]
    runs: list[TensorRun]

    @property
    def is_whole(self) -> bool:
        """Return whether runs hold every number once."""
        ends = [0]
        for run in sorted(self.runs, key=lambda run: run.at):
            if run.at != ends[-1]:
                return False
            ends.append(run.at + run.size)
        return ends[-1] == math.prod(self.shape)

    def as_json(self, files: Sequence[str]) -> list[Any]:
        """Return the tensor as a manifest holds it, with files by number."""
        return [self.dtype, self.shape, [[files.index(run.file), run.byte, run.at, run.size] for run in self.runs]]

    @classmethod
    def of_json(cls, value: Sequence[Any], files: Sequence[str]) -> Stored:
        """Return a tensor from what a manifest holds."""
        dtype, shape, runs = value
        return cls(dtype, tuple(shape), [TensorRun(files[file], byte, at, size) for file, byte, at, size in runs])


class Saved(Tensors):
    """Tensors in files of a storage, read when they are asked for."""

    def __init__(self, storage: Storage, stored: Mapping[str, Stored]) -> None:
        self.storage, self.stored = storage, stored
        self.files: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self.stored)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.stored[name].shape

    def part(self, name: str, at: int, size: int) -> Tensor:
        """Return `size` numbers of a tensor from `at` on, flat.

        Raises:
            CheckpointError: files lack some of them.
        """
        stored = self.stored[name]
        found, filled = torch.empty(size, dtype=DTYPES[stored.dtype]), 0
        for run in stored.runs:
            first, end = max(at, run.at), min(at + size, run.at + run.size)
            if first < end:
                width = found.element_size()
                self._fill(found[first - at : end - at], run.file, run.byte + (first - run.at) * width)
                filled += end - first
        if filled != size:
            raise CheckpointError(f"{self.storage.uri}: {name}: {filled} of {size} numbers from {at} on are there")
        return found

    def _fill(self, target: Tensor, file: str, byte: int) -> None:
        """Read numbers from a byte of a file on into a tensor."""
        if file not in self.files:
            self.files[file] = self.storage.open(file)
        view = memoryview(as_bytes(target))
        self.files[file].seek(byte)
        done = 0
        while done < len(view):
            with self.storage.telling(file):
                count = self.files[file].readinto(view[done : done + CHUNK_BYTES])
            if not count:
                raise CheckpointError(f"{self.storage.uri_of(file)}: ends before byte {byte + len(view)}")
            done += count


def as_bytes(values: Tensor) -> Any:
    """Return the memory of a flat tensor on the CPU as an array of bytes."""
    return values.view(torch.uint8).numpy()


def shared_out(pieces: Iterable[TensorPiece], limit: int = SHARD_BYTES) -> list[list[TensorPiece]]:
    """Return pieces in groups of at most `limit` bytes; a piece that is larger is cut."""
    groups: list[list[TensorPiece]] = []
    size = limit + 1
    for whole in pieces:
        for piece in whole.cut(max(1, limit // whole.values.element_size())):
            if size + piece.bytes > limit:
                groups.append([])
                size = 0
            groups[-1].append(piece)
            size += piece.bytes
    return groups


def write_shard(
    storage: Storage, name: str, pieces: Sequence[TensorPiece], wrote: Wrote = lambda _: None
) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Write a file of safetensors; return what a manifest says of it, and where tensors stand in it.

    Nothing is held twice: bytes go from the pieces, which are on the CPU, to the file.
    """
    # Numbers of many bytes first: then all are where their size divides their place.
    pieces = sorted(pieces, key=lambda piece: -piece.values.element_size())
    head, stored, byte = _head(name, pieces)
    digests = []

    def fill(stream: IO[bytes]) -> None:
        digests.append(hashlib.sha256(head))
        stream.write(head)
        for piece in pieces:
            view = memoryview(as_bytes(piece.values))
            for start in range(0, len(view), CHUNK_BYTES):
                chunk = view[start : start + CHUNK_BYTES]
                digests[-1].update(chunk)
                stream.write(chunk)
                wrote(len(chunk))

    storage.write_with(name, fill)
    return {"name": name, "bytes": byte, "sha256": digests[-1].hexdigest()}, stored


def _head(file: str, pieces: Sequence[TensorPiece]) -> tuple[bytes, dict[str, Stored], int]:
    """Return the first bytes of a file, where tensors will stand in it, and its size."""
    table, byte = {}, 0
    for piece in pieces:
        key = piece.name if piece.is_whole else f"{piece.name}[{piece.at}:{piece.at + piece.values.numel()}]"
        shape = piece.shape if piece.is_whole else piece.values.shape
        table[key] = {"dtype": NAMES[piece.values.dtype], "shape": shape, "data_offsets": [byte, byte + piece.bytes]}
        byte += piece.bytes
    text = json_text(table).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    stored: dict[str, Stored] = {}
    for piece, entry in zip(pieces, table.values(), strict=True):
        found = stored.setdefault(piece.name, Stored(str(entry["dtype"]), piece.shape, []))
        begin: int = entry["data_offsets"][0]  # type: ignore[assignment]
        found.runs.append(TensorRun(file, len(head) + begin, piece.at, piece.values.numel()))
    return head, stored, len(head) + byte


def joined(parts: Iterable[Mapping[str, Stored]]) -> dict[str, Stored]:
    """Return the tensors of several files, which may lack some of their numbers."""
    found: dict[str, Stored] = {}
    for part in parts:
        for name, stored in part.items():
            found.setdefault(name, Stored(stored.dtype, stored.shape, [])).runs.extend(stored.runs)
    return found


def merged(parts: Iterable[Mapping[str, Stored]]) -> dict[str, Stored]:
    """Return the tensors of several files.

    Raises:
        CheckpointError: of a tensor some numbers are missing, or there twice.
    """
    found = joined(parts)
    for name, stored in found.items():
        if not stored.is_whole:
            raise CheckpointError(f"{name}: ranks wrote runs {[(r.at, r.size) for r in stored.runs]} of {stored.shape}")
    return found


def of_file(storage: Storage, name: str) -> dict[str, Stored]:
    """Return the tensors of one file of safetensors, each whole."""
    with storage.open(name) as stream:
        size = int.from_bytes(stream.read(8), "little")
        table = json.loads(stream.read(size))
    table.pop("__metadata__", None)
    return {
        key: Stored(
            entry["dtype"],
            tuple(entry["shape"]),
            [TensorRun(name, 8 + size + entry["data_offsets"][0], 0, math.prod(entry["shape"]))],
        )
        for key, entry in table.items()
    }
