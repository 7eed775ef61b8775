"""How a table of a report is laid out, whoever renders it."""

from __future__ import annotations

import re

from rec.sections import Table

NUMBER = re.compile(r"[-+±<>≤≥]?\s?[\d.]")


def filled(table: Table) -> Table:
    """Return a table without the columns, beyond the first, in which no row has anything to say."""
    kept = [i for i in range(len(table.head)) if i == 0 or not table.rows or any(row[i].strip() for row in table.rows)]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(head=[table.head[i] for i in kept], rows=rows, caption=table.caption)


def numeric(table: Table) -> list[bool]:
    """Return for every column whether it holds numbers, which stand to the right; the first column names its row."""
    cells = [[row[i] for row in table.rows if row[i].strip() not in ("", "-")] for i in range(len(table.head))]
    return [i > 0 and all(NUMBER.match(cell.strip()) for cell in column) for i, column in enumerate(cells)]
