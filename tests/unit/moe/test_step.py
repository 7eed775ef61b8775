"""Counts of a whole step."""

import pytest
import torch

from rec.errors import TrainingError
from rec.moe.ranks import Later
from rec.moe.step import StepCounts


def later(*numbers: float) -> Later:
    return Later(value=torch.tensor(numbers, dtype=torch.float64))


def test_what_is_asked_in_one_order_is_summed_over_microbatches() -> None:
    whole = StepCounts()
    assert whole.of(later(7, 7))().tolist() == [7, 7]  # a step of one batch
    whole.note()
    for first, second in (((1, 2), (10,)), ((3, 4), (20,))):
        whole.start()
        assert whole.of(later(*first))().tolist() == [*first]
        whole.of(later(*second))
    whole.tell()
    for _ in range(2):
        whole.start()
        assert whole.of(later(0, 0))().tolist() == [1 + 3, 2 + 4]
        assert whole.of(later(0))().tolist() == [10 + 20]
    with pytest.raises(TrainingError, match="more counts of its step"):
        whole.of(later(0))
    whole.clear()
    assert whole.of(later(5))().tolist() == [5]


def test_a_microbatch_may_ask_for_less_than_another() -> None:
    whole = StepCounts()
    whole.note()
    for counts in ([], [later(2)], [later(3), later(5)]):
        whole.start()
        for count in counts:
            whole.of(count)
    whole.tell()
    whole.start()
    assert [whole.of(later(0))().tolist() for _ in range(2)] == [[2 + 3], [5]]
