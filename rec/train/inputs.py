"""What a system reads and is asked, and what a prepared data set offers, as sections for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rec.batch import Column
from rec.config import RunConfig
from rec.data.prepared import OWN_VIEWS, VIEW, Prepared, hint
from rec.data.views.view import FOLDER as VIEWS
from rec.sections import Section, Table, Text, counted
from rec.strict import resolve
from rec.systems import capabilities

ASKED = ("Ranker", "SetPredictor", "Rater", "Writer", "Explainer", "Reporter")
ARRAY = ".npy"


def system_sections(config: RunConfig, data: Prepared | None) -> list[Section]:
    """Return the columns and tables that a config's system reads, its tasks and its capabilities.

    Args:
        config: The run's.
        data: Its data set, where it is prepared: whether it holds the tables is told.
    """
    system = resolve(config.system)
    rows = [[c.name, kind(c), c.entity or "-", _role(c)] for c in system.columns_for(config.model)]
    view = system.view or "none of its own: the rows that the data set was written with"
    columns: list[Any] = [Text(text=f"View: {view}"), Table(head=["column", "type", "members of", "role"], rows=rows)]
    tables = [_wanted(system, config, name, data) for name in dict.fromkeys(system.table_names(config.model))]
    tasks = [[task.name, task.headline, ", ".join(task.shown)] for task in system.tasks]
    able = [name for name in ASKED if issubclass(system, getattr(capabilities, name))]
    return [
        Section(title=f"{system.__name__}: columns of rows that it reads", parts=columns),
        Section(title=f"{system.__name__}: tables that it reads as configured", parts=_table(TABLES, tables)),
        Section(
            title=f"{system.__name__}: what is asked of it",
            parts=[
                Table(head=["task", "chooses by", "shows"], rows=tasks),
                Text(text=f"Capabilities: {', '.join(able)}"),
            ],
        ),
    ]


TABLES = ("table", "asked for by", "in the data set")


def _wanted(system: Any, config: RunConfig, name: str, data: Prepared | None) -> list[str]:
    reason = system.wanted_by(config.model, name)
    there = "not prepared" if data is None else "yes" if data.holds(name) else f"no{hint(name)}"
    return [name, reason.key if reason else "always", there]


def data_sections(data: Prepared) -> list[Section]:
    """Return what a data set holds: entities with their columns, records, views that are made, tables."""
    return [
        _entities(data),
        *_records(data),
        _views(data),
        Section(title="Tables", parts=_table(("table", "type", "shape"), _arrays(data))),
    ]


def _entities(data: Prepared) -> Section:
    rows = [
        [name, f"{entity.count:,}", str(entity.first), _schema(data.entity(name).schema)]
        for name, entity in data.entities.items()
    ]
    parts = _table(("entity", "members", "first index", "columns"), rows)
    return Section(title="Entities", parts=parts)


def _records(data: Prepared) -> list[Section]:
    if not data.manifest.get("records"):
        return []
    count = sum(rows for _, rows in data.manifest["records"])
    text = f"{counted(count, 'record')}: {_schema(data.records_schema)}"
    return [Section(title="Records, of which views are made", parts=[Text(text=text)])]


def _views(data: Prepared) -> Section:
    """Return the views that are made with the columns of their rows, and those that a system would have made."""
    rows = []
    written = {"": data.manifest["splits"]} if data.manifest["splits"] else {}
    folders = (
        [] if written else [name for name in data.storage.list(VIEWS) if data.storage.exists(f"{VIEWS}/{name}/{VIEW}")]
    )
    made = {name: data.storage.read_json(f"{VIEWS}/{name}/{VIEW}")["splits"] for name in folders}
    for name, splits in (written | made).items():
        counts = ", ".join(f"{sum(n for _, n in files):,} {split}" for split, files in splits.items())
        rows.append([name or "rows of its own", counts, _schema(_of_rows(data, splits))])
    if not written:
        rows += [[name, "not made yet", "-"] for name in OWN_VIEWS if name not in made]
    return Section(title="Views: rows that systems train on", parts=_table(("view", "rows", "columns"), rows))


def _of_rows(data: Prepared, splits: Mapping[str, Any]) -> pa.Schema:
    name = next(files[0][0] for files in splits.values() if files)
    with data.storage.open(name) as file:
        return pq.read_schema(file)


def _arrays(data: Prepared) -> list[list[str]]:
    names = sorted(entry["name"] for entry in data.manifest["files"] if entry["name"].endswith(ARRAY))
    found = [(name.removesuffix(ARRAY), data.array(name.removesuffix(ARRAY))) for name in names]
    return [[name, str(array.dtype), " x ".join(f"{n:,}" for n in array.shape)] for name, array in found]


def _table(head: tuple[str, ...], rows: list[list[str]]) -> list[Any]:
    return [Table(head=list(head), rows=rows) if rows else Text(text="none")]


def _schema(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({_type(field.type)})" for field in schema)


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list of {_type(kind.value_type)}"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else str(kind)


def kind(column: Column) -> str:
    """Return the type of a column's values as people say it: "int64", "list of int32", "float32 of 8"."""
    inner = column.dtype
    for size in reversed(column.shape):
        inner = f"list of {inner}" if size == -1 else f"{inner} of {size}"
    return inner


def _role(column: Column) -> str:
    if column.label:
        return "to be predicted: no request tells it"
    return "may be left out of a request" if column.optional else "told by every request"
