"""What a measurement says in words, by hand: how good, beside what, and which numbers are one fact."""

from typing import Any

import numpy as np
import pytest

from rec.evaluation.bootstrap import equals, intervals
from rec.evaluation.headline import (
    beside,
    headline,
    label,
    one_fact,
    same_everywhere,
    simple_answers,
    standing,
    value_in_words,
)
from rec.evaluation.headline import summarise as summary_of


def measured(value: float, ends: tuple[float, float] | None, higher: bool = True, **baselines: float) -> dict[str, Any]:
    name = "ndcg@10" if higher else "rmse"
    return {
        "examples": 1200,
        "split": "test",
        "shown": [name],
        "metrics": {name: value},
        "interval": {} if ends is None else {name: {"mean": value, "low": ends[0], "high": ends[1]}},
        "baselines": {label.replace("_", " "): {name: number} for label, number in baselines.items()},
        "directions": {name: higher},
    }


def test_a_run_below_popularity_says_so() -> None:
    told = headline([measured(0.1139, (0.1088, 0.119), popularity=0.1328, random=0.004)])
    assert told == (
        "On 1,200 examples of the test split, ndcg@10 is 0.1139 (95 % interval 0.1088 to 0.1190); higher is better. "
        "That is worse than popularity (0.1328); better than random (0.0040)."
    )


@pytest.mark.parametrize(
    ("other", "higher", "words"),
    [
        (0.3, True, "worse than"),
        (0.1, True, "better than"),
        (0.2, True, "not clearly different from"),
        (0.15, True, "not clearly different from"),
        (0.3, False, "better than"),
        (0.1, False, "worse than"),
    ],
)
def test_a_value_stands_beside_another_by_its_interval_and_direction(other: float, higher: bool, words: str) -> None:
    assert standing(other, 0.15, 0.25, higher) == words


def test_lower_is_better_where_it_is() -> None:
    told = headline([measured(0.9, (0.85, 0.95), higher=False, mean_rating=1.1, mean_of_the_item=0.91)])
    assert told.endswith(
        "rmse is 0.9000 (95 % interval 0.8500 to 0.9500); lower is better. That is better than mean rating (1.1000); "
        "not clearly different from mean of the item (0.9100)."
    )


def test_the_metric_is_explained_where_its_meaning_is_known() -> None:
    told = headline([measured(0.2, None, popularity=0.1) | {"meanings": {"ndcg@10": "1 where the best leads"}}])
    assert "higher is better. (ndcg@10: 1 where the best leads.) That is better than popularity" in told


def test_several_seeds_have_a_deviation_and_one_has_none() -> None:
    seeds = [measured(value, None, popularity=0.2) for value in (0.1, 0.3, 0.2)]
    # mean 0.2, deviation sqrt((0.01 + 0.01 + 0) / 2) = 0.1
    assert "ndcg@10 is 0.2000 ± 0.1000 (standard deviation over 3 seeds)" in headline(seeds)
    assert beside("ndcg@10", seeds) == "not clearly different from popularity (0.2000)"
    one = seeds[:1]
    assert "±" not in headline(one)
    assert "deviation" not in headline(one)
    assert value_in_words("ndcg@10", one, summary_of(one)) == "0.1000"
    assert value_in_words("ndcg@10", seeds, summary_of(seeds)) == "0.2000 ± 0.1000"


def test_one_example_is_one_and_no_baselines_are_no_sentence() -> None:
    alone = measured(0.5, None) | {"examples": 1}
    assert headline([alone]) == "On 1 example of the test split, ndcg@10 is 0.5000; higher is better."
    assert headline([alone | {"metrics": {"ndcg@10": None}}]) == "On 1 example of the test split no metric has a value."


def test_equal_columns_are_one_fact_with_one_interval() -> None:
    rng = np.random.default_rng(0)
    hit, nan = rng.random(50).round(), np.full(50, np.nan)
    values = {"hit": hit, "ndcg": hit / 2, "recall": hit.copy(), "a": nan, "b": nan.copy()}
    same = equals(values)
    assert same == {"recall": "hit", "b": "a"}
    found = intervals(values, 200, rng)
    assert found["recall"] == found["hit"]
    assert found["ndcg"] != found["hit"]
    assert one_fact(["recall", "ndcg", "hit", "recall"], same) == {"recall": ["recall", "hit"], "ndcg": ["ndcg"]}


def test_what_a_perfect_model_makes_equal_by_chance_is_not_one_fact() -> None:
    same = {"recall": "hit", "fmr": "hit"}
    baselines = [{"hit": 0.25, "recall": 0.25, "fmr": 0.5}, {"hit": 0.1, "recall": 0.1, "fmr": 0.1}]
    assert same_everywhere(same, baselines) == {"recall": "hit"}
    assert same_everywhere(same, []) == same


def test_a_fact_is_called_by_all_its_names() -> None:
    assert label(["hit@10", "recall@10"], {}) == "hit@10 = recall@10"
    assert label(["rmse"], {"rmse": False}) == "rmse (lower is better)"


def test_simple_answers_of_several_tasks_say_whose_they_are() -> None:
    numbers = {"baselines": {"popularity": {"hit@10": 0.25}, "mean rating": {"rmse": 1.5}}, "directions": {}}
    assert simple_answers(numbers, ["hit@10", "auc"]) == ("popularity", {"hit@10": "0.2500"})
    told = {"hit@10": "0.2500 (popularity)", "rmse": "1.5000 (mean rating)"}
    assert simple_answers(numbers, ["hit@10", "rmse"]) == ("simple answer", told)
    assert simple_answers({"baselines": {}}, ["hit@10"]) == ("", {})


@pytest.mark.parametrize(
    ("name", "found"),
    [("bleu4", ("copy", "2.0000")), ("rmse", ("mean", "0.8000")), ("fmr", ("template", "0.3000"))],
)
def test_the_best_simple_answer_that_is_told_no_more_stands_beside_a_metric(name: str, found: tuple[str, str]) -> None:
    baselines = {
        "template": {"bleu4": 1.0, "fmr": 0.3},
        "copy": {"bleu4": 2.0, "fmr": 0.1},
        "template of the truth (leak)": {"bleu4": 5.0, "fmr": 1.0, "usn": 3.0},
        "global": {"rmse": 0.9},
        "mean": {"rmse": 0.8},
    }
    told_more = ["template of the truth (leak)"]
    numbers = {"baselines": baselines, "told_more": told_more, "directions": {"rmse": False}}
    assert simple_answers(numbers, [name]) == (found[0], {name: found[1]})
    assert simple_answers(numbers, ["usn"]) == ("", {})
    told = numbers | {"told_more": []}
    assert simple_answers(told, ["fmr"]) == (told_more[0], {"fmr": "1.0000"})
