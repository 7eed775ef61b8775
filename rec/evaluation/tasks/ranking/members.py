"""What is known of the subjects and items of a ranking, by index; an index of nobody has nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.prepared import Prepared
from rec.evaluation.records import Records, column


def names_of(data: Prepared, entity: str) -> list[str]:
    """Return the columns of an entity's table, none where the data set has no such entity."""
    return list(data.entity(entity).column_names) if entity in data.entities else []


def known_of(data: Prepared, entity: str, name: str, index_B: np.ndarray) -> Any:
    """Return a column of an entity's table for some members, null where an index is of none, an Arrow array (B,)."""
    values = data.entity(entity)[name].combine_chunks()
    place_B = np.asarray(index_B, dtype=np.int64) - data.entities[entity].first
    return values.take(pa.array(place_B, mask=(place_B < 0) | (place_B >= len(values))))


def ids_of(data: Prepared, records: Records, start: str) -> dict[str, Any]:
    """Return the raw ids of the members that columns of records name behind `start`, as "user_id" of "about/user".

    Entities without a table are left out.
    """
    names = [name.removeprefix(start) for name in records.column_names if name.startswith(start)]
    return {
        f"{name}_id": known_of(data, name, "id", column(records, f"{start}{name}"))
        for name in names
        if name in data.entities
    }


def vectors_of(data: Prepared, entity: str, name: str) -> np.ndarray:
    """Return a column of vectors as a table by index, (members, D), rows before the first member zero."""
    vector_MD = np.stack(data.entity(entity)[name].to_numpy())
    return np.concatenate([np.zeros((data.entities[entity].first, vector_MD.shape[1]), vector_MD.dtype), vector_MD])
