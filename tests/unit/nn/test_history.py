"""Batches of histories agree with what rows say one by one."""

from typing import Any

import numpy as np
import pytest

from rec.batch import RaggedColumn
from rec.errors import RequestError
from rec.nn.history import HistoryBatch, collate, sample_histories


def check(batch: HistoryBatch, histories: list[np.ndarray], max_length: int, padded: bool) -> None:
    """Compare a batch with its rows, one by one."""
    start = 0
    for row, history in enumerate(histories):
        recent = history[-max_length:].tolist()
        missing = max_length - len(recent)
        items = [0] * missing + recent if padded else recent
        places = [0 if item == 0 else max_length - len(items) + n + 1 for n, item in enumerate(items)]
        end = start + len(items)
        assert batch.item_N[start:end].tolist() == items
        assert batch.position_N[start:end].tolist() == places
        assert batch.where.sequence_N[start:end].tolist() == [row] * len(items)
        assert batch.seen_item_M[batch.seen_user_M == row].tolist() == history.tolist()
        start = end
    assert start == len(batch.item_N)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("max_length", [1, 5, 50])
@pytest.mark.parametrize("form", [list, RaggedColumn.of])
def test_a_batch_holds_the_last_items_of_every_row(form: Any, max_length: int, padded: bool) -> None:
    rows, _ = sample_histories(40, np.random.default_rng(0), 9)
    batch = collate(rows | {"history": form(rows["history"])}, max_length=max_length, attend_padding=padded)
    check(batch, rows["history"], max_length, padded)
    assert batch.user_B.tolist() == list(range(40))
    assert batch.target_B.tolist() == batch.target_P.tolist() == rows["target"].tolist()


@pytest.mark.parametrize("form", [list, RaggedColumn.of])
def test_targets_may_be_several_or_none(form: Any) -> None:
    batch = collate({"history": form([[1], [2, 3], [4]]), "target": form([[5, 6], [], [7]])}, max_length=3)
    assert batch.target_B.tolist() == [5, 0, 7]
    assert list(zip(batch.target_row_P.tolist(), batch.target_P.tolist(), strict=True)) == [(0, 5), (0, 6), (2, 7)]


@pytest.mark.parametrize("form", [list, RaggedColumn.of])
@pytest.mark.parametrize("histories", [[[1], [], [2], []], [[], [1]]])
def test_an_empty_history_is_named(form: Any, histories: list[list[int]]) -> None:
    with pytest.raises(RequestError, match=f"row {histories.index([])}: history is empty"):
        collate({"history": form(histories)}, max_length=3)
