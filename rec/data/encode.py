"""Texts and pictures of a shard to columns of numbers: decoded once, written once, not done again when a job goes on.

An encoded shard is a Parquet file with, per row: text_present, image_present, and where asked for tokens, text
(vector), image (vector), pixels and thumbnail. What was wrong with which row stands in the file's metadata.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rec.data import images
from rec.data.config import ImageEncodingConfig, TextEncodingConfig
from rec.data.encoders import Hashing, RawImages, TextEncoder, Tfidf, Tokens, TransformerEncoder, VisionEncoder
from rec.data.schema import EntityTable
from rec.data.tables import Kind, Piece, read
from rec.json_text import json_text
from rec.storage import Storage

BAD, NOTES, MADE_FROM = b"rec.bad", b"rec.notes", b"rec.made_from"
THUMBNAIL_QUALITY = 80
ROW_GROUP_BYTES = 4 << 20
ROWS_AT_ONCE = 256
"""Rows of pictures that are held at once."""
ID = "id"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How texts and pictures are encoded; the same for every shard."""

    text: TextEncodingConfig
    image: ImageEncodingConfig | None
    tokenizer: str = ""
    """JSON of the tokenizers library."""
    tfidf: Tfidf | None = None
    batch_size: int = 32
    threads: int = 1

    @property
    def padding(self) -> int:
        """The token of texts that are not there."""
        return Tokens(self.tokenizer, self.text.max_tokens).pad if self.tokenizer else 0

    def text_encoder(self, device: str = "cpu") -> TextEncoder | None:
        """Return what makes vectors of texts, loaded on a device; None where nothing does."""
        encoder: Tfidf | Hashing | TransformerEncoder | None = self.tfidf
        if self.text.encoder == "hashing":
            encoder = Hashing(self.text.width)
        elif encoder is None and self.text.encoder:
            config = self.text
            encoder = TransformerEncoder(config.encoder, config.pooling, config.max_tokens, self.threads, device)
        return None if encoder is None else TextEncoder(encoder, self.text.max_characters, self.batch_size)

    def fingerprint(self) -> str:
        """Return what tells this recipe from others."""
        parts: list[bytes] = [repr((self.text, self.image)).encode(), self.tokenizer.encode()]
        if self.tfidf is not None:
            parts += self.tfidf.identity()
        return hashlib.sha256(b"\0".join(parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class EncodeTask:
    """One shard, and where its columns go."""

    shard: Piece
    table: EntityTable
    root: str
    name: str
    made_from: str
    """Changes when the shard or the recipe does."""

    @property
    def text(self) -> tuple[str, ...]:
        """The columns that are joined to one text."""
        return self.table.text

    @property
    def image(self) -> str | None:
        """The column of pictures."""
        return self.table.image


@dataclass(slots=True)
class EncodedShard:
    """What was seen in a shard."""

    rows: int = 0
    pictures: int = 0
    """Rows that name or hold a picture."""
    bad: list[tuple[str, str, str]] = field(default_factory=list)
    """(id, column, reason)."""
    notes: Counter[str] = field(default_factory=Counter)
    reused: bool = False
    """Whether the shard had been encoded before."""


class Encoders:
    """One actor's encoders: loaded once, then called with shard after shard."""

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        self.recipe = recipe
        text, image, threads = recipe.text, recipe.image, recipe.threads
        self.tokens = Tokens(recipe.tokenizer, text.max_tokens) if recipe.tokenizer else None
        made = recipe.text_encoder(device)
        self.text = None if made is None else made.encoder
        self.image: RawImages | VisionEncoder | None = None
        if image is not None and image.encoder:
            self.image = RawImages() if image.encoder == "raw" else VisionEncoder(image.encoder, threads, device)
        self.decoders = ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode")

    def __call__(self, task: EncodeTask) -> EncodedShard:
        """Encode a shard, unless that was done before, and return what was seen in it."""
        storage = Storage(task.root)
        if (before := _found_before(storage, task)) is not None:
            return before
        found = EncodedShard()
        writer = ShardWriter(storage, task)
        for rows, pictures in self._ahead(task):
            writer.write(self._encode(rows, pictures, task, found))
        writer.finish(found)
        return found

    def _ahead(self, task: EncodeTask) -> Iterator[tuple[dict[str, list[Any]], list[Future[Any]]]]:
        """Yield batches of rows with pictures that are being decoded, one batch ahead."""
        held: tuple[dict[str, list[Any]], list[Future[Any]]] | None = None
        for rows in _batches(task, self.recipe.batch_size):
            values = rows[task.image] if task.image else []
            pictures = [self.decoders.submit(self._decode, value, task.shard.folder) for value in values]
            if held is not None:
                yield held
            held = rows, pictures
        if held is not None:
            yield held

    def _decode(self, value: Any, folder: str) -> tuple[dict[str, Any], str] | str | None:
        """Return a picture's forms and a note, what is wrong with it, or None where there is none."""
        config = self.recipe.image
        if value is None or value == "" or value != value or config is None:
            return None
        size = max(config.size if config.pixels else 0, self.image.size if self.image else 0, config.thumbnail)
        try:
            decoded = images.decode(images.read_image(value, folder), size, config.max_pixels)
        except images.BadImage as error:
            return str(error)
        forms: dict[str, Any] = {}
        if config.pixels:
            forms["pixels"] = images.square(decoded.image, config.size)
        if self.image is not None:
            same = config.pixels and config.size == self.image.size
            forms["image"] = forms["pixels"] if same else images.square(decoded.image, self.image.size)
        if config.thumbnail:
            decoded.image.thumbnail((config.thumbnail, config.thumbnail), Image.Resampling.BILINEAR)
            stream = io.BytesIO()
            decoded.image.save(stream, "JPEG", quality=THUMBNAIL_QUALITY)
            forms["thumbnail"] = stream.getvalue()
        return forms, decoded.note

    def _encode(
        self, rows: dict[str, list[Any]], pictures: list[Future[Any]], task: EncodeTask, found: EncodedShard
    ) -> pa.Table:
        ids = [str(value) for value in rows[ID]]
        found.rows += len(ids)
        texts = [self._text(rows, task.text, number, found) for number in range(len(ids))]
        columns: dict[str, pa.Array] = {"text_present": pa.array([bool(text) for text in texts])}
        if self.tokens is not None:
            tokens_NL = self.tokens.encode(texts)
            tokens_NL[[not text for text in texts]] = self.tokens.pad
            columns["tokens"] = fixed(tokens_NL)
        if isinstance(self.text, Tfidf) and self.text.note and any(texts):
            found.notes[self.text.note] += sum(map(bool, texts))
        if self.text is not None:
            columns["text"] = fixed(_masked(self.text.encode(texts), [bool(text) for text in texts]))
        if self.recipe.image is not None and task.image is not None:
            columns |= self._pictures(ids, pictures, task, found)
        return pa.table(columns)

    def _text(self, rows: dict[str, list[Any]], names: Sequence[str], number: int, found: EncodedShard) -> str:
        given = [rows[name][number] for name in names]
        parts = [str(value).strip() for value in given if value is not None and value == value]
        text = " ".join(part for part in parts if part)
        if len(text) > self.recipe.text.max_characters:
            found.notes[f"text cut at {self.recipe.text.max_characters} characters"] += 1
            text = text[: self.recipe.text.max_characters]
        if not text and names:
            found.notes["text empty"] += 1
        return text

    def _pictures(
        self, ids: list[str], pictures: list[Future[Any]], task: EncodeTask, found: EncodedShard
    ) -> dict[str, pa.Array]:
        config = self.recipe.image
        assert config is not None
        decoded: list[dict[str, Any] | None] = [None] * len(ids)
        for number, future in enumerate(pictures):
            result = future.result()
            found.pictures += result is not None
            if isinstance(result, str):
                found.bad.append((ids[number], str(task.image), result))
            elif result is not None:
                decoded[number], note = result
                if note:
                    found.notes[note] += 1
        present = [forms is not None for forms in decoded]
        columns: dict[str, pa.Array] = {"image_present": pa.array(present)}
        if config.pixels:
            columns["pixels"] = fixed(_stacked(decoded, "pixels", config.size))
        if self.image is not None:
            pixels = _stacked(decoded, "image", self.image.size)
            columns["image"] = fixed(_masked(self.image.encode(pixels), present))
        if config.thumbnail:
            columns["thumbnail"] = pa.array([f and f["thumbnail"] for f in decoded], pa.binary())
        return columns


class ShardWriter:
    """Writes one encoded shard batch by batch; the file appears when it is whole."""

    def __init__(self, storage: Storage, task: EncodeTask) -> None:
        self.storage, self.task = storage, task
        self.stream = io.BytesIO()
        self.writer: pq.ParquetWriter | None = None
        self.held: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        """Add rows; small batches share a row group."""
        self.held.append(table)
        if sum(part.nbytes for part in self.held) >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self.held:
            return
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.stream, self.held[0].schema, compression="zstd", compression_level=1)
        self.writer.write_table(pa.concat_tables(self.held))
        self.held = []

    def finish(self, found: EncodedShard) -> None:
        """Move the file into place."""
        self._flush()
        assert self.writer is not None, "a shard has at least one row"
        facts = {"rows": found.rows, "pictures": found.pictures, "notes": found.notes}
        self.writer.add_key_value_metadata(
            {MADE_FROM: self.task.made_from.encode(), BAD: json_text(found.bad), NOTES: json_text(facts)}
        )
        self.writer.close()
        self.storage.write_with(self.task.name, lambda stream: stream.write(self.stream.getbuffer()))


def _found_before(storage: Storage, task: EncodeTask) -> EncodedShard | None:
    """Return what was seen in a shard that has been encoded from the same rows by the same recipe."""
    if not storage.exists(task.name):
        return None
    with storage.open(task.name) as file:
        metadata = pq.ParquetFile(file).metadata.metadata or {}
    if metadata.get(MADE_FROM, b"").decode() != task.made_from:
        return None
    facts = json.loads(metadata[NOTES])
    bad = [(row[0], row[1], row[2]) for row in json.loads(metadata[BAD])]
    return EncodedShard(facts["rows"], facts["pictures"], bad, Counter(facts["notes"]), reused=True)


def _batches(task: EncodeTask, size: int) -> Iterator[dict[str, list[Any]]]:
    """Yield a shard's rows as lists per column, `size` rows at a time."""
    wanted = {name: (name, Kind.ANY) for name in (*task.text, *([task.image] if task.image else []))}
    wanted[ID] = (task.table.id, Kind.ID)
    held: pa.Table | None = None
    parts = read(task.shard, wanted, task.table.table.format, rows_at_once=ROWS_AT_ONCE)
    for table in itertools.chain(parts, [None]):
        if table is not None:
            held = table if held is None else pa.concat_tables([held, table])
        while held is not None and (len(held) >= size or (table is None and len(held))):
            yield {name: held[name].slice(0, size).to_pylist() for name in wanted}
            held = held.slice(size)


def fixed(array: np.ndarray) -> pa.Array:
    """Return an array as a column, a list of one length per row."""
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])


def _masked(vector_NM: np.ndarray, present: Sequence[bool]) -> np.ndarray:
    masked: np.ndarray = np.where(np.array(present)[:, None], vector_NM, 0).astype(np.float32)
    return masked


def _stacked(decoded: Sequence[dict[str, Any] | None], form: str, size: int) -> np.ndarray:
    empty = np.zeros((size, size, 3), dtype=np.uint8)
    return np.stack([empty if forms is None else forms[form] for forms in decoded])
