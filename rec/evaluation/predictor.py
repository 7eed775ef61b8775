"""Predicts parts of a split or of a table of requests with a model that is loaded once, and writes each part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rec.batch import Column, Columns, RaggedColumn, stored
from rec.data.stream import to_columns
from rec.data.writing import write_table
from rec.errors import CheckpointError, DataError, EvaluationError, RecError
from rec.evaluation import requests
from rec.evaluation.measure import Recorder, of_all, teller, told_of
from rec.evaluation.predict import PredictionOrder, PredictionPart
from rec.evaluation.records import Records, joined, moved, records_of
from rec.evaluation.run import open_run
from rec.evaluation.table_rows import EntityNames, TableRows
from rec.json_text import json_text
from rec.storage import Storage

BAD_ROW = (RecError, ValueError, TypeError, KeyError, IndexError, OverflowError)
"""What a row that a model cannot take may raise; anything else is a fault of more than a row, and ends the job."""
Told = Callable[[int], None]


def predict_here(
    order: PredictionOrder, claim: dict[str, Any], parts: Sequence[PredictionPart], told: Told
) -> Iterator[dict[str, Any]]:
    """Yield the notes of parts that are made one after the other in this process."""
    predictor = Predictor(order, claim, told)
    for part in parts:
        yield predictor(part)


class Predictor:
    """A trained run that answers parts."""

    def __init__(self, order: PredictionOrder, claim: dict[str, Any], told: Told = lambda _: None) -> None:
        self.order, self.told = order, told
        self.run = open_run(order.config)
        if self.run.step != claim["step"]:
            raise CheckpointError(
                f"{order.config.out}: the best checkpoint is now of step {self.run.step}, predictions were begun with "
                f"step {claim['step']}; choose another --to"
            )
        self.system: Any = self.run.system
        self.module, self.device = self.run.module.eval(), self.run.engine.device
        self.names = EntityNames(self.run.data)
        self.rows = TableRows(self.system.columns, self.names)
        self.storage = Storage(order.folder)
        self.batch_size = order.config.train.evaluate_batch_size
        self.about = {
            "notice": self.system.notice,
            "system": order.config.system,
            **{key: str(claim[key]) for key in ("run", "step", "split", "weights", "config")},
        }
        if order.split is not None:
            self.recorder = Recorder(self.system, self.module, order.config.evaluate)
        else:
            with torch.inference_mode():
                self.tell = teller(self.system, self.module)

    @torch.inference_mode()
    def __call__(self, part: PredictionPart) -> dict[str, Any]:
        """Write a part and return its note."""
        answers, records = self._split(part) if self.order.split is not None else self._requests(part)
        answers = answers.replace_schema_metadata(self.about)
        files = [f"answers/{part.file}"]
        write_table(self.storage, files[0], answers)
        for name, table in records.items():
            files.append(f"records/{name}/{part.file}")
            write_table(self.storage, files[-1], table.replace_schema_metadata(self.about))
        note = {"number": part.number, "rows": len(answers), "notice": self.system.notice}
        wrong = answers["error"].is_valid() if "error" in answers.column_names else pa.array([], pa.bool_())
        noted = answers["notes"].to_pylist() if "notes" in answers.column_names else []
        note |= {"errors": wrong.to_pylist().count(True), "noted": sum(bool(notes) for notes in noted)}
        note["files"] = [self.storage.entry(name) for name in files]
        self.storage.write_json(part.note, note)
        return note

    @torch.inference_mode()
    def records(self, part: PredictionPart) -> dict[str, Records]:
        """Return the records of a part of a split."""
        return of_all([records for *_, records in self._recorded(part)], self.system)

    def _split(self, part: PredictionPart) -> tuple[pa.Table, dict[str, Records]]:
        """Return the answers and the records of a part of a split."""
        answers, records = [], []
        for first, columns, batch, found in self._recorded(part):
            given = self._subjects(columns, np.arange(part.start + first, part.start + first + len(batch)))
            answers.append(moved(records_of({**given, **self._answers(batch, found)}, len(batch))))
            records.append(found)
            self.told(first + len(batch))
        return joined(answers), of_all(records, self.system)

    def _recorded(self, part: PredictionPart) -> Iterator[tuple[int, Columns, Any, dict[str, Records]]]:
        """Yield where each batch of a part of a split starts in it, its columns, itself, and its records."""
        rows = self._rows(part)
        for start in range(0, len(rows), self.batch_size):
            columns = to_columns(rows.slice(start, self.batch_size))
            batch = self.system.collate(columns).to(self.device)
            yield start, columns, batch, {name: moved(table) for name, table in self.recorder(batch).items()}

    def _rows(self, part: PredictionPart) -> pa.Table:
        """Return a part's rows, which may stand in several files."""
        tables, at, storage = [], 0, self.run.data.storage
        for name, rows in self.run.data.files(str(self.order.split)):
            first, last = max(part.start - at, 0), min(part.stop - at, rows)
            at += rows
            if first >= last:
                continue
            try:
                with storage.telling(name), storage.open(name) as file:
                    table = pq.read_table(file, columns=stored(self.system.columns))
            except (OSError, pa.ArrowInvalid) as error:
                raise DataError(f"{storage.uri_of(name)}: cannot be read ({error})") from error
            tables.append(table.slice(first, last - first))
        return pa.concat_tables(tables)

    def _subjects(self, columns: Any, number_B: np.ndarray) -> dict[str, Any]:
        """Return each example's number and the raw ids in the columns that have one per row."""
        found: dict[str, Any] = {"row": number_B}
        for column in self.system.columns:
            if _names_one(column):
                found[column.name] = self.names.raw(column.entity, columns[column.name])
        return found

    def _answers(self, batch: Any, records: dict[str, Records] | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for task in self.system.tasks:
            kept = None if records is None else records[task.name]
            own = task.answers(self.system, self.module, batch, self.names, most=self.order.most, records=kept)
            if twice := sorted(own.keys() & found.keys()):
                raise EvaluationError(f"{type(self.system).__name__}: two tasks answer with a column {twice[0]!r}")
            found |= own
        told_more = self.tell(batch) if records is None else told_of(self.system, records)
        if twice := sorted(told_more.keys() & found.keys()):
            raise EvaluationError(f"{type(self.system).__name__}: a task and the analyser tell a column {twice[0]!r}")
        return found | told_more

    def _requests(self, part: PredictionPart) -> tuple[pa.Table, dict[str, Records]]:
        """Return the answers to a part of a table of requests; what is wrong with a row stands in its cell."""
        given = list(requests.read(self.storage, part.number))
        parts = []
        for start in range(0, len(given), self.batch_size):
            chunk = given[start : start + self.batch_size]
            parts.append(self._answered([values for values, _ in chunk], [fault for _, fault in chunk]))
            self.told(start + len(chunk))
        table = joined(parts)
        first = {"row": pa.array(np.arange(part.start, part.stop))}
        first |= {column.name: _given(given, column.name) for column in self.system.columns if _names_one(column)}
        names = [*first, *(name for name in table.column_names if name not in ("notes", "error")), "notes", "error"]
        return pa.table({name: first[name] if name in first else table[name] for name in names}), {}

    def _answered(self, values: list[dict[str, Any]], faults: list[str | None]) -> pa.Table:
        """Return answers to some rows, `notes` and `error`."""
        rows = self.rows.read(values)
        errors = [fault or error for fault, error in zip(faults, rows.errors, strict=True)]
        good = [place for place, number in enumerate(rows.kept) if errors[number] is None]
        tables, answered = [], []
        for chosen in self._tried(rows.columns, good):
            if isinstance(chosen, tuple):
                errors[rows.kept[chosen[0]]] = chosen[1]
            else:
                tables.append(chosen)
        answered = [number for number in rows.kept if errors[number] is None]
        place_B: list[int | None] = [None] * len(values)
        for place, number in enumerate(answered):
            place_B[number] = place
        found = joined(tables).take(pa.array(place_B, pa.int64())) if tables else pa.table({})
        columns = {name: found[name].combine_chunks() for name in found.column_names}
        columns["notes"] = pa.array(rows.notes, pa.list_(pa.string()))
        columns["error"] = pa.array(errors, pa.string())
        return pa.table(columns)

    def _tried(self, columns: Any, good: list[int]) -> Iterator[pa.Table | tuple[int, str]]:
        """Yield answers to the good rows in their order, and (row, error) for those that the model cannot take.

        Rows are answered together; where that fails, one by one, so that a row takes no other with it.
        """
        if not good:
            return
        try:
            yield self._table(_taken(columns, good))
            return
        except BAD_ROW:
            pass
        for place in good:
            try:
                table: pa.Table | tuple[int, str] = self._table(_taken(columns, [place]))
            except BAD_ROW as error:
                told = str(error).removeprefix("row 0: ")
                table = place, told if isinstance(error, RecError) else f"{type(error).__name__}: {told}"
            yield table

    def _table(self, columns: Any) -> pa.Table:
        batch = self.system.collate(columns).to(self.device)
        return records_of(self._answers(batch, None), len(batch))


def _names_one(column: Column) -> bool:
    return bool(column.entity) and not column.label and not column.shape


def _taken(columns: Any, places: list[int]) -> dict[str, Any]:
    return {name: _rows(column, places) for name, column in columns.items()}


def _rows(column: Any, places: list[int]) -> Any:
    if isinstance(column, RaggedColumn):
        return column.taken(places)
    return [column[place] for place in places] if isinstance(column, list) else column[places]


def _given(rows: Sequence[tuple[dict[str, Any], str | None]], name: str) -> pa.Array:
    """Return what the requests hold in a column, as text."""
    values = [row.get(name) for row, _ in rows]
    texts = [v if isinstance(v, str) or v is None else json_text(v) for v in values]
    return pa.array(texts, pa.string())
