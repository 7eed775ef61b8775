"""The epochs of evaluations, through phases."""

import pytest

from rec.evaluation.history import epochs


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([(0, 2), (0, 4)], [2, 4]),
        ([(0, 1), (0, 3), (1, 2), (1, 5), (2, 1)], [1, 3, 5, 8, 9]),
        ([(1, 1), (1, 2)], [1, 2]),
    ],
)
def test_epochs_are_counted_through_phases(places: list[tuple[int, int]], expected: list[int]) -> None:
    assert epochs([{"phase": phase, "epoch": epoch} for phase, epoch in places]) == expected
