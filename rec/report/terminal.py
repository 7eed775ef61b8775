"""The texts and tables of a report as plain text for a terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from rec.report.columns import filled, numeric
from rec.sections import Section, Table, Text

GAP = "  "


def render(sections: Iterable[Section], width: int = 100) -> str:
    """Return sections with their texts and tables; folded sections, figures and pictures are left to the page.

    No line is longer than `width` characters: long cells are wrapped, and what still does not fit goes on below in a
    second block of columns that repeats the first column.
    """
    blocks = []
    for section in sections:
        parts = [_part(part, width) for part in section.parts if isinstance(part, Text | Table)]
        if parts and not section.folded:
            title = "\n".join(wrapped(section.title, width))
            blocks.append("\n".join([title, "-" * max(size(line) for line in title.split("\n")), *parts]))
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _part(part: Text | Table, width: int) -> str:
    if isinstance(part, Table):
        caption = [*wrapped(part.caption, width)] if part.caption else []
        return "\n".join([*caption, *table(filled(part), width)])
    text = f"Warning: {part.text}" if part.tone == "warning" else part.text
    return "\n".join(line for paragraph in text.split("\n") for line in wrapped(paragraph, width))


def table(part: Table, width: int = 100) -> list[str]:
    """Return the lines of a table whose columns are aligned, none longer than `width`."""
    right = numeric(part)
    columns = [[clean(line[i]) for line in (part.head, *part.rows)] for i in range(len(part.head))]
    least = [_least(column, width) for column in columns]
    lines: list[str] = []
    for block in _blocks(least, width):
        spare = width - sum(least[i] for i in block) - len(GAP) * (len(block) - 1)
        widths = {}
        for i in sorted(block, key=lambda i: max(map(size, columns[i])) - least[i]):
            widths[i] = min(max(map(size, columns[i])), least[i] + max(spare, 0))
            spare -= widths[i] - least[i]
        lines += [""] if lines else []
        for row in range(len(part.rows) + 1):
            cells = [wrapped(columns[i][row], widths[i]) for i in block]
            for k in range(max(len(cell) for cell in cells)):
                found = [cell[k] if k < len(cell) else "" for cell in cells]
                padded = [_padded(text, widths[i], right[i]) for text, i in zip(found, block, strict=True)]
                lines.append(GAP.join(padded).rstrip())
    return lines


def _least(column: Sequence[str], width: int) -> int:
    """Return the narrowest width of a column: its longest word, numbers in one piece, at most two fifths of a line."""
    words = [word for cell in column for word in (cell.split() or [""])]
    cells = [cell for cell in column[1:] if cell[:1].isdigit() or cell[:1] in ("-", "+")]
    return min(max(max(map(size, words)), max(map(size, cells), default=0), 1), 2 * width // 5)


def _blocks(least: Sequence[int], width: int) -> list[list[int]]:
    """Return the columns of every block; each starts with column 0."""
    blocks, used = [[0]], least[0]
    for i in range(1, len(least)):
        if used + len(GAP) + least[i] > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = least[0]
        blocks[-1].append(i)
        used += len(GAP) + least[i]
    return blocks


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text, by columns of a terminal: wide characters count twice."""
    text = clean(text)
    if size(text) <= width:
        return [text]
    if size(text) == len(text):
        return textwrap.wrap(text, width) or [""]
    lines, line = [], ""
    for character in text:
        if size(line + character) > width:
            lines.append(line.rstrip())
            line = ""
        line += character
    return [*lines, line]


def clean(text: str) -> str:
    """Return a text in one line without characters that steer a terminal."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).rstrip()


def size(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * max(width - size(text), 0)
    return space + text if right else text + space
