"""Users, items and relevant pairs to a prepared data set: scanned, split, encoded by shards, joined to tables.

Splits have a row per user: `history`, what is known of the user there, and `target`, what is relevant.

    train  nothing known          -> training pairs
    val    training pairs         -> validation pairs
    test   training, validation   -> test pairs

Cold users have no training pair, cold items are in none. Everything that is fitted (scales, values of attributes,
tokenizer, tfidf) is fitted on the users and items of training pairs alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rec.data import food
from rec.data.attributes import Attributes
from rec.data.encode import Encoders, EncodeTask, Found, Recipe
from rec.data.encoders import Tfidf, learn_tokenizer, tokenizer_json
from rec.data.joined import class_codes, tags_table, write_joined
from rec.data.prepared import FORMAT, MANIFEST, Prepared, write_array, write_table
from rec.data.runner import Actors, Runner, part_bounds
from rec.data.sources import multimodal
from rec.data.sources.tables import Shard, item_shards, read_shard, read_table, require, schema
from rec.data.split import SPLITS, Split, split_pairs
from rec.errors import DataError
from rec.keys import DataConfig
from rec.keys_pairs import PairsConfig
from rec.seeds import derive, generator
from rec.storage import Storage, absolute

FITTED_TEXTS = 200_000
"""Texts that a tokenizer or tfidf is fitted on at most."""
LONGEST_WORD = 100
ENCODED = "encoded"


@dataclass(frozen=True, slots=True)
class FoodTask:
    """One shard of generated users, pairs and foods."""

    config: Any
    root: str
    shard: int


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Reads what is small of a shard of items or users."""

    shard: Shard
    columns: tuple[str, ...]
    image: str | None


def prepare_pairs(config: DataConfig, runner: Runner, say: Callable[[str], None]) -> Prepared:
    """Return the data set made from `config.pairs`; see `rec.data.prepare.prepare`.

    Encoded shards are kept until the data set is whole: a job that was stopped encodes only what is missing.

    Raises:
        DataError: an input cannot be read, nothing is left of it, or too much of it is bad.
    """
    assert config.pairs is not None
    storage, root = Storage(config.root), absolute(config.root)
    source, synthetic = _as_tables(config.pairs, root, runner)
    columns = source.columns
    items = _scan(source.items or "", _item_columns(source), columns.image, source, runner, "prepare: read items")
    if source.users is not None:
        users = _scan(source.users, _user_columns(source), None, source, runner, "prepare: read users")
    pairs, dropped = _read_pairs(source)
    if source.users is None:
        users = Side([], pd.DataFrame({columns.user: sorted(pairs["user"].unique())}))
    dropped["item twice"] = items.keep_first(columns.item)
    dropped["user twice"] = users.keep_first(columns.user)
    if source.drop_without_image:
        dropped["item without picture"] = items.keep(items.frame["image present"].to_numpy(bool))
    coded = _codes(pairs, users, items, source, dropped)
    split = split_pairs(*coded, len(users.frame), len(items.frame), source, dropped)
    say(f"{config.root}: {len(coded[0]):,} relevant pairs, {len(users.frame):,} users, {len(items.frame):,} items")
    seen = split.train_users, split.train_items
    longest = source.text.max_characters
    texts = _texts(users, columns.user_text, seen[0], longest) + _texts(items, columns.item_text, seen[1], longest)
    recipe = _recipe(source, texts)
    found = _encode(recipe, source, root, users, items, runner)
    report = _report(found, items, say)
    _refuse_bad(found["items"], source, report, storage)
    for name in (MANIFEST, *SPLITS):
        storage.delete(name)
    user_attributes = Attributes.fit(users.frame.iloc[seen[0]], columns.user_attributes)
    item_attributes = Attributes.fit(items.frame.iloc[seen[1]], columns.item_attributes)
    write_joined(storage, "user", users, user_attributes, recipe)
    write_joined(storage, "item", items, item_attributes, recipe)
    tags = tags_table(users.frame, columns.avoid, items.frame, columns.contains)
    notes = {"tokenizer": recipe.tokenizer, "user_attribute_names": user_attributes.to_json()}
    notes["tag_names"] = json.dumps(tags.names)
    for name, text in notes.items():
        write_array(storage, name, np.frombuffer(text.encode(), dtype=np.uint8))
    write_array(storage, "user_avoid", tags.avoid_UT)
    write_array(storage, "item_contains", tags.contains_IT)
    write_array(storage, "item_class", class_codes(items.frame.get(columns.item_class or ""), len(items.frame)))
    splits = _write_rows(storage, split, config.shard_rows)
    _write_frames(storage, source, users, items, split)
    names = [name for files in splits.values() for name, _ in files]
    names += [n for n in storage.list() if n.endswith((".npy", ".parquet"))]
    storage.write_json(
        MANIFEST,
        {
            "format": FORMAT,
            "counts": {"interactions": len(split.user), "users": len(users.frame), "items": len(items.frame)},
            "dropped": {k: v for k, v in sorted(dropped.items()) if v},
            "encoded": report,
            "modalities": [],
            "synthetic_labels": synthetic,
            "splits": splits,
            "config": config.model_dump(mode="json"),
            "files": [storage.entry(name) for name in names],
        },
    )
    storage.delete(ENCODED)
    if kept := {k: v for k, v in sorted(dropped.items()) if v}:
        say(f"{config.root}: dropped {', '.join(f'{v:,} {k}' for k, v in kept.items())}")
    return Prepared.open(config.root)


