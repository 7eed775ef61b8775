"""Raw inputs to a prepared data set: read, filtered, split, encoded and written, the same for every source.

What runs the parts of a pass is a `Runner`. Nothing new is readable under the root until the manifest is written, last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rec import sections
from rec.data.config import DataConfig, FilterConfig
from rec.data.joined import pictures
from rec.data.prepared import Prepared, make_view, maker_of
from rec.data.runner import Runner
from rec.data.schema import PART, Events, RawData, RecordTable, Source, Workplace
from rec.data.stages.content import write_content
from rec.data.stages.drops import in_words, least_in_words, of_others, of_records
from rec.data.stages.entities import Side, good_ids, refuse_ids, scan_side, settle
from rec.data.stages.event_tables import write_events
from rec.data.stages.features import entity_table, write_encoded, write_tags
from rec.data.stages.idle import refuse_idle
from rec.data.stages.item_texts import write_item_texts
from rec.data.stages.knowledge import write_knowledge
from rec.data.stages.modalities import filed, write_modalities
from rec.data.stages.records import ROWS_PER_PARTITION, IdVocabulary, Records, compact, core, read_records
from rec.data.stages.split import Split, split_records
from rec.data.stages.text_vectors import Before, TextVectors
from rec.data.tables import Kind, notes_of, read
from rec.data.views.view import SPLITS, TRAIN
from rec.data.writing import MANIFEST, WORK, Draft, sweep
from rec.errors import ConfigError, DataError
from rec.progress import Progress
from rec.storage import Storage
from rec.strict import resolve

BY_TIME = ("leave-one-out", "time", "subjects")
"""Protocols by which a user and an item may meet more than once; of events also that of a given split."""
LEAST = {"leave-one-out": 4}
"""Records that a user must have: a history, and a target of each split."""
MOST_PICTURES = 256 << 20
"""Bytes of pictures, as the source has them, that are kept for people to see."""
Say = Callable[[str], None]


def prepare(
    config: DataConfig, runner: Runner, say: Say, views: Sequence[str] = (), *, again: bool = False
) -> Prepared:
    """Return the data set made from `config`; where it is there already, made from the same config, it is kept.

    Input that cannot be used leaves a data set that was there as it was.

    Args:
        config: What it is made from.
        runner: What runs the parts.
        say: Told what was read, kept and dropped, and why.
        views: Views to make, beside those of the config.
        again: Whether inputs are read again though the data set is there: what has changed in them is made, vectors of
            texts that are as they were are taken over.

    Raises:
        DataError: an input cannot be read, has another schema, or nothing is left of it.
    """
    for name in dict.fromkeys([*config.views, *views]):
        maker_of(name)
    _refuse_keys(config)
    found = None if again else _there(config, say)
    with Progress("prepare"):
        if found is None:
            before = Before.open(config.root, config.text, say) if again and config.text else None
            found = _prepared(config, runner, say, before)
        for name in dict.fromkeys([*config.views, *views]):
            make_view(found, name, runner, say)
    return found


def _refuse_keys(config: DataConfig) -> None:
    """Refuse what the config alone tells to be impossible.

    Raises:
        ConfigError: something is.
    """
    asked, least = config.filter.minimum_user_count, LEAST.get(config.split.protocol, 1)
    if asked and asked < least:
        raise ConfigError(
            f"data.filter.minimum_user_count: {asked}, expected at least {least}: a history and a target of each "
            f"split, as data.split.protocol is {config.split.protocol!r}"
        )
    for name in config.content.modalities:
        if config.encode is None or not getattr(config.encode, name).encoder:
            raise ConfigError(
                f"data.content.modalities: nothing makes frozen vectors of {name!r}; set data.encode.{name}.encoder, "
                f"and a source whose items have {name}s"
            )


def _there(config: DataConfig, say: Say) -> Prepared | None:
    """Return the data set that is there, made from the same config."""
    if not Storage(config.root).exists(MANIFEST):
        return None
    found = Prepared.open(config.root)
    if found.made_from() != config.model_dump(mode="json", exclude={"views"}):
        return None
    sweep(Storage(config.root), found.manifest["folder"])
    say(
        f"{config.root}: already prepared from the same config; what it was made from is not looked at again "
        "(--again does, and takes over what has not changed; delete the folder to prepare anew)"
    )
    return found


@dataclass(frozen=True, slots=True)
class _Read:
    """Users, items and records of both, filtered, numbered and split."""

    sides: dict[str, Side]
    names: IdVocabulary
    split: Split

    @property
    def trained(self) -> np.ndarray:
        """Which records are for training."""
        return np.asarray(self.split.part_E == TRAIN)

    @property
    def item_counts(self) -> np.ndarray:
        """The records of training of each item."""
        items = self.split.records.item_E[self.trained]
        return np.bincount(items, minlength=len(self.names.items) + 1)[1:]


def items_of(config: DataConfig, runner: Runner, say: Say) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the items that a data set of `config` would hold, and the records of training of each; write none.

    Raises:
        DataError: an input cannot be read, or its records are not of items.
    """
    work = Storage(config.root).below(f"{WORK}-items")
    try:
        raw = _open(config, work, runner, say)
        if isinstance(raw.records, Events):
            raise DataError(f"data.source: records of {config.source} are events, whose items have no modalities")
        with Progress("read items and records"):
            read = _read(config, raw, raw.records, work, runner, say, Counter())
    finally:
        work.delete("")
    return read.sides["item"].known, read.item_counts


