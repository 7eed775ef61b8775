"""Ranks and metrics: hand-worked values, bounds, and slow obvious versions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from rec.evaluation.tasks.ranking.ranks import best, coverage, hide, metric_names, of_ranks, order_number, ranked, ranks

NONE = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)


def rank_one(score: list[float], target: int, left_out: list[int] = (), subject: int = 0) -> int:
    """Return the rank of one target; `score` starts with padding's."""
    left = torch.zeros(len(left_out), dtype=torch.int64), torch.tensor(list(left_out), dtype=torch.int64)
    wanted = torch.tensor([0]), torch.tensor([target])
    score_BI = hide(torch.tensor([score], dtype=torch.float32), left, wanted)
    return int(ranks(score_BI, wanted, torch.tensor([subject])))


def of(score: list[float], relevant: list[int], hidden: list[int] = (), user: int = 0) -> dict[str, float]:
    """Return the metrics of one user; items count from 1, item 0 is padding; hidden items are forbidden."""
    forbidden_BI = torch.zeros(1, len(score) + 1, dtype=torch.bool)
    forbidden_BI[0, list(hidden)] = True
    pairs = torch.zeros(len(relevant), dtype=torch.long), torch.tensor(relevant, dtype=torch.long)
    score_BI = hide(torch.tensor([[9e9, *score]]), NONE, pairs, forbidden_BI)
    rank_P = ranks(score_BI, pairs, torch.tensor([user]))
    found = of_ranks(rank_P.numpy(), pairs[0].numpy(), ranked(score_BI).numpy(), (1, 5, 10))
    return {name: float(value[0]) for name, value in found.items()}


def slow_rank(score: list[float], target: int, left_out: set[int], subject: int) -> int:
    """Return the place of the target when all that is ranked is sorted by score, then by the drawn order."""
    kept = [i for i in range(1, len(score)) if i not in left_out - {target}]
    number = {i: int(order_number(torch.tensor(subject), torch.tensor(i))) for i in kept}
    return 1 + sorted(kept, key=lambda i: (-score[i], number[i], i)).index(target)


def test_ranks_equal_a_full_sort_on_a_thousand_cases(rng: np.random.Generator) -> None:
    for _ in range(1000):
        items = int(rng.integers(2, 12))
        score = rng.integers(0, 4, items + 1).astype(float).tolist()  # few values: many ties
        target, subject = int(rng.integers(1, items + 1)), int(rng.integers(0, 50))
        seen = rng.choice(np.arange(1, items + 1), int(rng.integers(0, items)), replace=False).tolist()
        assert rank_one(score, target, seen, subject) == slow_rank(score, target, set(seen), subject)


def test_the_best_items_are_those_of_a_full_sort_and_agree_with_ranks(rng: np.random.Generator) -> None:
    for _ in range(300):
        items, count = int(rng.integers(1, 12)), int(rng.integers(1, 14))
        score_BI = hide(torch.tensor(rng.integers(0, 3, (1, items + 1)).astype(np.float32)), NONE, NONE)
        subject = torch.tensor([int(rng.integers(0, 50))])
        top_BK, value_BK = best(score_BI.clone(), subject, count)
        kept = [item for item in top_BK[0].tolist() if item]
        assert len(kept) == min(items, top_BK.shape[1])
        for place, item in enumerate(kept):
            assert int(ranks(score_BI, (torch.tensor([0]), torch.tensor([item])), subject)) == place + 1
        assert value_BK[0].tolist() == sorted(value_BK[0].tolist(), reverse=True)


def test_a_constant_model_ranks_at_random_not_first() -> None:
    found = [rank_one([0.0] * 101, 7, subject=subject) for subject in range(2000)]
    assert np.mean(found) == pytest.approx(50.5, abs=4 * 28.9 / math.sqrt(2000))
    assert {min(found), max(found)} == {1, 100}


def test_a_score_that_is_no_number_is_last() -> None:
    assert rank_one([0.0, 1.0, math.nan, 3.0], 2, [1]) == 2
    assert of([math.nan, 2, 1], [1])["ndcg@1"] == 0


def test_what_is_to_be_found_is_ranked_where_it_was_seen_but_not_where_it_is_forbidden() -> None:
    assert rank_one([0.0, 3.0, 2.0, 1.0], 3, [1, 3]) == 2
    assert of([9, 5, 4, 3], [1, 2], hidden=[1]) == of([0, 5, 4, 3], [2], hidden=[1])
    assert all(math.isnan(value) for value in of([3, 2, 1], [1], hidden=[1]).values())