class Side:
    """Users or items: their shards, what is small of them in memory, and which rows are kept."""

    def __init__(self, shards: Sequence[Shard], frame: pd.DataFrame) -> None:
        self.shards, self.frame = tuple(shards), frame
        self.encoded: list[str] = []
        self.kept = np.ones(len(frame), dtype=bool)

    def keep(self, good: np.ndarray) -> int:
        """Forget the rows of `frame` that are not good and return how many."""
        self.kept[np.flatnonzero(self.kept)[~good]] = False
        self.frame = self.frame[good].reset_index(drop=True)
        return int((~good).sum())

    def keep_first(self, column: str) -> int:
        """Forget rows whose id has been seen before, or is missing, and return how many."""
        ids = self.frame[column]
        return self.keep((ids.notna() & ~ids.duplicated()).to_numpy(bool))


def write_food(task: FoodTask) -> int:
    """Write one shard of generated users, their pairs, and foods; return the number of pairs."""
    storage, config, n = Storage(task.root), task.config, task.shard
    first, last = part_bounds(config.num_foods, config.shards, n)
    users, pairs = food.shard_rows(config, n)
    tables = {"users": users, "pairs": pairs, "items": food.food_rows(config, first, last)}
    for name, table in tables.items():
        if len(table):
            write_table(storage, f"raw/{name}/part-{n:05d}.parquet", table)
    return len(pairs)


def _as_tables(config: PairsConfig, root: str, runner: Runner) -> tuple[PairsConfig, bool]:
    """Return the config that reads tables, written first where they are generated, and whether labels are made up."""
    if config.kind == "table":
        return config, False
    if config.kind != "food":
        return multimodal.rewrite(config, root), config.kind == "recipes"
    storage, raw = Storage(root), f"{root.rstrip('/')}/raw"
    made_from = config.food.model_dump(mode="json")
    if not storage.exists("raw/food.json") or storage.read_json("raw/food.json") != made_from:
        storage.delete("raw")
        runner.map(write_food, [FoodTask(config.food, root, s) for s in range(config.food.shards)], "prepare: generate")
        storage.write_json("raw/food.json", made_from)
    paths = {"pairs": (f"{raw}/pairs",), "users": f"{raw}/users", "items": f"{raw}/items"}
    return config.model_copy(update={"kind": "table", "columns": multimodal.FOOD, **paths}), True


def _item_columns(source: PairsConfig) -> tuple[str, ...]:
    c = source.columns
    names = [c.item, c.title, c.item_class, c.contains, *c.item_attributes, *c.item_text]
    return tuple(dict.fromkeys(name for name in names if name))


def _user_columns(source: PairsConfig) -> tuple[str, ...]:
    c = source.columns
    names = [c.user, c.user_group, c.avoid, *c.user_attributes, *c.user_text]
    return tuple(dict.fromkeys(name for name in names if name))


def _scan(
    uri: str, columns: tuple[str, ...], image: str | None, source: PairsConfig, runner: Runner, title: str
) -> Side:
    known = schema(uri)
    require(known, [*columns, *([image] if image else [])], uri)
    extra = tuple(name for name in ("needs_image", "truth") if name in known.names)
    shards = item_shards(uri, source.shard_items)
    parts = runner.map(scan, [ScanTask(shard, columns + extra, image) for shard in shards], title)
    frame = pd.concat(parts, ignore_index=True)
    frame[columns[0]] = [None if v is None or v != v else str(v) for v in frame[columns[0]]]
    return Side(shards, frame)


