"""Columns of ragged rows in one array."""

from typing import Any

import numpy as np
import pytest

from rec.batch import RaggedColumn

ROWS = [[5, 6, 7], [], [8], [9, 1]]


def plain(column: Any) -> Any:
    """Return rows, or rows of rows, as lists."""
    return column.tolist() if isinstance(column, np.ndarray) else [plain(row) for row in column]


def column() -> RaggedColumn:
    return RaggedColumn(np.array([0, 0, 5, 6, 7, 8, 9, 1, 0]), np.array([2, 5, 5, 6, 8]))


@pytest.mark.parametrize("given", [column(), ROWS, [np.array(row, np.int32) for row in ROWS]])
def test_rows_are_what_lists_of_arrays_are(given: Any) -> None:
    found = RaggedColumn.of(given)
    assert plain(found) == ROWS
    assert [plain(found[row]) for row in range(-4, 4)] == ROWS + ROWS
    assert (len(found), found.lengths.tolist(), found.flat.tolist()) == (4, [3, 0, 1, 2], [5, 6, 7, 8, 9, 1])
    assert found.owners.tolist() == [0, 0, 0, 2, 3, 3]
    assert plain(found.taken([3, 0, 0])) == [ROWS[3], ROWS[0], ROWS[0]]


@pytest.mark.parametrize("some", [slice(1, 3), slice(2), slice(-2, None), slice(3, 1), slice(9, None), slice(0, 4, 2)])
def test_some_rows_are_a_column(some: slice) -> None:
    found = column()[some]
    assert isinstance(found, RaggedColumn)
    assert plain(found) == ROWS[some]


@pytest.mark.parametrize(
    ("given", "rows"),
    [(np.array([4, 5]), [[4], [5]]), (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]), ([], []), ([[], []], [[], []])],
)
def test_numbers_and_vectors_are_rows_too(given: Any, rows: list[list[int]]) -> None:
    assert plain(RaggedColumn.of(given)) == rows


@pytest.mark.parametrize("nested", [[[[1, 2], []], [], [[3]]], [[], []], [[[]]], []])
def test_rows_of_rows(nested: list[list[list[int]]]) -> None:
    found = RaggedColumn.nested(nested)
    assert plain(found) == nested
    assert RaggedColumn.nested(found) is found
    assert plain(found[1:]) == nested[1:]
    for part in (found, found[1:]):
        assert plain(part.last()) == [row[-1] if row else [] for row in plain(part)]
    order = list(range(len(nested)))[::-1]
    assert plain(found.taken(order)) == nested[::-1]


def test_a_row_that_is_not_there_is_an_error() -> None:
    for place in (4, -5):
        with pytest.raises(IndexError, match="of 4"):
            column()[place]
