"""Predictions of a trained run in files: answers to a split or to a table of requests, and a split's records.

answers/part-00000.parquet ...           one row per example: raw ids, the answer; of requests also `notes` and `error`
records/{task}/part-00000.parquet ...    what a split is measured from
parts/00000.json ...                     files of a part with checksums: the part is whole once this is there
claim.json                               what is predicted, written first
manifest.json                            the same with counts and all files, written last

Parts are whole batches of evaluation, so that their records are the ones that evaluation makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rec.config import RunConfig, from_json, to_json
from rec.data.prepared import open_prepared
from rec.data.writing import write_table
from rec.errors import ConfigError, DataError, EvaluationError, RequestError
from rec.evaluation import requests
from rec.evaluation.records import Records, joined
from rec.evaluation.run import Trained
from rec.evaluation.tasks.config import EvaluateConfig
from rec.json_text import json_text
from rec.progress import Progress
from rec.storage import Storage, absolute, uri_below
from rec.strict import flat, is_among
from rec.train.checkpoint import CheckpointStore
from rec.train.job import FREE_KEYS, check_data, check_same, require_trained

FORMAT = 1
MANIFEST = "manifest.json"
CLAIM = "claim.json"
PARTS = 32
"""Parts that a small split is cut into at least, as far as it has so many batches: workers share them."""
PART_ROWS = 4096
"""Most examples of a part, unless a batch has more: what is held in memory at a time."""
UNHASHED = (
    *(f"evaluate.{key}" for key in EvaluateConfig.AFTERWARDS),
    "data.root",
    *(key for key in FREE_KEYS if key != "evaluate"),
)
"""Keys that change no prediction."""
COMMAND = "rec predict CONFIG"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOrder:
    """What is to be predicted, and where it is written."""

    config: RunConfig
    folder: str
    split: str | None
    """None where requests are answered."""
    requests: str = ""
    """The table of requests."""
    most: int = 10
    """Length of an answer that is a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionPart:
    """Consecutive examples that are predicted and written together."""

    number: int
    start: int
    stop: int

    @property
    def file(self) -> str:
        """The name of its files within their folders."""
        return f"part-{self.number:05d}.parquet"

    @property
    def note(self) -> str:
        """The file that says that the part is whole."""
        return f"parts/{self.number:05d}.json"


Predict = Callable[
    [PredictionOrder, dict[str, Any], Sequence[PredictionPart], Callable[[int], None]], Iterator[dict[str, Any]]
]
"""Makes parts in any order and yields their notes; receives how many examples of unfinished parts are done."""


def predict(order: PredictionOrder, run_parts: Predict, say: Callable[[str], None]) -> dict[str, Any]:
    """Write all predictions that are not there yet and return the manifest.

    Raises:
        ConfigError: the folder holds predictions of something else.
        CheckpointError, DataError: the run, its data or the table is missing or damaged.
    """
    # What stands in the way of any answer is told before what was answered once.
    require_trained(order.config.out)
    check_same(order.config)
    check_data(Storage(order.config.out), open_prepared(order.config))
    storage = Storage(order.folder)
    claim = _claim(order, storage)
    if storage.exists(MANIFEST):
        manifest: dict[str, Any] = storage.read_json(MANIFEST)
        if not any(storage.fault(entry) for entry in manifest["files"]):
            say(f"{order.folder}: all of it is there already")
            return manifest
    if order.split is None:
        rows, ignored = requests.copy(order.requests, storage, claim["part_rows"], claim["columns"], say)
        if ignored:
            read = ", ".join(claim["columns"])
            say(f"note: columns of the table that are not read: {', '.join(ignored)}; the system reads {read}")
    else:
        rows = open_prepared(order.config).split_rows(order.split)
    parts = parts_of(rows, claim["part_rows"])
    notes = {part.number: note for part in parts if (note := _whole(storage, part)) is not None}
    left = [part for part in parts if part.number not in notes]
    done = sum(note["rows"] for note in notes.values())
    if notes:
        say(f"{order.folder}: {done:,} of {rows:,} examples are there already")
    line, before = Progress(f"predict {order.split or 'requests'}", rows), done
    line.show(done, "examples", force=True)
    unfinished = 0

    def told(count: int) -> None:
        nonlocal unfinished
        unfinished = count
        line.show(done + unfinished, "examples")

    with line:
        for note in run_parts(order, claim, left, told) if left else ():
            notes[note["number"]] = note
            done, unfinished = done + note["rows"], 0
            line.show(done, "examples", force=done == rows)
    manifest = _finish(storage, claim, [notes[part.number] for part in parts])
    if left:
        line.done(f"{done - before:,} examples")
    return manifest