def _open(config: DataConfig, work: Storage, runner: Runner, say: Say) -> RawData:
    source: Source = resolve(config.source, "data.source")(config.read)
    return source.open(Workplace(work.below("raw"), runner, say))


def _read(
    config: DataConfig,
    raw: RawData,
    table: RecordTable,
    work: Storage,
    runner: Runner,
    say: Say,
    dropped: Counter[str],
) -> _Read:
    """Return what a source has of users, items and records, as it is kept."""
    sides, records, names = _entities_and_records(config, raw, table, work, runner, dropped)
    _tell_strangers(config, sides, say)
    for note in (*names.notes, *(note for side in sides.values() for note in notes_of(side.pieces))):
        say(note)
    with Progress("prepare: split records"):
        split = split_records(records, len(names.users), len(names.items), config.split, dropped, table.table.name)
    return _Read(sides, names, split)


def _prepared(config: DataConfig, runner: Runner, say: Say, before: Before | None) -> Prepared:
    draft, dropped = Draft(config.root), Counter[str]()
    work = draft.root.below(WORK)
    work.delete("records")
    raw = _open(config, work, runner, say)
    dropped += Counter(raw.dropped)
    refuse_idle(config, raw)
    if isinstance(raw.records, Events):
        return _of_events(config, raw, raw.records, draft, runner, say)
    read = _read(config, raw, raw.records, work, runner, say, dropped)
    sides, names, split, trained = read.sides, read.names, read.split, read.trained
    told: dict[str, Any] = {"encoded": {}, "modalities": []}
    if config.encode is not None:
        places = {"user": split.records.user_E[trained], "item": split.records.item_E[trained] - 1}
        seen = {name: np.unique(place) for name, place in places.items()}
        told["encoded"] = write_encoded(draft, sides, seen, config.encode, runner, say)
    with Progress("prepare: write tags and classes"):
        write_tags(draft, sides["user"], sides["item"])
    items = sides["item"].known
    if config.modalities is not None:
        on_disk = filed(draft, items, config.modalities)
        texts, told["written"] = write_modalities(draft, on_disk, read.item_counts, config, runner, say)
        items = texts.beside(items)
    if config.text is not None:
        vectors = TextVectors(config.text, config.root, runner, say, draft, before)
        items = write_item_texts(draft, items, config.text, vectors, say)
        told["modalities"] = list(config.text.modalities)
        if config.text.user_items:
            texts_I = items[list(config.text.modalities)]
            write_knowledge(draft, sides["user"], sides["item"].known, texts_I, split, config.text, vectors, say)
    graphs = write_content(draft, raw, sides["item"], config.content, say)
    frames = {"user": sides["user"].known, "item": items}
    with Progress("prepare: write tables"):
        for name, side in sides.items():
            draft.table(name, entity_table(side, frames[name], _pictures(draft, side, config, say)))
        files = _write_records(draft, split, len(names.items))
    counts = {"interactions_read": names.read + sum(raw.dropped.values()), "interactions": len(split.records)}
    counts |= {"users": len(names.users), "items": len(names.items)}
    told |= {
        "records": files, "counts": counts, "dropped": of_records(dropped), "left_out": of_others(dropped),
        "entities": {
            "user": {"count": len(names.users), "first": 0}, "item": {"count": len(names.items), "first": 1}
        },
    }  # fmt: skip
    return _finished(config, raw, draft, split, told, say, graphs)