def scan(task: ScanTask) -> pd.DataFrame:
    """Return a shard's columns but its pictures, and which rows have one."""
    parts = []
    names = [*task.columns, *([task.image] if task.image else [])]
    for table in read_shard(task.shard, names):
        frame = table.select(task.columns).to_pandas()
        if task.image:
            frame["image present"] = [bool(v) for v in table[task.image].to_pylist()]
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def _read_pairs(source: PairsConfig) -> tuple[pd.DataFrame, Counter[str]]:
    c = source.columns
    table = read_table(source.pairs)
    names = [c.user, c.item, *([c.relevance] if c.relevance else [])]
    require(table, names, ", ".join(source.pairs))
    frame = table.select(names).to_pandas()
    dropped: Counter[str] = Counter()

    def keep(good: Any, reason: str) -> None:
        nonlocal frame
        dropped[reason] += int((~good).sum())
        frame = frame[good]

    keep(frame[c.user].notna() & frame[c.item].notna(), "pair without user or item")
    if c.relevance:
        relevance = pd.to_numeric(frame[c.relevance], errors="coerce")
        keep(np.isfinite(relevance), f"pair without {c.relevance}")
        keep(pd.to_numeric(frame[c.relevance]) >= source.minimum_relevance, "pair below minimum_relevance")
    frame = pd.DataFrame({"user": frame[c.user].astype(str), "item": frame[c.item].astype(str)})
    keep(~frame.duplicated(), "pair twice")
    return frame, dropped