def parts_of(rows: int, part_rows: int) -> list[PredictionPart]:
    """Return the parts of so many examples, in order."""
    starts = range(0, rows, part_rows)
    return [PredictionPart(number=n, start=start, stop=min(start + part_rows, rows)) for n, start in enumerate(starts)]


def rows_per_part(rows: int, batch_size: int) -> int:
    """Return the size of a part: whole batches, at most `PART_ROWS` rows where a batch has no more."""
    batches = max(1, -(-rows // batch_size) // PARTS)
    return batch_size * min(batches, max(1, PART_ROWS // batch_size))


def identity(config: RunConfig) -> dict[str, Any]:
    """Return what tells a trained run's predictions from others': run, step, its weights, config and data."""
    check_same(config)
    store = CheckpointStore(Storage(config.out).below("checkpoints"))
    step = store.best_step()
    if step is None:
        store.load_best()  # says what is missing
    assert step is not None
    keys = {key: value for key, value in flat(config.model_dump(mode="json")).items() if not is_among(key, UNHASHED)}
    return {
        "run": absolute(config.out),
        "step": step,
        "weights": store.identity(step),
        "config": hashlib.sha256(json_text(keys, sort_keys=True).encode()).hexdigest(),
        "data": open_prepared(config).identity(),
    }


def read_records(folder: str, run: Trained, split: str) -> dict[str, Records]:
    """Return the records of each task that predictions of a split hold, in the order of the data.

    Raises:
        EvaluationError: they are of another run, step, split, config or data.
        DataError: a file is missing or damaged.
    """
    storage = Storage(folder)
    manifest = storage.manifest(MANIFEST, FORMAT, "finished predictions", COMMAND)
    wanted = identity(run.config) | {"split": split}
    for key in ("split", "weights", "config", "data"):
        if manifest.get(key) != wanted[key]:
            made = f"{manifest['run']} at step {manifest['step']} on {manifest['split'] or 'a table of requests'}"
            asked = f"{wanted['run']} at step {wanted['step']} on {split}"
            other = "" if key == "split" or manifest[key] == wanted[key] else f" ({key} differs)"
            raise EvaluationError(f"{folder}: predictions of {made}, expected {asked}{other}; run `{COMMAND}` for it")
    for entry in manifest["files"]:
        if fault := storage.fault(entry):
            raise DataError(f"{fault}; run `{COMMAND}` again")
    return {task.name: _read(storage, f"records/{task.name}/", manifest) for task in run.system.tasks}


def _read(storage: Storage, start: str, manifest: dict[str, Any]) -> Records:
    names = sorted(entry["name"] for entry in manifest["files"] if entry["name"].startswith(start))
    tables = []
    for name in names:
        with storage.open(name) as file:
            tables.append(pq.read_table(file))
    return joined(tables)


def _claim(order: PredictionOrder, storage: Storage) -> dict[str, Any]:
    """Write what the folder is for, or check that it is for the same.

    Raises:
        ConfigError: it holds predictions of something else, or files that are none.
    """
    config, split = order.config, order.split
    batch = config.train.evaluate_batch_size
    claim: dict[str, Any] = {"format": FORMAT, **identity(config), "split": split, "most": order.most}
    if split is None:
        claim["requests"] = requests.stamp(order.requests)
        claim["part_rows"] = batch * max(1, PART_ROWS // 4 // batch)
    else:
        claim["part_rows"] = rows_per_part(open_prepared(config).split_rows(split), batch)
    claim["columns"] = [column.name for column in requests.columns_of(config) if not column.label]
    if not storage.exists(CLAIM):
        if storage.list():
            raise ConfigError(f"--to: {order.folder} holds files that are no predictions; choose another folder")
        storage.write_json(CLAIM, claim)
        return claim
    before = storage.read_json(CLAIM)
    for key, value in claim.items():
        if key != "run" and before.get(key) != value:
            raise ConfigError(
                f"--to: {order.folder} holds predictions of {before['run']} at step {before['step']} on "
                f"{before['split'] or before['requests']['table']}, whose {key} is {before.get(key)!r}, "
                f"here {value!r}; choose another folder or delete that one"
            )
    return claim


def _whole(storage: Storage, part: PredictionPart) -> dict[str, Any] | None:
    """Return the note of a part whose files are whole, None where it is to be made."""
    if not storage.exists(part.note):
        return None
    note: dict[str, Any] = storage.read_json(part.note)
    return None if any(storage.fault(entry) for entry in note["files"]) else note


def _finish(storage: Storage, claim: dict[str, Any], notes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the manifest over parts that are all whole, and delete what a stopped command has left."""
    if claim["split"] is None:
        _same_columns(storage, notes)
    files = [entry for note in notes for entry in note["files"]]
    kept = {entry["name"] for entry in files}
    for folder in ("answers", *(f"records/{name}" for name in storage.list("records"))):
        for name in (*storage.list(folder), *storage.temporaries(folder)):
            if f"{folder}/{name}" not in kept:
                storage.delete(f"{folder}/{name}")
    storage.delete(requests.FOLDER)
    counts = {key: sum(note[key] for note in notes) for key in ("rows", "errors", "noted")}
    manifest = {**claim, "examples": counts.pop("rows"), **counts, "notice": notes[0]["notice"] if notes else ""}
    manifest["files"] = files
    storage.write_json(MANIFEST, manifest)
    return manifest


def _same_columns(storage: Storage, notes: Sequence[dict[str, Any]]) -> None:
    """Give parts in which no request could be answered the columns of the others."""
    names = [note["files"][0]["name"] for note in notes]
    schemas = []
    for name in names:
        with storage.open(name) as file:
            schemas.append(pq.read_schema(file))
    full = max(schemas, key=len, default=None)
    for name, schema, note in zip(names, schemas, notes, strict=True):
        if full is None or schema.names == full.names:
            continue
        with storage.open(name) as file:
            table = pq.read_table(file)
        nulls = {field.name: pa.nulls(len(table), field.type) for field in full}
        columns = [table[field.name] if field.name in schema.names else nulls[field.name] for field in full]
        whole = pa.table(columns, schema=full)
        write_table(storage, name, whole)
        note["files"][0] = storage.entry(name)
        storage.write_json(f"parts/{note['number']:05d}.json", note)


def order_of(
    config: RunConfig, *, k: int = 10, requests: str | None = None, to: str | None = None, split: str = "test"
) -> PredictionOrder:
    """Return what the options of `rec predict` ask for.

    Raises:
        RequestError: --k is less than 1.
    """
    if k < 1:
        raise RequestError(f"--k: expected at least 1, got {k}")
    name = PurePosixPath(requests.rstrip("/")).stem if requests else split
    folder = to or uri_below(config.out, f"predictions/{name}")
    return PredictionOrder(
        config=config, folder=folder, split=None if requests else split, requests=requests or "", most=k
    )


def summary(manifest: dict[str, Any], folder: str) -> list[str]:
    """Return lines for a person on predictions that are complete."""
    lines = [f"{folder}: {manifest['examples']:,} examples answered at step {manifest['step']}"]
    if manifest["noted"]:
        lines.append(f"note: of {manifest['noted']:,} rows something could not be used; see the column notes")
    if manifest["errors"]:
        total = manifest["examples"]
        lines.append(f"warning: {manifest['errors']:,} of {total:,} rows have no answer; see the column error")
    return [*lines, *([manifest["notice"]] if manifest["notice"] else [])]


def packed(order: PredictionOrder) -> dict[str, Any]:
    """Return an order as plain values, for another process."""
    names = ("folder", "split", "requests", "most")
    return {"config": to_json(order.config), **{name: getattr(order, name) for name in names}}


def unpacked(values: dict[str, Any]) -> PredictionOrder:
    """Return the order that `packed` has given."""
    return PredictionOrder(**{**values, "config": from_json(values["config"])})