def _of_events(config: DataConfig, raw: RawData, events: Events, draft: Draft, runner: Runner, say: Say) -> Prepared:
    """Write a data set of events that are not of one user and one item."""
    pairs = () if events.counterpart else ("core", "repeats", "unseen")
    for key in ("minimum_rating", "minimum_item_count", "required", *pairs):
        if getattr(config.filter, key) != FilterConfig.model_fields[key].default:
            raise ConfigError(f"data.filter.{key}: has no effect on {config.source}, whose records are events")
    cold = 0.0 if events.counterpart else config.split.cold_items
    for key, value in {"text": config.text, "split.cold_items": cold}.items():
        if value:
            raise ConfigError(f"data.{key}: has no effect on {config.source}, whose records are events")
    if config.split.protocol == "warm" and not events.counterpart:
        raise ConfigError(f"data.split.protocol: 'warm' is of records of two; those of {config.source} are of one")
    if config.encode is not None and not (config.encode.text.encoder or config.encode.text.tokenizer):
        raise ConfigError("data.encode.text: has no effect with neither an encoder nor a tokenizer")
    least = config.filter.minimum_user_count or LEAST.get(config.split.protocol, 1)
    once = config.filter.repeats == "once" or (
        not config.filter.repeats and config.split.protocol not in (*BY_TIME, "given")
    )
    split, told = write_events(config, raw, events, least, once, draft, runner, say)
    return _finished(config, raw, draft, split, told, say, [])


def _finished(
    config: DataConfig, raw: RawData, draft: Draft, split: Split, told: dict[str, Any], say: Say, graphs: list[str]
) -> Prepared:
    """Write the manifest, so that the data set takes its place, and tell what it holds."""
    keys = config.split
    counts = told["counts"] | {f"{name} interactions": int((split.part_E == n).sum()) for n, name in enumerate(SPLITS)}
    draft.finish(
        told
        | {
            "counts": counts,
            "split": {
                "protocol": keys.protocol, "hides_validation": keys.hides_validation, "sha256": split.sha256()
            },
            "splits": {},
            "synthetic_labels": raw.synthetic,
            "generated": raw.generated,
            **({"licence": raw.licence} if raw.licence else {}),
            **({"private": True} if raw.private else {}),
            "shard_rows": config.shard_rows,
            "config": config.model_dump(mode="json", exclude={"views"}),
        }
    )  # fmt: skip
    found = Prepared.open(config.root)
    _tell(config.root, found.manifest, graphs, say)
    return found


def _entities_and_records(
    config: DataConfig, raw: RawData, table: RecordTable, work: Storage, runner: Runner, dropped: Counter[str]
) -> tuple[dict[str, Side], Records, IdVocabulary]:
    """Return users, items, and the records of them that are kept, filtered and numbered."""
    keys, rows = config.filter, config.encode.shard_items if config.encode else ROWS_PER_PARTITION
    unseen = raw.unseen if keys.unseen is None else keys.unseen
    tables = {"user": raw.users, "item": raw.items}
    if extra := set(unseen) - {name for name, there in tables.items() if there is not None}:
        raise ConfigError(f"data.filter.unseen: the source has no table of {extra.pop()!r}")
    sides, good = {}, {}
    for name, known_of in tables.items():
        required = keys.required if name == "item" else ()
        sides[name], good[name] = scan_side(name, known_of, required, runner, rows, dropped)
    known = {name: good_ids(sides[name], good[name]) for name in unseen}
    only = good_ids(sides["item"], good["item"]) if keys.required and "item" not in known else None
    once = keys.repeats == "once" or (not keys.repeats and config.split.protocol not in BY_TIME)
    least = keys.minimum_user_count or LEAST.get(config.split.protocol, 1)
    records, names = read_records(table, known, only, keys, least, once, work.uri_of(""), runner)
    dropped += names.dropped
    if keys.core:
        records = compact(core(records, keys.core, dropped), names, unseen)
    for name, ids in (("user", names.users), ("item", names.items)):
        if name not in known:
            refuse_ids(ids, name, table.table.name)
        settle(sides[name], good[name], ids)
    return sides, records, names


