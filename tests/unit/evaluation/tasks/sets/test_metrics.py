"""Metrics of sets against arithmetic, slow versions, another library and invariants."""

import itertools
import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from rec.errors import DataError
from rec.evaluation.tasks.sets.metrics import (
    average_precision,
    ddi_rate,
    interacting_pairs,
    overlap,
    patient_means,
    per_visit,
    predicted_sets,
    resampled_visits,
    summary,
)


def sets(*members: str, codes: str = "abcde") -> np.ndarray:
    return np.array([[code in visit for code in codes] for visit in members])


def test_overlap_of_a_worked_example() -> None:
    column = overlap(sets("abc"), sets("bcde"))
    assert {name: float(value[0]) for name, value in column.items()} == pytest.approx(
        {
            "jaccard": 2 / 5,
            "precision": 2 / 4,
            "recall": 2 / 3,
            "f1": 2 * (2 / 4 * 2 / 3) / (2 / 4 + 2 / 3),
            "medications": 4,
            "true_medications": 3,
        }
    )


@pytest.mark.parametrize(("true", "predicted"), [("", ""), ("", "ab"), ("ab", ""), ("ab", "cd")])
def test_empty_and_disjoint_sets_give_zero(true: str, predicted: str) -> None:
    column = overlap(sets(true), sets(predicted))
    assert [column[name][0] for name in ("jaccard", "precision", "recall", "f1")] == [0, 0, 0, 0]


def test_overlap_agrees_with_python_sets(rng: np.random.Generator) -> None:
    true_NV, predicted_NV = rng.random((200, 6)) < 0.4, rng.random((200, 6)) < 0.3
    column = overlap(true_NV, predicted_NV)
    for row, (true_V, predicted_V) in enumerate(zip(true_NV, predicted_NV, strict=True)):
        true, predicted = set(np.flatnonzero(true_V)), set(np.flatnonzero(predicted_V))
        both = len(true & predicted)
        precision = both / len(predicted) if predicted else 0
        recall = both / len(true) if true else 0
        assert column["jaccard"][row] == pytest.approx(both / len(true | predicted) if true | predicted else 0)
        assert column["precision"][row] == pytest.approx(precision)
        assert column["recall"][row] == pytest.approx(recall)
        assert column["f1"][row] == pytest.approx(
            2 * precision * recall / (precision + recall) if precision + recall else 0
        )


def test_a_score_at_the_threshold_is_in_the_set() -> None:
    assert predicted_sets(np.array([[0.7, 0.5, 0.2]])).tolist() == [[True, True, False]]
    assert predicted_sets(np.array([[0.7, 0.5, 0.2]]), threshold=0.6).tolist() == [[True, False, False]]


def test_a_score_that_is_no_number_is_named() -> None:
    with pytest.raises(DataError, match="score: row 1, column 0: found nan"):
        predicted_sets(np.array([[0.1, 0.2], [np.nan, 0.3]]))


def test_average_precision_of_a_worked_example() -> None:
    assert average_precision(np.array([[1, 0, 1]]) > 0, np.array([[0.9, 0.8, 0.7]])) == pytest.approx(
        1 / 2 * 1 / 1 + 1 / 2 * 2 / 3
    )


def test_average_precision_of_equal_scores_is_the_share_of_true_codes(rng: np.random.Generator) -> None:
    true_NV = rng.random((50, 7)) < 0.5
    assert average_precision(true_NV, np.full((50, 7), 0.3)) == pytest.approx(true_NV.mean(1))


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_agrees_with_sklearn(rng: np.random.Generator, levels: int) -> None:
    true_NV = rng.random((5000, 9)) < 0.3
    score_NV = rng.integers(0, levels, (5000, 9)).astype(np.float32) / levels
    value_N = average_precision(true_NV, score_NV)
    rows = [*range(300), *range(4000, 4200)]  # On both sides of a block's end.
    expected = [average_precision_score(true_NV[n], score_NV[n]) if true_NV[n].any() else 0 for n in rows]
    assert value_N[rows] == pytest.approx(expected, abs=1e-12)


def test_interacting_pairs_agree_with_a_loop_over_pairs(rng: np.random.Generator) -> None:
    set_NV = rng.random((60, 12)) < 0.4
    upper = np.triu(rng.random((12, 12)) < 0.3, 1)
    interaction_VV = (upper | upper.T).astype(np.int8)
    pairs = [list(itertools.combinations(np.flatnonzero(row), 2)) for row in set_NV]
    expected = [[sum(interaction_VV[i, j] for i, j in row), len(row)] for row in pairs]
    assert interacting_pairs(set_NV, interaction_VV).tolist() == expected


def test_ddi_rate_is_pooled_over_visits() -> None:
    interaction_VV = np.zeros((5, 5))
    interaction_VV[0, 2] = interaction_VV[2, 0] = 1
    count_N2 = interacting_pairs(sets("abc", "de", "a"), interaction_VV)
    assert count_N2.tolist() == [[1, 3], [0, 1], [0, 0]]
    assert ddi_rate(count_N2.sum(0)).value == 1 / 4
    assert ddi_rate(count_N2[2]).value == 0
    assert ddi_rate(count_N2[2]).note == "no pair of codes"


