"""Tables, sentences and sizes as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rec.progress import terminal_width
from rec.report import terminal
from rec.sections import Table


def table(head: Sequence[str], rows: Iterable[Sequence[str]], width: int | None = None) -> str:
    """Return rows as aligned columns, no line wider than the terminal, or than `width`.

    What does not fit goes on in a second block below, which repeats the first column.
    """
    return "\n".join(terminal.table(Table(head=head, rows=list(rows)), width or terminal_width()))


def paragraph(text: str, width: int | None = None) -> str:
    """Return a text in lines no wider than the terminal, or than `width`."""
    width = width or terminal_width()
    return "\n".join(line for part in text.split("\n") for line in terminal.wrapped(part, width))


def bytes_text(size: float) -> str:
    """Return a size in MiB, or in GiB from one on."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
