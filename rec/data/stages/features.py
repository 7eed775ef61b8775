"""What is known of users and items as numbers: encoded texts and pictures, attributes, tags, classes.

Everything that is fitted (scales, values of attributes, tokenizer, tfidf) is fitted on users and items of training
alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rec.data.attributes import Attributes
from rec.data.config import EncodeConfig, TextEncodingConfig
from rec.data.encode import EncodedShard, Encoders, EncodeTask, Recipe
from rec.data.encoders import learn_byte_tokenizer, learn_tokenizer, tokenizer_json
from rec.data.joined import class_codes, tags_table, write_joined
from rec.data.runner import Actors, Runner
from rec.data.stages.entities import Side
from rec.data.stages.text_vectors import learned
from rec.data.writing import WORK, Draft
from rec.errors import DataError
from rec.json_text import json_text
from rec.progress import Progress
from rec.sections import counted
from rec.seeds import generator
from rec.storage import Storage

FITTED_TEXTS = 200_000
"""Texts that a tokenizer or tfidf is fitted on at most."""
LONGEST_WORD = 100
ENCODED = f"{WORK}/encoded"
LEARNED = {"local": learn_tokenizer, "bytes": learn_byte_tokenizer}
"""Tokenizers that are learned from texts."""
SAID = 10
"""Bad rows that are told one by one."""
Say = Callable[[str], None]


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
) -> dict[str, list[EncodedShard]]:
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


def _report(found: Mapping[str, list[EncodedShard]], say: Say) -> dict[str, Any]:
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
    name: str, side: Side, found: Sequence[EncodedShard], report: Mapping[str, Any], config: EncodeConfig, root: Storage
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
