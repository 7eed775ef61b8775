"""How a table of a report is laid out, whoever renders it."""

from __future__ import annotations

import re

from rec.sections import Table

PAGE = 1120
"""Width of a page of a report in px, as its style has it."""
CHARACTER, BETWEEN, LAST, WHOLE = 8.2, 20, 224, 24
"""Width of a character and between columns in px, the least of a last column of words, and the characters of a first
one that are never broken: as the style has them, in a wide font."""
SENTENCE = 30
"""Characters from which a cell is no word but a sentence."""
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


def worded(table: Table) -> bool:
    """Return whether the last of several columns holds sentences, which a narrow page puts below their row."""
    return len(table.head) > 2 and any(len(row[-1]) > SENTENCE for row in table.rows) and not numeric(table)[-1]


def parted(table: Table) -> list[Table]:
    """Return a table as it fits a page: one below the other, each with the first column and some of the others."""
    width, parts = widths(table), [[0]]
    for column in range(1, len(table.head)):
        if len(parts[-1]) > 1 and sum(width[i] for i in (*parts[-1], column)) > PAGE:
            parts.append([0])
        parts[-1].append(column)
    captions = [table.caption, *[""] * len(parts)]
    return [
        Table(head=[table.head[i] for i in kept], rows=[[row[i] for i in kept] for row in table.rows], caption=caption)
        for kept, caption in zip(parts, captions, strict=False)
    ]


def widths(table: Table) -> list[float]:
    """Return how many px each column needs at least: a number stays on one line, words break between them."""
    found = []
    for column, number in enumerate(numeric(table)):
        cells = [row[column] for row in table.rows]
        whole = cells if number else [cell[:WHOLE] for cell in cells] if column == 0 else []
        words = [word for text in (table.head[column], *cells) for word in text.split()]
        least = max((len(text) for text in (*whole, *words)), default=0) * CHARACTER
        last = column == len(table.head) - 1 and column > 1 and not number
        found.append(BETWEEN + max(least, LAST if last else 0))
    return found
