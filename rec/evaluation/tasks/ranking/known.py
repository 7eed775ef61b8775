"""What an artifact holds of known subjects: everything each has had, and what a ranking needs of each.

offset.npy, history.npy     the items of each subject, the test target included: serving knows all of the past
state/*.npy                 the states of subjects, where a ranking needs nothing but a subject and its history
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rec.batch import Column, Columns
from rec.data.prepared import Prepared
from rec.data.writing import write_array
from rec.evaluation.rows import filled
from rec.evaluation.service import Context, Exporting

STATE_BATCH = 256


@dataclass(frozen=True)
class Marks:
    """Which of a ranker's columns hold the subject, what is known of it, and what is to be found."""

    columns: tuple[Column, ...]
    subject: Column | None
    known: Column | None
    target: Column | None
    further: tuple[str, ...]
    """Columns that a request for a ranking does not tell."""

    @classmethod
    def of(cls, system: Any) -> Marks:
        """Return the marks of a system's columns, as their entities declare them."""

        def first(entity: str, label: bool, axes: Sequence[int]) -> Column | None:
            fits = (c for c in system.columns if c.entity == entity and c.label == label and len(c.shape) in axes)
            return next(fits, None)

        subject, known = first(system.subject, False, (0,)), first(system.entity, False, (1,))
        used = (subject, known)
        further = [c.name for c in system.columns if c not in used and not c.label and not c.optional]
        return cls(tuple(system.columns), subject, known, first(system.entity, True, (0, 1)), tuple(further))

    @property
    def told(self) -> bool:
        """Whether subject, what is known, and what is to be found have columns."""
        return None not in (self.subject, self.known, self.target)

    @property
    def names(self) -> list[str]:
        """Names of the columns that there are: subject, what is known, what is to be found."""
        return [column.name for column in (self.subject, self.known, self.target) if column is not None]

    def rows(self, subjects: np.ndarray, histories: Sequence[np.ndarray]) -> Columns:
        """Return rows that tell subjects, -1 where they are not known, and what is known of them."""
        given: dict[str, Any] = {}
        if self.subject is not None:
            given[self.subject.name] = subjects
        if self.known is not None:
            given[self.known.name] = list(histories)
        return filled(self.columns, given, len(subjects))


class KnownSubjects:
    """The items and states of known subjects, of an artifact."""

    def __init__(self, context: Context) -> None:
        self.count = int(context.manifest.get("subjects", 0))
        if self.count:
            self.offset, self.item = context.parts.array("offset"), context.parts.array("history")
        self.states = {
            name: torch.from_numpy(context.parts.array(f"state/{name}")).to(context.device)
            for name in context.manifest.get("states", ())
        }

    def history(self, subject: int) -> np.ndarray:
        """Return the items of a known subject, none of another."""
        if not 0 <= subject < self.count:
            return np.empty(0, dtype=np.int64)
        return np.asarray(self.item[self.offset[subject] : self.offset[subject + 1]], dtype=np.int64)


def write_known(exporting: Exporting) -> dict[str, Any]:
    """Write what is known of subjects and return what the manifest tells of it."""
    marks = Marks.of(exporting.system)
    histories = _histories(exporting.data, exporting.system, marks)
    if histories is None:
        return {"subjects": 0, "states": []}
    item = np.concatenate([np.empty(0, np.int64), *histories]).astype(np.int32)
    _write(exporting, "offset", np.cumsum([0, *map(len, histories)]).astype(np.int64))
    _write(exporting, "history", item)
    states = [] if marks.further or not histories else _write_states(exporting, marks, histories)
    return {"subjects": len(histories), "states": states}


def _histories(data: Prepared, system: Any, marks: Marks) -> list[np.ndarray] | None:
    """Return everything that each subject has had; None where rows do not tell."""
    if marks.subject is None or marks.known is None or system.subject not in data.entities:
        return None
    names = marks.names
    if not set(names) <= set(data.rows("test").column_names):
        return None
    told = data.entities[system.subject]
    by_subject: list[np.ndarray | None] = [None] * (told.first + told.count)
    for split in ("test", "val", "train"):  # a later split knows more; who is in none has had nothing
        rows = data.rows(split)
        for subject, *parts in zip(*(rows[name].to_numpy() for name in names), strict=True):
            if subject >= 0 and by_subject[subject] is None:
                by_subject[subject] = np.concatenate([np.atleast_1d(part) for part in parts])
        if all(history is not None for history in by_subject):
            break
    return [np.empty(0, np.int32) if history is None else history for history in by_subject]


def _write_states(exporting: Exporting, marks: Marks, histories: Sequence[np.ndarray]) -> list[str]:
    """Write the states of all known subjects and return their names."""
    system = exporting.system
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(histories), STATE_BATCH):
        end = min(start + STATE_BATCH, len(histories))
        some = [np.asarray(history, np.int64) for history in histories[start:end]]
        with torch.inference_mode():
            batch = system.collate(marks.rows(np.arange(start, end), some))
            for name, value in system.states(exporting.module, batch).items():
                parts.setdefault(name, []).append(value.cpu().numpy())
    for name, arrays in parts.items():
        _write(exporting, f"state/{name}", np.concatenate(arrays))
    return list(parts)


def _write(exporting: Exporting, name: str, value: np.ndarray) -> None:
    write_array(exporting.storage, f"{exporting.folder}/{name}", value)
