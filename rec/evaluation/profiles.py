"""What a trained run tells of single subjects, as parts of a report: `rec report RUN --user ID`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.data.views.view import read_records
from rec.errors import RequestError
from rec.evaluation.run import Trained, open_run
from rec.evaluation.task import Profiled
from rec.sections import Section
from rec.systems.capabilities import Ranker, Reporter

ORIGINAL = "original"
"""The column of an entity's table with ids that others know its members by, where records have ids of their own."""


def profiles(config: Any, split: str, names: Sequence[str], numbers: dict[str, Any]) -> list[Section]:
    """Return what the run's best checkpoint tells of some subjects on a split.

    Args:
        config: The run.
        split: Where their histories are taken from.
        names: Raw ids, or the original ones where the data set has them.
        numbers: What measuring the run has filed.

    Raises:
        RequestError: the system tells nothing of single subjects, or there is none of this id in the split.
    """
    run = open_run(config)
    return [section for name in names for section in profile(run, split, name, numbers)]


def profile(run: Trained, split: str, name: str, numbers: dict[str, Any]) -> list[Section]:
    """Return what a run tells of one subject of a split."""
    system, data = run.system, run.data
    if not isinstance(system, Reporter) or not isinstance(system, Ranker):
        raise RequestError(f"report: {type(system).__name__} tells nothing of single subjects; leave out --user")
    index, called = find(data, system.subject, name)
    rows = row_of(run, split, system.subject, index)
    if rows is None:
        raise RequestError(f"report: {system.subject} {name!r} has no row in {split}")
    module = run.module.eval()
    with torch.no_grad():
        batch = system.collate(to_columns(rows)).to(run.engine.device)
        told = Profiled(
            called=called, module=module, batch=batch, data=data, seed=run.config.train.seed, numbers=numbers,
            config=run.config.evaluate,
        )  # fmt: skip
        found = system.profile(told)
    if not found:
        raise RequestError(f"report: {type(system).__name__} as configured tells nothing of single {system.subject}s")
    return found


def find(data: Prepared, entity: str, name: str) -> tuple[int, str]:
    """Return the index of a member of an entity, and what it is called: by its original id where the table has some.

    Raises:
        RequestError: there is none.
    """
    table = data.entity(entity)
    key = ORIGINAL if ORIGINAL in table.column_names else "id"
    place = pc.index(table[key].cast("string"), name).as_py()
    if place < 0:
        known = ", ".join(table[key].cast("string").slice(0, 3).to_pylist())
        raise RequestError(f"report: no {entity} {name!r}; found {len(table):,} such as {known}")
    called = f"{entity.capitalize()} {name}"
    own = str(table["id"][place].as_py())
    return data.entities[entity].first + place, called if own == name else f"{called} ({own} in the records)"


def row_of(run: Trained, split: str, entity: str, index: int) -> Any:
    """Return the row of a subject in a split, None where there is none."""
    column = next(c.name for c in run.system.columns if c.entity == entity and not c.shape)
    names = [c.name for c in run.system.columns]
    for file, _ in run.data.files(split):
        subject = read_records(run.data.storage, file, [column])[column].to_numpy()
        if len(found := np.flatnonzero(subject == index)):
            return read_records(run.data.storage, file, names).slice(int(found[0]), 1)
    return None