def _tell_strangers(config: DataConfig, sides: Mapping[str, Side], say: Say) -> None:
    """Say how many of those that are kept are in no row of their table, and name one.

    Raises:
        DataError: they are too many.
    """
    least = config.filter.minimum_known_share
    for name, side in sides.items():
        missing = np.flatnonzero(side.row_U < 0)
        if side.table is not None and len(missing):
            known = len(side.ids) - len(missing)
            if known < least * len(side.ids):
                raise DataError(
                    f"{side.table.table.name}: holds {known:,} of the {len(side.ids):,} {side.name}s of "
                    f"records, at least {least:.1%} must be there (data.filter.minimum_known_share); records name "
                    f"{side.ids[missing[0]]!r}, the table {next(iter(side.frame['id'].dropna()), None)!r}"
                )
            say(
                f"{config.root}: {len(missing):,} of {len(side.ids):,} {name}s are in no row of "
                f"{side.table.table.name}, such as {side.ids[missing[0]]!r}"
            )


def _pictures(draft: Draft, side: Side, config: DataConfig, say: Say) -> pa.ChunkedArray | None:
    """Return pictures for people to see: small ones that encoding made, else as the source has them."""
    if side.table is None or side.table.image is None:
        return None
    if config.encode is not None:
        return pictures(draft.root, side) if config.encode.image.thumbnail else None
    parts, size = [], 0
    for piece in side.pieces:
        for table in read(piece, {"image": (side.table.image, Kind.ANY)}, side.table.table.format):
            parts.append(table["image"])
            size += table["image"].nbytes
        if size > MOST_PICTURES:
            say(f"{side.name}s: pictures are left out: over {MOST_PICTURES >> 20} MiB; data.encode makes small ones")
            return None
    column = pa.chunked_array([chunk for part in parts for chunk in part.chunks])
    return column.take(pa.array(side.row_U, mask=side.row_U < 0))


def _write_records(draft: Draft, split: Split, num_items: int) -> list[tuple[str, int]]:
    """Write the records in files that share no user, and how often items come; return the files and their rows."""
    records, part = split.records, split.part_E
    for name, item in (("item_count", records.item_E[part == TRAIN]), ("item_total", records.item_E)):
        draft.array(name, np.bincount(item, minlength=num_items + 1).astype(np.int64))
    row = np.empty(len(records), np.int64)
    row[np.argsort(records.row_E)] = np.arange(len(records))
    columns: dict[str, np.ndarray] = {
        "user": records.user_E.astype(np.int64),
        "item": records.item_E.astype(np.int32),
        "row": row,
    }
    columns |= {name: value for name, value in records.columns.items() if name != PART} | {"part": part}
    table = pa.table(columns)
    parts: dict[str, pa.Table] = {}
    start = 0
    while start < len(records):
        end = min(start + ROWS_PER_PARTITION, len(records))
        end = int(np.searchsorted(records.user_E, records.user_E[end - 1], "right"))
        parts[f"records/part-{len(parts):05d}"] = table.slice(start, end - start)
        start = end
    return draft.tables(parts)


def _tell(root: str, manifest: dict[str, Any], graphs: list[str], say: Say) -> None:
    counts, split = manifest["counts"], manifest["split"]
    parts = ", ".join(f"{counts[f'{name} interactions']:,} {name}" for name in SPLITS)
    told = ", ".join(sections.counted(entity["count"], name) for name, entity in manifest["entities"].items())
    dropped = manifest["dropped"] | manifest["left_out"]
    read = sections.counted(counts["interactions_read"], "record")
    say(f"{root}: read {read}, kept {counts['interactions']:,}; {told}; dropped {in_words(dropped)}")
    asked = manifest["config"]["filter"]["minimum_user_count"]
    if why := least_in_words(LEAST.get(split["protocol"], 1), asked, dropped):
        say(f"{root}: {why}")
    say(f"{root}: split {split['protocol']!r}: {parts}; hash {split['sha256'][:12]}")
    if graphs:
        say(f"{root}: content graphs: {', '.join(graphs)}")
