"""Ranks and metrics against slow versions and by hand."""

import math

import numpy as np
import pytest
import torch
from rec.metrics.arrays import evaluate_arrays
from rec.metrics.bootstrap import interval, paired
from rec.metrics.groups import groups, popular_items, popular_share
from rec.metrics.ranking import coverage, full_ranks, means, of_ranks

from rec.errors import DataError


def slow_rank(score: list[float], target: int, seen: set[int]) -> float:
    others = [s for i, s in enumerate(score) if i not in seen | {0, target}]
    return 1 + sum(s > score[target] for s in others) + sum(s == score[target] for s in others) / 2


def test_ranks_equal_brute_force_on_a_thousand_cases(rng: np.random.Generator) -> None:
    for _ in range(1000):
        items = int(rng.integers(2, 12))
        score = rng.integers(0, 4, items + 1).astype(float)  # few values: many ties
        target = int(rng.integers(1, items + 1))
        seen = rng.choice(np.arange(1, items + 1), int(rng.integers(0, items)), replace=False)
        user = torch.zeros(len(seen), dtype=torch.int64)
        rank = full_ranks(torch.tensor(score[None]), torch.tensor([target]), user, torch.from_numpy(seen))
        assert rank.item() == pytest.approx(slow_rank(score.tolist(), target, set(seen.tolist())), abs=1e-9)


def test_a_constant_model_gets_the_middle_rank_not_the_first() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert full_ranks(torch.zeros(1, 102), torch.tensor([7]), none, none).item() == 1 + 100 / 2


def test_a_target_that_is_not_a_number_ranks_last() -> None:
    score = torch.tensor([[0.0, 1.0, math.nan, 3.0]])
    assert full_ranks(score, torch.tensor([2]), torch.tensor([0]), torch.tensor([1])).item() == 2


def test_metrics_by_hand() -> None:
    found = means(np.array([1.0, 3.0, 11.0]), cuts=(10,))
    assert found["hit@10"] == found["recall@10"] == pytest.approx((1 + 1 + 0) / 3)
    assert found["precision@10"] == pytest.approx((1 / 10 + 1 / 10 + 0) / 3)
    assert found["ndcg@10"] == pytest.approx((1 / math.log2(2) + 1 / math.log2(4) + 0) / 3)
    assert found["map@10"] == found["mrr@10"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 11) / 3)


def test_ndcg_agrees_with_scikit_learn(rng: np.random.Generator) -> None:
    from sklearn.metrics import ndcg_score

    score = rng.standard_normal((20, 50))
    target = rng.integers(0, 50, 20)
    metrics, _ = evaluate_arrays(target=target, score=score, cuts=(10,))
    assert metrics["ndcg@10"] == pytest.approx(ndcg_score(np.eye(50)[target], score, k=10), abs=1e-9)


def test_arrays_of_states_equal_arrays_of_scores(rng: np.random.Generator) -> None:
    state, item = rng.standard_normal((700, 4)).astype(np.float32), rng.standard_normal((30, 4)).astype(np.float32)
    target, offset = rng.integers(0, 30, 700), np.arange(701) * 2
    seen = rng.integers(0, 30, 1400)
    a, rank = evaluate_arrays(target=target, state=state, item=item, seen_offset=offset, seen_item=seen)
    b, _ = evaluate_arrays(target=target, score=state @ item.T, seen_offset=offset, seen_item=seen)
    assert a == pytest.approx(b)
    assert len(rank) == 700


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.array([0, 5])}, "target.1. is 5, expected 0 to 2"),
        ({"score": None}, "expected either score, or both state and item"),
        ({"seen_offset": np.array([0, 1])}, "seen_offset must rise from 0 to 0 in 3 steps"),
        ({"target": np.array([0])}, "2 rows of scores or states for 1 targets"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    arrays = {"target": np.array([0, 1]), "score": np.zeros((2, 3))} | change
    with pytest.raises(DataError, match=message):
        evaluate_arrays(**arrays)


def test_a_model_compared_with_itself_gains_nothing(rng: np.random.Generator) -> None:
    value = of_ranks(torch.from_numpy(rng.integers(1, 40, 300).astype(float)))["ndcg@10"].numpy()
    result = paired(value, value, 500, rng)
    assert (result.difference.mean, result.difference.low, result.difference.high) == (0, 0, 0)


def test_the_interval_covers_what_the_normal_one_does(rng: np.random.Generator) -> None:
    value = rng.standard_normal(2000)
    found = interval(value, 2000, rng)
    half = 1.96 * value.std() / math.sqrt(2000)
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_groups_are_bins_of_equal_width_closed_on_the_left() -> None:
    assert groups(np.array([0.0, 0.29, 0.3, 0.59, 0.6, 0.9])).tolist() == [0, 0, 1, 1, 2, 2]
    popular = popular_items(np.array([0, 5, 1, 4]), 0.3)
    assert popular.tolist() == [False, True, False, True]
    histories = [np.array([1, 3]), np.array([2]), np.array([1, 2, 3, 2])]
    assert popular_share(histories, popular).tolist() == [1.0, 0.0, 0.5]


def test_coverage_counts_distinct_items() -> None:
    assert coverage(np.array([[1, 2], [2, 3]]), 6) == 0.5
