"""Plain arrays through the protocol that all systems are ranked by."""

import numpy as np
import pytest

from rec.errors import DataError
from rec.evaluation.tasks.ranking.arrays import evaluate_arrays


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
        ({"target": np.array([0])}, "2 rows of scores or states for 1 target"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    arrays = {"target": np.array([0, 1]), "score": np.zeros((2, 3))} | change
    with pytest.raises(DataError, match=message):
        evaluate_arrays(**arrays)