def _codes(
    pairs: pd.DataFrame, users: Side, items: Side, source: PairsConfig, dropped: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs as user indices from 0 and item indices from 1.

    Raises:
        DataError: nothing is left, or too many pairs name what is not in the tables.
    """
    c, total = source.columns, len(pairs)
    user = pd.Index(users.frame[c.user]).get_indexer(pairs["user"])
    item = pd.Index(items.frame[c.item]).get_indexer(pairs["item"])
    for name, code in (("user", user), ("item", item)):
        unknown = np.flatnonzero(code < 0)
        dropped[f"pair with unknown {name}"] += len(unknown)
        allowed = 1.0 if name == "item" and source.drop_without_image else source.maximum_bad_share
        if len(unknown) > allowed * total:
            first = pairs[name].iloc[unknown[0]]
            raise DataError(
                f"{', '.join(source.pairs)}: {len(unknown):,} of {total:,} pairs name no known {name}, such as "
                f"{first!r}; at most {source.maximum_bad_share:.1%} may (maximum_bad_share)"
            )
    known = (user >= 0) & (item >= 0)
    user, item = user[known], item[known]
    enough = np.bincount(user, minlength=1)[user] >= source.minimum_user_count
    dropped[f"pair of a user with fewer than {source.minimum_user_count}"] += int((~enough).sum())
    if not enough.any():
        raise DataError(f"{', '.join(source.pairs)}: no relevant pair is left of {total:,}")
    return user[enough], item[enough] + 1


def _texts(side: Side, names: Sequence[str], rows: np.ndarray, longest: int) -> list[str]:
    """Return the texts of some rows, a sample where there are many."""
    if len(rows) > FITTED_TEXTS:
        rows = np.sort(generator(0, "fitted texts").choice(rows, FITTED_TEXTS, replace=False))
    columns = [side.frame[name].iloc[rows].fillna("").astype(str) for name in names]
    joined = [" ".join(parts)[:longest].split() for parts in zip(*columns, strict=True)]
    # Learning from a word of thousands of letters takes for ever, and no tokenizer knows such words later.
    return [text for words in joined if (text := " ".join(word for word in words if len(word) <= LONGEST_WORD))]


def _recipe(source: PairsConfig, texts: list[str]) -> Recipe:
    text = source.text
    if not texts and (text.tokenizer == "local" or text.encoder == "tfidf"):
        raise DataError("data.pairs.columns: no text to learn from; name user_text or item_text")
    tokenizer = text.tokenizer and (
        learn_tokenizer(texts, text.vocabulary) if text.tokenizer == "local" else tokenizer_json(text.tokenizer)
    )
    tfidf = Tfidf(texts, text.width) if text.encoder == "tfidf" else None
    image = source.image if source.columns.image else None
    return Recipe(text, image, tokenizer, tfidf, source.batch_size, max(1, int(source.cpus_per_actor)))


def _encode(
    recipe: Recipe, source: PairsConfig, root: str, users: Side, items: Side, runner: Runner
) -> dict[str, list[Found]]:
    fingerprint, c = recipe.fingerprint(), source.columns
    sides = {"users": (users, c.user, c.user_text, None), "items": (items, c.item, c.item_text, c.image)}
    tasks: dict[str, list[EncodeTask]] = {}
    for name, (side, id_column, text, image) in sides.items():
        side.encoded = [f"{ENCODED}/{name}-{n:06d}.parquet" for n in range(len(side.shards))] if text or image else []
        tasks[name] = [
            EncodeTask(shard, id_column, text, image, root, file, f"{fingerprint} {text} {image} {shard}")
            for shard, file in zip(side.shards, side.encoded, strict=bool(side.encoded))
        ]
    actors = Actors(source.actors, source.cpus_per_actor, source.gpus_per_actor)
    every = [task for part in tasks.values() for task in part]
    found = runner.map_actors(lambda: Encoders(recipe), every, "prepare: encode", actors)
    return {"users": found[: len(tasks["users"])], "items": found[len(tasks["users"]) :]}


def _report(found: Mapping[str, list[Found]], items: Side, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what encoding saw, and say it."""
    report: dict[str, Any] = {}
    for name, parts in found.items():
        notes = sum((part.notes for part in parts), Counter())
        bad = [row for part in parts for row in part.bad]
        report[name] = {
            "rows": sum(part.rows for part in parts),
            "pictures": sum(part.pictures for part in parts),
            "bad": len(bad),
            "bad_rows": bad[:100],
            "notes": dict(notes),
        }
        reused = sum(part.reused for part in parts)
        if reused:
            say(f"{name}: {reused} of {len(parts)} shards had been encoded before")
        for text, count in sorted(notes.items()):
            say(f"{name}: {count:,} x {text}")
        for row, column, reason in bad[:10]:
            say(f"{name}: row {row!r}, column {column!r}: {reason}")
        if len(bad) > 10:
            say(f"{name}: {len(bad) - 10:,} more bad rows; all in bad_rows.csv")
    return report


def _refuse_bad(found: list[Found], source: PairsConfig, report: Mapping[str, Any], storage: Storage) -> None:
    """Write the list of bad pictures.

    Raises:
        DataError: they are too many.
    """
    bad = [row for part in found for row in part.bad]
    storage.delete("bad_rows.csv")
    if bad:
        text = pd.DataFrame(bad, columns=["item", "column", "reason"]).to_csv(index=False)
        storage.write("bad_rows.csv", text.encode())
    pictures = report["items"]["pictures"]
    if len(bad) > source.maximum_bad_share * max(pictures, 1):
        row, column, reason = bad[0]
        raise DataError(
            f"{source.items}: {len(bad):,} of {pictures:,} pictures are bad, at most {source.maximum_bad_share:.1%} "
            f"may be (maximum_bad_share); the first: row {row!r}, column {column!r}: {reason}; "
            f"all in {storage.uri_of('bad_rows.csv')}"
        )


def _write_rows(storage: Storage, split: Split, shard_rows: int) -> dict[str, list[tuple[str, int]]]:
    files: dict[str, list[tuple[str, int]]] = {}
    for name in SPLITS:
        table = split.rows(name)
        if name == "train":  # files hold neighbours; shuffled once, so that users of a file differ
            table = table.take(generator(derive(0, "rows"), name).permutation(len(table)))
        files[name] = []
        for number, start in enumerate(range(0, len(table), shard_rows)):
            part = table.slice(start, shard_rows)
            path = f"{name}/part-{number:05d}.parquet"
            write_table(storage, path, part)
            files[name].append((path, len(part)))
    return files


def _write_frames(storage: Storage, source: PairsConfig, users: Side, items: Side, split: Split) -> None:
    """Write what people are shown of users and items, and the items' counts."""
    c = source.columns
    people = users.frame.rename(columns={c.user: "id"}).assign(user=np.arange(len(users.frame)))
    if c.user_group:
        people["group"] = people[c.user_group].astype(str)
    people = people.drop(columns=[n for n in (c.avoid,) if n])
    write_table(storage, "user.parquet", pa.Table.from_pandas(people, preserve_index=False))
    goods = items.frame.rename(columns={c.item: "id"}).drop(columns=["image present"], errors="ignore")
    if c.title and c.title != "title":
        goods = goods.rename(columns={c.title: "title"})
    table = pa.Table.from_pandas(goods.assign(item=np.arange(1, len(goods) + 1)), preserve_index=False)
    if source.image.thumbnail and c.image:
        pictures = []
        for name in items.encoded:
            with storage.open(name) as file:
                pictures.append(pq.read_table(file, columns=["thumbnail"])["thumbnail"])
        joined = pa.chunked_array([chunk for column in pictures for chunk in column.chunks])
        if "image" in table.column_names:
            table = table.drop_columns(["image"])
        table = table.append_column("image", joined.filter(pa.array(items.kept)))
    write_table(storage, "item.parquet", table)
    train = np.bincount(split.item[split.part == 0], minlength=len(goods) + 1)
    write_array(storage, "item_count", train.astype(np.int64))
    write_array(storage, "item_total", np.bincount(split.item, minlength=len(goods) + 1).astype(np.int64))
