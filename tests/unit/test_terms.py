"""Terms: their values over ranks, and weights that follow from other terms."""

import pytest
import torch

from rec.batch import Column, stored
from rec.terms import Term


@pytest.mark.parametrize(("rate", "weight"), [(0.0, 0.5), (0.25, 0.375), (1.0, 0.0)])
def test_a_weight_may_follow_from_the_other_terms_of_the_global_batch(rate: float, weight: float) -> None:
    term = Term(torch.tensor(3.0), 2, 0.5, scale=lambda values: 1 - values["rate"])
    assert term.weight_in({"rate": rate, "other": 7.0}) == weight
    assert Term(torch.tensor(3.0), 2, 0.5).weight_in({"rate": rate}) == 0.5


def test_what_requests_alone_have_is_not_read_from_files() -> None:
    columns = (Column("user", "int64"), Column("said", "str", optional=True, asked_only=True), Column("item", "int32"))
    assert stored(columns) == ["user", "item"]
