"""A prepared data set as a source: all its records, filtered and split anew, with its items' frozen vectors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rec.data.prepared import Prepared
from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.tables import ForeignTable
from rec.data.writing import write_array
from rec.errors import DataError
from rec.strict import Strict


class PreparedConfig(Strict):
    """The keys of `[data.read]`."""

    root: str
    """Folder of the prepared data set."""
    features: tuple[str, ...] = ()
    """Modalities ("text", "image") whose frozen vectors are taken."""
    required: tuple[str, ...] = ()
    """Those of them without which an item is left out."""


class FromPrepared(Source):
    """Records and vectors of another prepared data set."""

    Config = PreparedConfig
    config: PreparedConfig

    def open(self, place: Workplace) -> RawData:
        """Write the tables and return where they are."""
        data, config = Prepared.open(self.config.root), self.config
        if "records" not in data.manifest:
            raise DataError(f"{config.root}: holds rows of its own and no records")
        if "events" in data.manifest:
            raise DataError(f"{config.root}: its records are events, expected a user and an item in each")
        vectors = {name: np.array(data.array(f"item_{name}"))[1:] for name in config.features}
        if lacking := [name for name in config.required if name not in vectors]:
            raise DataError(f"data.read.required: {lacking[0]!r} is not among data.read.features")
        there = np.ones(data.num_items, bool)
        for name in config.required:
            there &= (vectors[name] != 0).any(1)
        user_ids, item_ids = data.users["id"].to_pylist(), data.items["id"].filter(pa.array(there)).to_pylist()
        table = data.records(["user", "item", *_kept(data)])
        kept = there[table["item"].to_numpy() - 1]
        table = table.filter(pa.array(kept))
        order = np.lexsort((table["item"].to_numpy(), table["user"].to_numpy()))
        table = table.take(pa.array(order))
        ids = {"user": data.users["id"].take(table["user"]), "item": data.items["id"].take(_from_zero(table["item"]))}
        records = place.write("records", pa.table(ids | {name: table[name] for name in _kept(data)}))
        for name, vector in vectors.items():
            write_array(place.storage, name, vector[there])
        return RawData(
            records=RecordTable(table=records, **{name: name for name in _kept(data)}),
            users=_entity(place, "users", user_ids, data.users, None),
            items=_entity(place, "items", item_ids, data.items, there),
            features={name: place.storage.uri_of(f"{name}.npy") for name in vectors},
            synthetic=bool(data.manifest.get("synthetic_labels")),
            generated=bool(data.manifest.get("generated")),
            licence=str(data.manifest.get("licence", "")),
            dropped={"record of an item without a required modality": int((~kept).sum())},
        )  # fmt: skip


def _kept(data: Prepared) -> list[str]:
    return [name for name in ("time", "rating") if name in data.records_schema.names]


def _from_zero(index: pa.ChunkedArray) -> pa.Array:
    return pa.array(index.to_numpy() - 1)


def _entity(place: Workplace, name: str, ids: list[str], known: pa.Table, chosen: np.ndarray | None) -> EntityTable:
    """Write what is known of some users or items and return it as a table."""
    table = known if chosen is None else known.filter(pa.array(chosen))
    columns = {"id": pa.array(ids, pa.string())}
    columns |= {n: table[n] for n in ("title", "group", "image") if n in table.column_names}
    written: ForeignTable = place.write(name, pa.table(columns))
    return EntityTable(
        table=written, id="id", title="title" if "title" in columns else None,
        group="group" if "group" in columns else None, image="image" if "image" in columns else None,
    )  # fmt: skip