def test_one_target_by_hand() -> None:
    rank = np.array([1, 3, 11])
    found = {n: v.mean() for n, v in of_ranks(rank, np.arange(3), np.full(3, 20), (10,)).items()}
    assert found["hit@10"] == found["recall@10"] == pytest.approx((1 + 1 + 0) / 3)
    assert found["precision@10"] == pytest.approx((1 / 10 + 1 / 10 + 0) / 3)
    assert found["ndcg@10"] == pytest.approx((1 / math.log2(2) + 1 / math.log2(4) + 0) / 3)
    assert found["map@10"] == found["mrr@10"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 11) / 3)
    assert found["auc"] == pytest.approx((1 + 17 / 19 + 9 / 19) / 3)


def test_several_relevant_items_by_hand() -> None:
    found = of([6, 5, 4, 3, 2, 1], [1, 3, 6])
    assert found["precision@5"] == pytest.approx(2 / 5)
    assert found["recall@5"] == pytest.approx(2 / 3)
    assert found["map@5"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["ndcg@5"] == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2))
    assert found["hit@1"] == found["mrr"] == 1
    assert found["auc"] == pytest.approx((3 + 2 + 0) / 9)  # 1 beats three others, 3 beats two, 6 none


def test_a_perfect_ranking_of_more_items_than_the_cut_gives_one() -> None:
    found = of([float(20 - i) for i in range(20)], list(range(1, 11)))
    assert found["ndcg@5"] == found["map@5"] == found["precision@5"] == found["auc"] == 1
    assert found["recall@5"] == pytest.approx(1 / 2)


def test_examples_without_a_relevant_item_give_no_value() -> None:
    assert all(math.isnan(value) for value in of([3, 2, 1], []).values())


def test_where_everything_is_relevant_auc_has_no_value() -> None:
    found = of([3, 2, 1], [1, 2, 3])
    assert math.isnan(found["auc"])
    assert found["recall@5"] == 1


def test_equal_scores_get_an_even_chance_over_users() -> None:
    users = torch.arange(4000)
    score_BI = hide(torch.ones(len(users), 21), NONE, NONE)
    rank_P = ranks(score_BI, (users, torch.full_like(users, 7)), users)
    found = of_ranks(rank_P.numpy(), users.numpy(), np.full(len(users), 20), (5,))["precision@5"]
    assert found.mean() == pytest.approx(1 / 20, abs=0.005)  # 5 of 20 places, each worth 1/5


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_agrees_with_a_slow_version_and_with_scikit_learn(data: st.DataObject) -> None:
    items = data.draw(st.integers(3, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    score = rng.permutation(items).astype(float)
    relevant = np.flatnonzero(rng.random(items) < 0.3)
    if not 0 < len(relevant) < items:
        return
    found = of(score.tolist(), (relevant + 1).tolist())
    order = np.argsort(-score)
    flags = np.isin(order, relevant).astype(float)
    for k in (1, 5, 10):
        top = flags[:k]
        precision = [top[: i + 1].mean() for i in range(len(top))]
        assert found[f"precision@{k}"] == pytest.approx(top.sum() / k)
        assert found[f"recall@{k}"] == pytest.approx(top.sum() / len(relevant))
        assert found[f"map@{k}"] == pytest.approx((precision * top).sum() / min(k, len(relevant)))
        assert found[f"precision@{k}"] <= min(1, len(relevant) / k) + 1e-12
        assert found[f"mrr@{k}"] == pytest.approx(top.max() and 1 / (1 + flags.argmax()))
    truth = np.isin(np.arange(items), relevant).astype(float)
    assert found["ndcg@10"] == pytest.approx(ndcg_score([truth], [score], k=10))
    assert found["auc"] == pytest.approx(roc_auc_score(truth, score))
    assert set(found) == set(metric_names((1, 5, 10)))


def test_pairs_of_many_examples_are_ranked_as_each_alone(rng: np.random.Generator) -> None:
    score = torch.tensor(rng.integers(0, 5, (30, 40)).astype(np.float32))
    owner, item = (torch.tensor(part) for part in np.nonzero(rng.random((30, 39)) < 0.15))
    pairs = owner, item + 1
    whole = ranks(hide(score.clone(), NONE, pairs), pairs, torch.arange(30))
    for row in range(30):
        inside = owner == row
        one = torch.zeros(int(inside.sum()), dtype=torch.int64), pairs[1][inside]
        found = ranks(hide(score[row : row + 1].clone(), NONE, one), one, torch.tensor([row]))
        assert found.tolist() == whole[inside].tolist()


def test_coverage_counts_distinct_items() -> None:
    assert coverage(np.array([[1, 2], [2, 3]]), 6) == 0.5
    assert coverage(np.array([[1, 0]]), 4) == 0.25