@pytest.mark.parametrize("wrong", [np.eye(5), np.triu(np.ones((5, 5)), 1), np.zeros((4, 4))])
def test_wrong_interactions_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match="interactions"):
        interacting_pairs(sets("abc"), wrong)


def test_patients_with_many_visits_count_once_in_the_patient_mean() -> None:
    true_NV = sets("ab", "ab", "c")
    column = per_visit(true_NV, sets("ab", "a", "d").astype(float))
    assert column["jaccard"].tolist() == [1, 1 / 2, 0]
    values = summary(column, np.array(["p", "p", "q"]))
    assert values["jaccard_visit"].value == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert values["jaccard_patient"].value == pytest.approx(((1 + 1 / 2) / 2 + 0) / 2)
    assert (values["jaccard_visit"].count, values["jaccard_patient"].count) == (3, 2)
    assert values["medications"].value == pytest.approx((2 + 1 + 1) / 3)
    assert values["true_medications"].value == pytest.approx((2 + 2 + 1) / 3)
    assert values["ddi_rate"].value is None
    assert values["ddi_rate"].note == "no interactions of codes are given"


def test_f1_is_the_mean_of_f1_not_that_of_the_means() -> None:
    values = summary(per_visit(sets("ab", "c"), sets("abcde", "").astype(float)), np.arange(2))
    assert values["f1_visit"].value == pytest.approx((2 * 2 / (2 + 5) + 0) / 2)


def random_visits(rng: np.random.Generator, rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    upper = np.triu(rng.random((8, 8)) < 0.3, 1)
    column = per_visit(rng.random((rows, 8)) < 0.4, rng.random((rows, 8)), interaction_VV=upper | upper.T)
    return column, rng.integers(0, rows // 3, rows)


def test_order_of_rows_and_uneven_shards_change_nothing(rng: np.random.Generator) -> None:
    column, patient_N = random_visits(rng, 90)
    order = rng.permutation(90)
    shuffled = summary({name: value[order] for name, value in column.items()}, patient_N[order])
    for name, value in summary(column, patient_N).items():
        assert shuffled[name].value == pytest.approx(value.value, abs=1e-12), name


def test_columns_of_shards_are_those_of_the_whole(rng: np.random.Generator) -> None:
    true_NV, score_NV = rng.random((30, 8)) < 0.4, rng.random((30, 8))
    whole = per_visit(true_NV, score_NV, interaction_VV=np.zeros((8, 8)))
    parts = [per_visit(true_NV[s], score_NV[s], interaction_VV=np.zeros((8, 8))) for s in (slice(0, 3), slice(3, None))]
    for name, value_N in whole.items():
        assert np.concatenate([part[name] for part in parts]).tolist() == value_N.tolist(), name


def test_patient_means_of_a_worked_example() -> None:
    assert patient_means(np.array([1, 0, 0.5]), np.array([0, 1, 0])).tolist() == [0.75, 0]


def test_a_resample_weighs_as_repeated_patients(rng: np.random.Generator) -> None:
    column, patient_N = random_visits(rng, 60)
    patients = np.unique(patient_N)
    for weight_N in resampled_visits(patient_N, rng, rounds=5, share=0.8):
        times = {p: int(weight_N[patient_N == p][0]) for p in patients}
        assert sum(times.values()) == round(0.8 * len(patients))
        copies = [(p, copy) for p in patients for copy in range(times[p])]
        rows = np.concatenate([np.flatnonzero(patient_N == p) for p, _ in copies])
        names = np.concatenate([[f"{p}/{copy}"] * int((patient_N == p).sum()) for p, copy in copies])
        repeated = summary({name: value[rows] for name, value in column.items()}, names)
        for name, value in summary(column, patient_N, weight_N).items():
            assert value.value == pytest.approx(repeated[name].value, abs=1e-12), name
            assert value.count == repeated[name].count, name


def test_resampled_visits_draw_every_patient_alike() -> None:
    weight_RN = resampled_visits(np.array([4, 4, 9, 7, 1]), np.random.default_rng(1), rounds=4000, share=1.0)
    assert (weight_RN[:, 0] == weight_RN[:, 1]).all()
    # One draw has variance below 1, so the mean of 4,000 is within 0.07 (over four standard errors) of 1.
    assert weight_RN.mean(0) == pytest.approx(np.ones(5), abs=0.07)


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"score: found shape \(1, 4\), expected \(1, 5\)"):
        per_visit(sets("a"), np.zeros((1, 4)))


@pytest.mark.slow
def test_a_hundred_thousand_visits_of_200_codes_take_under_5_s_of_one_core(rng: np.random.Generator) -> None:
    true_NV = rng.random((100_000, 200)) < 0.1
    score_NV = rng.random((100_000, 200), dtype=np.float32)
    upper = np.triu(rng.random((200, 200)) < 0.05, 1)
    start = time.process_time()
    column = per_visit(true_NV, score_NV, interaction_VV=upper | upper.T)
    summary(column, rng.integers(0, 40_000, 100_000))
    assert time.process_time() - start < 5
