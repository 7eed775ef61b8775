"""Records as tables."""

import numpy as np
import pytest
import torch

from rec.evaluation.records import column, joined, ragged, records_of, with_columns
from rec.evaluation.task import by_unit, mean


def test_columns_of_every_form_come_back_and_join() -> None:
    values, owner = torch.tensor([5, 6, 7]), torch.tensor([0, 0, 2])
    one = records_of({"n": torch.tensor([1, 2, 3]), "v": torch.eye(3), "r": (values, owner), "s": ["a", "b", "c"]}, 3)
    two = joined([one, one.slice(1, 2)])
    assert column(two, "n").tolist() == [1, 2, 3, 2, 3]
    assert column(two, "v").tolist() == [*np.eye(3).tolist(), *np.eye(3)[1:].tolist()]
    assert [part.tolist() for part in ragged(two, "r")] == [[5, 6, 7, 7], [0, 0, 2, 4]]
    assert two["s"].to_pylist() == ["a", "b", "c", "b", "c"]
    assert ragged(two.slice(1, 4), "r")[1].tolist() == [1, 3]


def test_columns_are_added_or_replaced() -> None:
    table = with_columns(records_of({"n": np.arange(2)}, 2), {"n": np.array([4, 5]), "m": np.array([0.5, 1.5])})
    assert column(table, "n").tolist() == [4, 5]
    assert column(table, "m").tolist() == [0.5, 1.5]


def test_no_parts_are_no_records() -> None:
    assert len(joined([])) == 0


def test_means_are_of_units_and_of_what_is_defined() -> None:
    value, unit = np.array([0.2, 0.4, 0.9, np.nan]), np.array(["a", "a", "b", "c"])
    assert by_unit(value, unit)[:2] == pytest.approx([0.3, 0.9])
    assert np.isnan(by_unit(value, unit)[2])
    assert mean(by_unit(value, unit)) == pytest.approx(0.6)
    assert mean(np.array([np.nan])) is None
