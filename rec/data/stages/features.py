"""What is known of users and items as numbers: K texts, encoded texts and pictures, attributes, tags, classes.

Everything that is fitted (scales, values of attributes, tokenizer, tfidf) is fitted on users and items of training
alone; the K texts of items are not: they are features, encoded over the whole catalogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rec.data.attributes import Attributes
from rec.data.encode import Encoders, EncodeTask, Found, Recipe
from rec.data.encoders import (
    Hashing,
    Tfidf,
    TransformerEncoder,
    learn_byte_tokenizer,
    learn_tokenizer,
    tokenizer_json,
)
from rec.data.items import as_text
from rec.data.joined import class_codes, tags_table, write_joined
from rec.data.runner import Actors, Runner
from rec.data.sources.metadata import FIELDS, named
from rec.data.stages.entities import Side
from rec.data.texts import write_texts
from rec.data.writing import WORK, Draft
from rec.errors import DataError
from rec.json_text import json_text
from rec.keys_data import EncodeConfig, TextConfig, TextEncodingConfig
from rec.progress import Progress
from rec.sections import counted
from rec.seeds import generator
from rec.storage import Storage

FITTED_TEXTS = 200_000
"""Texts that a tokenizer or tfidf is fitted on at most."""
LONGEST_WORD = 100
ITEMS_AT_ONCE = 4096
"""Items whose vectors are written at once."""
ENCODED = f"{WORK}/encoded"
LEARNED = {"local": learn_tokenizer, "bytes": learn_byte_tokenizer}
"""Tokenizers that are learned from texts."""
SAID = 10
"""Bad rows that are told one by one."""
Say = Callable[[str], None]


def write_item_texts(draft: Draft, items: pd.DataFrame, config: TextConfig, runner: Runner, say: Say) -> pd.DataFrame:
    """Write the vectors of K texts per item; return the items with a column per text, null where there is none.

    A modality that is a column of the items is taken as it is; others are written by template from what is known. The
    vector of a text that an item does not have is 0, which models take as absent. Its modality's name stands in for it
    where TF-IDF is fitted alone, so that other vectors do not depend on it.
    """
    names = config.modalities
    with Progress(f"prepare: write texts of {counted(len(items), 'item')}"):
        frame = _with_texts(items, names)
    there_IK = frame[list(names)].to_numpy() != ""
    for name, there_I in zip(names, there_IK.T, strict=True):
        _tell_unknown(name, int((~there_I).sum()), len(frame), say)
    of = f"{counted(len(frame), 'item')} x {len(names)}"
    say(f"encoding {counted(there_IK.size, 'text')} ({of}) with {config.encoder}")
    notes = dict[str, None]()
    for file, texts, known_IK in (
        ("text", _each, there_IK),
        ("text_concatenated", _joined, there_IK.any(1)[:, None]),
    ):
        if config.encoder == "tfidf":
            tfidf, vectors = learned(texts(frame, names), config.width)
            notes |= {tfidf.note: None} if tfidf.note else {}
        else:
            vectors = encoded(texts(frame, names), config, runner)
        _write_vectors(draft, file, vectors, known_IK)
        del vectors  # before the next ones are made
    for note in notes:
        say(f"items: {note}")
    frame[list(names)] = frame[list(names)].where(there_IK, None)
    return frame


def _each(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the texts of all items, the name of its modality for one that is not there."""
    rows = frame[list(names)].to_numpy()
    return [text or name for row in rows for text, name in zip(row, names, strict=True)]


