"""Which parts of a benchmark are asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rec.errors import RequestError


def chosen(benchmark: str, parts: Sequence[str], only: Collection[str]) -> list[str]:
    """Return the parts that are asked for, all where none is named, in the order they are run.

    Raises:
        RequestError: one does not exist.
    """
    if unknown := sorted(set(only) - set(parts)):
        raise RequestError(f"--only {','.join(unknown)}: no such part of {benchmark}; there are {', '.join(parts)}")
    return [part for part in parts if not only or part in only]
