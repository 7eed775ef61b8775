"""Texts of events, and of the members of their entities, as numbers: in shards, so that memory does not grow with them.

text_NAME.npy             (E, D) float32 vectors of a text of every event, in the order of the records; zeros if empty
text_NAME_present.npy     (E,) bool
tokens_NAME.npy           (E, L) int32
ENTITY_text.npy           (V, D) float32 vectors of what describes each member; zeros if nothing does
ENTITY_text_present.npy   (V,) bool
ENTITY_tokens.npy         (V, L) int32
text_encoder.npy          uint8, what `rec.data.encoders.text_encoder_from` makes the same vectors with later
tokenizer.npy             uint8, JSON of the tokenizers library; of bytes, learned from the column `text` of the events

Titles of an event are joined by "; ". Whatever is learned is learned from events of training and from all that
describes members, which are known whatever happens. Encoded shards are kept until the data set is whole: a job that was
stopped encodes only what is missing. Letters: E events, V members, D width, L tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.data.config import EncodeConfig
from rec.data.encode import MADE_FROM, Recipe, fixed
from rec.data.encoders import Tokens
from rec.data.runner import Actors, Runner
from rec.data.stages.features import ENCODED, FITTED_TEXTS, LEARNED, learnable, recipe_of
from rec.data.writing import Draft
from rec.sections import counted
from rec.seeds import generator
from rec.storage import Storage

SEPARATOR = "; "
TEXT = "text"
"""The column that describes a member."""
VECTOR, PRESENT, TOKENS = "vector", "present", "tokens"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EventText:
    """A text of an event: the title of each member of a column."""

    column: str
    entity: str


@dataclass(frozen=True, slots=True)
class TextTask:
    """One shard of one text: of events, or of the members of an entity."""

    name: str
    number: int
    root: str
    """The folder of encoded shards."""
    records: str = ""
    """The folder of the data set in the making ..."""
    file: str = ""
    """... and its file of records."""
    rows: tuple[int, int] = (0, 0)
    parts: tuple[EventText, ...] = ()
    texts: tuple[str, ...] = ()
    """Of members, in the place of records."""

    @property
    def shard(self) -> str:
        """The file it writes."""
        return f"{self.name}-{self.number:06d}.parquet"


@dataclass(frozen=True, slots=True)
class TextShard:
    """What was seen in a shard."""

    rows: int
    present: int
    cut: int
    reused: bool


class TextShards:
    """One actor's encoder: loaded once, then called with shard after shard."""

    def __init__(self, recipe: Recipe, titles: Mapping[str, Sequence[str]], device: str = "cpu") -> None:
        self.titles, self.longest = titles, recipe.text.max_characters
        self.fingerprint = recipe.fingerprint()
        self.encoder = recipe.text_encoder(device)
        self.tokens = Tokens(recipe.tokenizer, recipe.text.max_tokens) if recipe.tokenizer else None

    def __call__(self, task: TextTask) -> TextShard:
        """Encode a shard, unless that was done before, and return what was seen."""
        texts = list(task.texts) or self._of_records(task)
        made_from = hashlib.sha256("\0".join([self.fingerprint, *texts]).encode("utf-8", "surrogatepass")).hexdigest()
        present = np.array([bool(text.strip()) for text in texts], bool)
        cut = sum(len(text) > self.longest for text in texts)
        storage = Storage(task.root)
        reused = _made_from(storage, task.shard) == made_from
        if not reused:
            columns: dict[str, pa.Array] = {PRESENT: pa.array(present)}
            if self.encoder is not None:
                columns[VECTOR] = fixed(self.encoder.encode(texts))
            if self.tokens is not None:
                tokens_NL = self.tokens.encode([text[: self.longest] for text in texts])
                tokens_NL[~present] = self.tokens.pad
                columns[TOKENS] = fixed(tokens_NL)
            table = pa.table(columns).replace_schema_metadata({MADE_FROM: made_from.encode()})
            storage.write_with(
                task.shard, lambda stream: pq.write_table(table, stream, compression="zstd", compression_level=1)
            )
        return TextShard(len(texts), int(present.sum()), cut, reused)

    def _of_records(self, task: TextTask) -> list[str]:
        names = list(dict.fromkeys(part.column for part in task.parts))
        with Storage(task.records).open(task.file) as file:
            table = pq.read_table(file, columns=names)
        return event_texts(table.slice(task.rows[0], task.rows[1] - task.rows[0]), task.parts, self.titles)