def _joined(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the texts of each item as one."""
    return [" ".join(text for text in row if text) for row in frame[list(names)].to_numpy()]


def _write_vectors(draft: Draft, name: str, vectors: np.ndarray, known_IK: np.ndarray) -> None:
    """Write the vectors of K texts per item as (I + 1, K, M), 0 where there is no text; row 0 is padding."""
    items, texts = known_IK.shape
    rows = vectors.reshape(items, texts, -1)
    shape = (items + 1, *rows.shape[1:])

    def fill(stream: IO[bytes]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(np.zeros(shape[1:], np.float32).tobytes())
        for start in range(0, items, ITEMS_AT_ONCE):
            end = start + ITEMS_AT_ONCE
            part = rows[start:end] * known_IK[start:end, :, None]
            stream.write(part.astype(np.float32, copy=False).tobytes())

    draft.file(f"{name}.npy", fill)


def _with_texts(items: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the items with a column per text, "" where there is none."""
    frame = items.copy()
    written = tuple(name for name in names if name not in frame)
    for name in set(names) - set(written):
        text = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
        frame[name] = text.where(text.str.strip() != "", "")
    if written:
        films = named(as_text(items))[list(FIELDS)].to_numpy()
        texts = [write_texts(dict(zip(FIELDS, film, strict=True)), written) for film in films]
        frame[list(written)] = texts
    return frame


def learned(texts: list[str], width: int) -> tuple[Tfidf, np.ndarray]:
    """Return TF-IDF that was fitted on some texts, and their vectors."""
    with Progress(f"prepare: tfidf learns from {counted(len(texts), 'text')} (words, then their decomposition)"):
        return Tfidf.learned(texts, width)


def _tell_unknown(name: str, unknown: int, items: int, say: Say) -> None:
    """Say of how many items nothing is known that a text could tell."""
    if unknown:
        advice = "; leave it out of data.text.modalities" if unknown == items else ""
        say(f"items: text {name!r}: nothing is known of {unknown:,} of {items:,}, which have no such text{advice}")


def encoded(texts: list[str], config: TextConfig, runner: Runner) -> np.ndarray:
    """Return the texts' vectors under a transformers model, batch by batch."""
    batches = [texts[i : i + config.batch_size] for i in range(0, len(texts), config.batch_size)]
    make = partial(_text_encoder, config)
    return np.concatenate(runner.map_actors(make, batches, "prepare: encode", Actors(config.actors)))


def _text_encoder(config: TextConfig) -> Callable[[list[str]], np.ndarray]:
    if config.encoder == "hashing":
        return Hashing(config.width).encode
    return TransformerEncoder(config.encoder, config.pooling, config.max_tokens).encode


def write_encoded(
    draft: Draft,
    sides: Mapping[str, Side],
    trained: Mapping[str, np.ndarray],
    config: EncodeConfig,
    runner: Runner,
    say: Say,
) -> dict[str, Any]:
    """Write texts, pictures and attributes of users and items as numbers; return what was seen on the way.

    Encoded shards are kept until the data set is whole: a job that was stopped encodes only what is missing.

    Args:
        draft: The data set in the making.
        sides: Users and items.
        trained: Places, from 0, of those of each that training names.
        config: How.
        runner: What runs the parts.
        say: Told what was seen.

    Raises:
        DataError: too many pictures are bad, or there is no text to learn from.
    """
    if not any(side.table and side.table.text for side in sides.values()):
        nothing = config.text.model_copy(update={"encoder": "", "tokenizer": ""})
        config = config.model_copy(update={"text": nothing})
    longest = config.text.max_characters
    with Progress("prepare: collect texts to learn from"):
        texts = [text for name, side in sides.items() for text in _texts(side, trained[name], longest)]
    recipe = recipe_of(config, texts, any(side.table and side.table.image for side in sides.values()))
    found = _encode(recipe, config, draft.root, sides, runner)
    report = _report(found, say)
    for name, side in sides.items():
        _refuse_bad(name, side, found[name], report[f"{name}s"], config, draft.root)
    for name, side in sides.items():
        frame = side.known
        with Progress(f"prepare: join what is encoded of {name}s"):
            attributes = Attributes.fit(frame.iloc[trained[name]], side.table.attributes if side.table else ())
            write_joined(draft, side, frame, attributes, recipe)
        draft.note(f"{name}_attribute_names", attributes.to_json())
    if recipe.tokenizer:
        draft.note("tokenizer", recipe.tokenizer)
    return report


def write_tags(draft: Draft, users: Side, items: Side) -> None:
    """Write what users avoid and items contain, and the items' classes."""
    frames = [(side.known, side.table.tags if side.table else None) for side in (users, items)]
    tags = tags_table(frames[0][0], frames[0][1], frames[1][0], frames[1][1])
    draft.note("tag_names", json_text(tags.names))
    draft.array("user_avoid", tags.avoid_UT)
    draft.array("item_contains", tags.contains_IT)
    group = items.table.group if items.table else None
    draft.array("item_class", class_codes(frames[1][0][group] if group else None, len(items.ids)))


def _texts(side: Side, rows: np.ndarray, longest: int) -> list[str]:
    """Return the texts of some users or items, a sample where there are many."""
    if side.table is None or not side.table.text:
        return []
    if len(rows) > FITTED_TEXTS:
        rows = np.sort(generator(0, "fitted texts").choice(rows, FITTED_TEXTS, replace=False))
    frame = side.known
    some = [frame[name].iloc[rows] for name in side.table.text]
    columns = [column.astype(object).where(column.notna(), "").astype(str) for column in some]
    joined = [" ".join(parts)[:longest].split() for parts in zip(*columns, strict=True)]
    return learnable(joined)


def learnable(texts: Iterable[Sequence[str]]) -> list[str]:
    """Return what can be learned from texts, given as their words.

    Learning from a word of thousands of letters takes for ever, and no tokenizer knows such words later.
    """
    return [text for words in texts if (text := " ".join(word for word in words if len(word) <= LONGEST_WORD))]


def recipe_of(config: EncodeConfig, texts: list[str], pictures: bool, written: Sequence[str] = ()) -> Recipe:
    """Return how texts and pictures are encoded, learned from these texts where it is.

    A tokenizer of bytes, which is for writing, is learned from what is `written` in records, where there is any.

    Raises:
        DataError: there is no text to learn from.
    """
    text = config.text
    told = list(written) if written and text.tokenizer == "bytes" else texts
    if (text.encoder == "tfidf" and not texts) or (text.tokenizer in LEARNED and not told):
        raise DataError("data.encode.text: no text to learn from; name columns of text in the tables of users or items")
    tokenizer = text.tokenizer and _tokenizer(told, text)
    tfidf = learned(texts, text.width)[0] if text.encoder == "tfidf" else None
    image = config.image if pictures else None
    return Recipe(text, image, tokenizer, tfidf, config.batch_size, max(1, int(config.cpus_per_actor)))


def _tokenizer(texts: list[str], config: TextEncodingConfig) -> str:
    learn = LEARNED.get(config.tokenizer)
    if learn is None:
        return tokenizer_json(config.tokenizer)
    with Progress(f"prepare: learn a tokenizer from {counted(len(texts), 'text')}"):
        return learn(texts, config.vocabulary)


def _encode(
    recipe: Recipe, config: EncodeConfig, root: Storage, sides: Mapping[str, Side], runner: Runner
) -> dict[str, list[Found]]:
    fingerprint = recipe.fingerprint()
    tasks: dict[str, list[EncodeTask]] = {}
    for name, side in sides.items():
        table = side.table
        if table is None or not (table.text or table.image):
            tasks[name] = []
            continue
        side.encoded = [f"{ENCODED}/{name}-{n:06d}.parquet" for n in range(len(side.pieces))]
        tasks[name] = [
            EncodeTask(piece, table, root.uri_of(""), file, f"{fingerprint} {table.text} {table.image} {_told(piece)}")
            for piece, file in zip(side.pieces, side.encoded, strict=True)
        ]
    actors = Actors(config.actors, config.cpus_per_actor, config.gpus_per_actor)
    every = [task for part in tasks.values() for task in part]
    found = iter(runner.map_actors(lambda: Encoders(recipe, actors.device), every, "prepare: encode", actors))
    return {name: [next(found) for _ in part] for name, part in tasks.items()}


def _told(piece: Any) -> str:
    return f"{piece.uri} {piece.member} {piece.first} {piece.rows} {piece.stamp}"


def _report(found: Mapping[str, list[Found]], say: Say) -> dict[str, Any]:
    """Return what encoding saw, and say it."""
    report: dict[str, Any] = {}
    for name, parts in found.items():
        notes: Counter[str] = sum((part.notes for part in parts), Counter())
        bad = [row for part in parts for row in part.bad]
        report[f"{name}s"] = {
            "rows": sum(part.rows for part in parts),
            "pictures": sum(part.pictures for part in parts),
            "bad": len(bad),
            "bad_rows": bad[:100],
            "notes": dict(notes),
        }
        reused = sum(part.reused for part in parts)
        if reused:
            say(f"{name}s: {reused} of {len(parts)} shards had been encoded before")
        for text, count in sorted(notes.items()):
            say(f"{counted(count, name)}: {text}")
        for row, column, reason in bad[:SAID]:
            say(f"{name}s: id {row!r}, column {column!r}: {reason}")
        if len(bad) > SAID:
            say(f"{name}s: {len(bad) - SAID:,} more bad rows; all in bad_{name}s.csv")
    return report


def _refuse_bad(
    name: str, side: Side, found: Sequence[Found], report: Mapping[str, Any], config: EncodeConfig, root: Storage
) -> None:
    """Write the list of bad pictures.

    Raises:
        DataError: they are too many.
    """
    bad = [row for part in found for row in part.bad]
    most = config.maximum_bad_share * max(report["pictures"], 1)
    file = f"bad_{name}s.csv"
    root.delete(file)
    if not bad:
        return
    root.write(file, pd.DataFrame(bad, columns=[name, "column", "reason"]).to_csv(index=False).encode())
    if len(bad) > most:
        row, column, reason = bad[0]
        where = side.table.table.name if side.table else name
        raise DataError(
            f"{where}: {len(bad):,} of {report['pictures']:,} pictures are bad, at most {config.maximum_bad_share:.1%} "
            f"may be (data.encode.maximum_bad_share); the first: id {row!r}, column {column!r}: {reason}; all in "
            f"{root.uri_of(file)}"
        )


def entity_table(side: Side, frame: pd.DataFrame, pictures: pa.ChunkedArray | None) -> pa.Table:
    """Return what people are shown of users or items, in the order of their indices."""
    table, first = side.table, side.first
    frame = frame.drop(columns=[name for name in ("image present", "image", side.name) if name in frame])
    if table is not None:
        frame = frame.drop(columns=[table.id] if table.id != "id" and table.id in frame else [])
        if table.title and table.title != "title":
            frame = frame.drop(columns=["title"], errors="ignore").rename(columns={table.title: "title"})
        if table.group and side.name == "user":
            frame = frame.assign(group=frame[table.group].astype(str))
        if table.tags and side.name == "user":
            frame = frame.drop(columns=[table.tags])
    frame.insert(0, side.name, np.arange(first, first + len(frame)))
    found = pa.Table.from_pandas(frame, preserve_index=False)
    return found if pictures is None else found.append_column("image", pictures)
