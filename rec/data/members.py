"""Members of an entity as people name them: raw ids both ways, titles, pictures, in files that processes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.ids import Ids, id_fault, is_utf8
from rec.data.prepared import Entity
from rec.errors import DataError
from rec.storage import Storage

SHOWN = {"title": ("title", "name"), "image": ("image",)}
"""What people are shown of a member, and the columns of an entity's table that may hold it: words, and a picture's
bytes or address."""
PICTURE, PICTURE_TYPE = "image", "image/*"
"""The field of an answer that holds a picture's address, and the media type by which schemas tell it."""
FILE = "shown.arrow"


SIGNATURES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG": "image/png",
    b"GIF8": "image/gif",
    b"<svg": "image/svg+xml",
    b"<?xml": "image/svg+xml",
}


def media_type(content: bytes) -> str | None:
    """Return the media type of a picture that browsers show, None for others."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in SIGNATURES.items() if content.startswith(start)), None)


@dataclass(frozen=True)
class Members:
    """The members of one entity; indices below the first one, such as padding, are nobody's."""

    name: str
    first: int
    ids: Ids
    shown: pa.Table
    """Row i is member i."""

    @classmethod
    def of(cls, entity: Entity, table: pa.Table) -> Members:
        """Return the members of an entity from its table, which begins with the first one.

        Raises:
            DataError: a member has no id, or one that no request can name.
        """
        none = [None] * entity.first
        columns: dict[str, Any] = {"index": np.arange(entity.first + len(table))}
        for name, candidates in SHOWN.items():
            if there := [column for column in candidates if column in table.column_names]:
                kind = table.schema.field(there[0]).type
                columns[name] = pa.concat_arrays([pa.array(none, kind), *table[there[0]].chunks])
        names = [str(value) for value in table["id"].to_pylist()]
        if "" in names:
            raise DataError(f"{entity.file}: row {names.index('') + 1}: {id_fault('')}; prepare the data set again")
        return cls(entity.name, entity.first, Ids.of([*[""] * entity.first, *names]), pa.table(columns))

    @classmethod
    def open(cls, folder: Path, name: str, first: int) -> Members:
        """Return the members that `write` put into a folder, memory-mapped."""
        with pa.memory_map(str(folder / FILE)) as file:
            shown = pa.ipc.open_file(file).read_all()
        return cls(name, first, Ids.open(str(folder)), shown)

    def write(self, storage: Storage, folder: str) -> None:
        """Write the members below a folder."""
        self.ids.write(storage, folder)

        def fill(stream: Any) -> None:
            with pa.ipc.new_file(stream, self.shown.schema) as writer:
                writer.write_table(self.shown)

        storage.write_with(f"{folder}/{FILE}", fill)

    def __len__(self) -> int:
        """Return how many indices there are, those below the first one included."""
        return len(self.ids)

    def find(self, names: Sequence[str]) -> np.ndarray:
        """Return the index of each raw id, -1 where it is not known, (len(names),)."""
        found = self.ids.find(names)
        return np.where(found < self.first, -1, found)

    def id(self, index: int) -> str:
        """Return the raw id at an index."""
        return self.ids.name(index)

    def title(self, index: int) -> str | None:
        """Return what a member is called, None where that is not known."""
        found = self.shown["title"][index].as_py() if "title" in self.shown.column_names else None
        return None if found is None else str(found)

    def picture(self, index: int) -> bytes | str | None:
        """Return a member's picture or the address of one, None where there is none."""
        return self.shown[PICTURE][index].as_py() if PICTURE in self.shown.column_names else None

    def has_picture(self, index: int) -> bool:
        """Return whether there is a picture of a member, without reading it."""
        return PICTURE in self.shown.column_names and bool(self.shown[PICTURE][index].is_valid)

    @property
    def stores_pictures(self) -> bool:
        """Whether pictures are bytes, not addresses."""
        if PICTURE not in self.shown.column_names:
            return False
        kind = self.shown.schema.field(PICTURE).type
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def search(self, text: str, limit: int) -> list[int]:
        """Return up to `limit` members whose ids start with a text, then those whose titles hold it."""
        by_id = [index for index in self.find(self.ids.search(text, limit)).tolist() if index >= 0]
        if "title" not in self.shown.column_names or not text or len(by_id) >= limit or not is_utf8(text):
            return by_id
        holds = pc.match_substring(self.shown["title"].cast(pa.string()), text, ignore_case=True)
        by_title = pc.indices_nonzero(pc.fill_null(holds, False))[: limit + len(by_id)].to_pylist()
        return list(dict.fromkeys([*by_id, *by_title]))[:limit]
