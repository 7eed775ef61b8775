"""What a run is compared with at the head of its report."""

from typing import Any

from rec.report.opening import comparisons, explained


def numbers(**baselines: dict[str, float]) -> dict[str, Any]:
    told = {name.replace("_", " "): values for name, values in baselines.items()}
    return {
        "shown": ["ndcg@10", "auc"],
        "directions": {},
        "baselines": told,
        "tasks": {"ranking": {"baselines": told}},
        "told_more": [],
        "oracles": [name for name in told if name == "the planted truth"],
    }


def test_the_best_simple_answer_is_that_of_the_first_metric_and_the_oracle_stands_apart() -> None:
    found = numbers(
        popularity={"ndcg@10": 0.1, "auc": 0.7},
        similar_users={"ndcg@10": 0.2, "auc": 0.6},
        the_planted_truth={"ndcg@10": 0.4, "auc": 0.9},
    )
    columns = comparisons(found, ["ndcg@10", "auc"])
    assert columns == [
        ("similar users", {"ndcg@10": "0.2000", "auc": "0.6000"}),
        ("the planted truth (oracle)", {"ndcg@10": "0.4000", "auc": "0.9000"}),
    ]
    assert "best in ndcg@10" in explained(columns, ["ndcg@10"])


def test_a_metric_that_the_best_lacks_says_whose_it_is() -> None:
    found = numbers(popularity={"auc": 0.7}, similar_users={"ndcg@10": 0.2})
    told = {"ndcg@10": "0.2000 (similar users)", "auc": "0.7000 (popularity)"}
    assert comparisons(found, ["ndcg@10", "auc"]) == [("simple answer", told)]


def test_without_simple_answers_nothing_stands_beside() -> None:
    assert comparisons(numbers(), ["ndcg@10"]) == []
    assert explained([], ["ndcg@10"]) == ""
