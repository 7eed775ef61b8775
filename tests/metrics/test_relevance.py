"""Metrics with several relevant items: hand-worked values, bounds, and a slow obvious version."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from rec.metrics.relevance import metric_names, relevance


def of(score: list[float], relevant: list[int], hidden: list[int] = (), user: int = 0) -> dict[str, float]:
    """Return the metrics of one user; items count from 1, item 0 is padding."""
    score_BI = torch.tensor([[9e9, *score]])
    hidden_BI = torch.zeros_like(score_BI, dtype=torch.bool)
    hidden_BI[0, list(hidden)] = True
    pairs = torch.zeros(len(relevant), dtype=torch.long), torch.tensor(relevant, dtype=torch.long)
    found = relevance(score_BI, pairs, hidden_BI, torch.tensor([user]))
    return {name: value.item() for name, value in found.items()}


def test_the_worked_example() -> None:
    found = of([6, 5, 4, 3, 2, 1], [1, 3, 6])
    assert found["precision@5"] == pytest.approx(2 / 5)
    assert found["recall@5"] == pytest.approx(2 / 3)
    assert found["map@5"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["ndcg@5"] == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2))
    assert found["hit@1"] == 1
    assert found["auc"] == pytest.approx((3 + 2 + 0) / 9)  # 1 beats three others, 3 beats two, 6 none


def test_with_one_relevant_item_map_is_the_reciprocal_rank() -> None:
    found = of([1, 4, 3, 2], [3])
    assert found["map@5"] == pytest.approx(1 / 2)
    assert found["ndcg@5"] == pytest.approx(1 / math.log2(3))


def test_a_perfect_ranking_of_more_items_than_the_cut_gives_one() -> None:
    found = of([float(20 - i) for i in range(20)], list(range(1, 11)))
    assert found["ndcg@5"] == found["map@5"] == found["precision@5"] == found["auc"] == 1
    assert found["recall@5"] == pytest.approx(1 / 2)


def test_hidden_items_are_neither_ranked_nor_relevant() -> None:
    assert of([9, 5, 4, 3], [1, 2], hidden=[1]) == of([0, 5, 4, 3], [2], hidden=[1])


def test_users_without_a_relevant_item_give_no_value() -> None:
    assert all(math.isnan(value) for value in of([3, 2, 1], []).values())


def test_equal_scores_get_an_even_chance_over_users() -> None:
    users = torch.arange(4000)
    score_BI = torch.tensor([9e9, *[1.0] * 20]).expand(len(users), -1)
    hidden_BI = torch.zeros_like(score_BI, dtype=torch.bool)
    found = relevance(score_BI, (users, torch.full_like(users, 7)), hidden_BI, users)["precision@5"]
    assert found.mean().item() == pytest.approx(1 / 20, abs=0.005)  # 5 of 20 places, each worth 1/5


def test_a_score_that_is_no_number_is_last() -> None:
    assert of([math.nan, 2, 1], [1])["ndcg@1"] == 0


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_agrees_with_the_slow_version_and_with_scikit_learn(data: st.DataObject) -> None:
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
    truth = np.isin(np.arange(items), relevant).astype(float)
    assert found["ndcg@10"] == pytest.approx(ndcg_score([truth], [score], k=10))
    assert found["auc"] == pytest.approx(roc_auc_score(truth, score))
    assert set(found) == set(metric_names())
