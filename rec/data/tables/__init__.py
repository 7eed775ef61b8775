"""The one reader of foreign tables: Parquet and text files of every layout, in any file system that pyarrow opens."""

from rec.data.table_format import TableFormat
from rec.data.tables.files import ENDINGS, files
from rec.data.tables.raw import raw_rows
from rec.data.tables.reading import (
    ForeignTable,
    Piece,
    columns,
    notes_of,
    pieces,
    read,
    read_whole,
    require,
    schema,
    time_form,
)
from rec.data.tables.times import TimeForm
from rec.data.tables.types import typed
from rec.data.tables.values import Kind

__all__ = [
    "ENDINGS",
    "ForeignTable",
    "Kind",
    "Piece",
    "TableFormat",
    "TimeForm",
    "columns",
    "files",
    "notes_of",
    "pieces",
    "raw_rows",
    "read",
    "read_whole",
    "require",
    "schema",
    "time_form",
    "typed",
]