def event_texts(table: pa.Table, parts: Sequence[EventText], titles: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a text per row: the titles of its members, in the order of the parts."""
    written: list[list[str]] = [[] for _ in range(len(table))]
    for part in parts:
        title = titles[part.entity]
        for words, members in zip(written, table[part.column].to_pylist(), strict=True):
            some = members if isinstance(members, list) else [] if members is None else [members]
            words.extend(title[member] for member in some)
    return [SEPARATOR.join(words) for words in written]


def write_event_texts(
    draft: Draft,
    records: pa.Table,
    files: Sequence[tuple[str, int]],
    trained: np.ndarray,
    texts: Mapping[str, tuple[EventText, ...]],
    entities: Mapping[str, pa.Table],
    titles: Mapping[str, Sequence[str]],
    config: EncodeConfig,
    runner: Runner,
    say: Say,
) -> dict[str, Any]:
    """Write texts of events and of members as numbers; return what was seen on the way.

    Args:
        draft: The data set in the making, its records written.
        records: As written.
        files: Of the records, and their rows.
        trained: Places of the records of training.
        texts: What makes each text of an event.
        entities: Tables of members; those with a column `text` are described.
        titles: Of the entities that texts are made of.
        config: How.
        runner: What runs the parts.
        say: Told what was seen.

    Raises:
        DataError: there is no text to learn from.
    """
    described = {name: _descriptions(table) for name, table in entities.items() if TEXT in table.column_names}
    learned = _learned(records, trained, texts, described, titles, config)
    recipe = recipe_of(config, learned, pictures=False, written=_written(records, trained, config))
    root = draft.root.below(ENCODED)
    tasks: dict[str, list[TextTask]] = {}
    for name, parts in texts.items():
        tasks[f"text_{name}"] = _record_tasks(f"text_{name}", draft, root, files, parts, config.shard_items)
    for name, given in described.items():
        starts = range(0, len(given), config.shard_items)
        some = (tuple(given[at : at + config.shard_items]) for at in starts)
        tasks[f"{name}_text"] = [
            TextTask(f"{name}_text", n, root.uri_of(""), texts=part) for n, part in enumerate(some)
        ]
    actors = Actors(config.actors, config.cpus_per_actor, config.gpus_per_actor)
    every = [task for part in tasks.values() for task in part]
    make = partial(TextShards, recipe, titles, actors.device)
    found = iter(runner.map_actors(make, every, "prepare: encode texts", actors))
    report = {}
    for name, part in tasks.items():
        seen = [next(found) for _ in part]
        report[name] = _told(name, seen, say)
        _write_joined(draft, root, name, [task.shard for task in part], sum(one.rows for one in seen))
    if recipe.tfidf is not None and recipe.tfidf.note:
        say(recipe.tfidf.note)
    if (encoder := recipe.text_encoder()) is not None:
        draft.array("text_encoder", encoder.to_table())
    if recipe.tokenizer:
        draft.note("tokenizer", recipe.tokenizer)
    return report


def _descriptions(table: pa.Table) -> list[str]:
    return [str(text or "").strip() for text in table[TEXT].to_pylist()]


def _learned(
    records: pa.Table,
    trained: np.ndarray,
    texts: Mapping[str, tuple[EventText, ...]],
    described: Mapping[str, Sequence[str]],
    titles: Mapping[str, Sequence[str]],
    config: EncodeConfig,
) -> list[str]:
    """Return the texts that are learned from, a sample of the events where there are many."""
    if config.text.tokenizer not in LEARNED and config.text.encoder != "tfidf":
        return []
    chosen = _sample(records, trained, FITTED_TEXTS // max(len(texts), 1))
    found: list[str] = [text for given in described.values() for text in given]
    for parts in texts.values():
        found += event_texts(chosen, parts, titles)
    return learnable(text[: config.text.max_characters].split() for text in found)


def _written(records: pa.Table, trained: np.ndarray, config: EncodeConfig) -> list[str]:
    """Return what is written in records of training themselves, a sample where there are many."""
    if TEXT not in records.column_names or not pa.types.is_string(records[TEXT].type):
        return []
    some = _sample(records.select([TEXT]), trained, FITTED_TEXTS)[TEXT].to_pylist()
    return learnable((text or "")[: config.text.max_characters].split() for text in some)


def _sample(records: pa.Table, places: np.ndarray, most: int) -> pa.Table:
    if len(places) > most:
        places = np.sort(generator(0, "fitted texts").choice(places, most, replace=False))
    return records.take(pa.array(places))


def _record_tasks(
    name: str, draft: Draft, root: Storage, files: Iterable[tuple[str, int]], parts: tuple[EventText, ...], size: int
) -> list[TextTask]:
    found: list[TextTask] = []
    for file, rows in files:
        for start in range(0, rows, size):
            stretch = (start, min(start + size, rows))
            records = draft.storage.uri_of("")
            found.append(TextTask(name, len(found), root.uri_of(""), records, file, stretch, parts))
    return found


def _told(name: str, seen: Sequence[TextShard], say: Say) -> dict[str, int]:
    """Return what was seen of one text in all, and say it."""
    told = {key: sum(getattr(one, key) for one in seen) for key in ("rows", "present", "cut")}
    words = [f"{counted(told['rows'], 'text')}, {told['rows'] - told['present']:,} of them empty"]
    if told["cut"]:
        words.append(f"{told['cut']:,} cut at data.encode.text.max_characters")
    if reused := sum(one.reused for one in seen):
        words.append(f"{reused:,} of {len(seen):,} shards had been encoded before")
    say(f"{name}: {'; '.join(words)}")
    return told


def _write_joined(draft: Draft, root: Storage, name: str, shards: Sequence[str], rows: int) -> None:
    """Write the tables of one text, shard by shard."""
    kind = {VECTOR: (np.dtype(np.float32), name), TOKENS: (np.dtype(np.int32), _tokens_name(name))}
    present = [np.zeros(0, bool)]
    with_columns: dict[str, int] = {}
    for shard in shards:
        with root.open(shard) as file:
            table = pq.read_table(file, columns=[PRESENT])
            schema = pq.read_schema(file)
        present.append(table[PRESENT].to_numpy())
        with_columns |= {field.name: field.type.list_size for field in schema if field.name in kind}
    draft.array(f"{name}_present", np.concatenate(present))
    for column, width in with_columns.items():
        dtype, file_name = kind[column]

        def fill(stream: IO[bytes], column: str = column, dtype: np.dtype[Any] = dtype, width: int = width) -> None:
            descr = np.lib.format.dtype_to_descr(dtype)
            header = {"descr": descr, "fortran_order": False, "shape": (rows, width)}
            np.lib.format.write_array_header_1_0(stream, header)
            for values in _column(root, shards, column):
                stream.write(np.ascontiguousarray(values, dtype).tobytes())

        draft.file(f"{file_name}.npy", fill)


def _tokens_name(name: str) -> str:
    return (
        f"tokens_{name.removeprefix('text_')}" if name.startswith("text_") else f"{name.removesuffix('_text')}_tokens"
    )


def _column(root: Storage, shards: Sequence[str], name: str) -> Iterator[np.ndarray]:
    """Yield a column shard by shard."""
    for shard in shards:
        with root.open(shard) as file:
            column = pq.read_table(file, columns=[name])[name]
        for chunk in column.chunks:
            yield chunk.flatten().to_numpy()


def _made_from(storage: Storage, shard: str) -> str:
    """Return what a shard was made from, "" where there is none."""
    if not storage.exists(shard):
        return ""
    with storage.open(shard) as file:
        metadata = pq.read_schema(file).metadata or {}
    return metadata.get(MADE_FROM, b"").decode()
