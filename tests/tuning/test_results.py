import csv

import numpy as np
import pytest

from rec.config import from_table, load
from rec.errors import TrainingError
from rec.storage import Storage
from rec.tuning.page import importance, write_page
from rec.tuning.results import dominates, front, ranked, read_trials, write_results
from rec.tuning.trial import FAILED, FINISHED, Trial

KEYS = ("train.learning_rate", "model.gate", "model.temperature")
GOALS = {"ndcg@10": "max", "evaluate_s": "min"}


def trial(name: str, ndcg: float, seconds: float = 1.0, **point) -> Trial:
    best = {"ndcg@10": ndcg, "evaluate_s": seconds}
    return Trial(name, point, FINISHED, best=best, curve=[ndcg / 2, ndcg], evaluations=2)


def test_trials_are_read_in_the_order_they_were_drawn(tmp_path) -> None:
    storage = Storage(str(tmp_path))
    for number, name in enumerate(["c", "a", "b"]):
        one = trial(name, 0.1)
        one.drawn_s = float(number)
        one.write(storage.below(f"trials/{name}"))
    assert [t.id for t in read_trials(storage)] == ["c", "a", "b"]


def test_failed_trials_are_not_ranked() -> None:
    bad = trial("b", 0.9)
    bad.status = FAILED
    assert [t.id for t in ranked([trial("a", 0.1), bad, trial("c", 0.3)], {"ndcg@10": "max"})] == ["c", "a"]


def test_trials_that_none_dominates_come_first() -> None:
    trials = [trial("slow", 0.5, 3.0), trial("fast", 0.3, 1.0), trial("neither", 0.4, 4.0), trial("both", 0.45, 2.0)]
    assert dominates(trials[0], trials[2], GOALS)
    assert not dominates(trials[0], trials[1], GOALS)
    assert not dominates(trials[0], trials[0], GOALS)
    assert [t.id for t in front(trials, GOALS)] == ["slow", "both", "fast"]
    assert [t.id for t in ranked(trials, GOALS)] == ["slow", "both", "fast", "neither"]


def random_trials(count: int) -> list[Trial]:
    rng = np.random.default_rng(0)
    trials = []
    for number in range(count):
        rate, gate = float(10 ** rng.uniform(-4, -2)), str(rng.choice(["item", "mean"]))
        point = {"train.learning_rate": rate, "model.gate": gate}
        if gate == "item":
            point["model.temperature"] = float(rng.uniform(0.1, 2))
        trials.append(trial(f"t{number}", 0.3 - 0.1 * (np.log10(rate) + 3) ** 2 + 0.001 * rng.normal(), **point))
    return trials


def test_importance_finds_the_key_that_matters() -> None:
    found = importance(random_trials(60), KEYS, "ndcg@10")
    assert next(iter(found)) == "train.learning_rate"
    assert found["train.learning_rate"][0] > 10 * abs(found["model.temperature"][0])


@pytest.mark.parametrize("objectives", [{}, {"evaluate_s": "min"}])
@pytest.mark.parametrize("count", [1, 20])
def test_a_search_leaves_a_table_plots_and_the_best_run(tmp_path, objectives, count: int) -> None:
    table = {"system": "rec.systems.msmrec:MSMRec", "out": str(tmp_path), "data": {"root": "data"}}
    config = from_table(table | {"tune": {"objectives": objectives, "space": {KEYS[0]: {"log": [1e-4, 1e-2]}}}})
    storage = Storage(str(tmp_path))
    trials = random_trials(count)
    for one in trials:
        one.write(storage.below(f"trials/{one.id}"))
    text = write_results(config, storage, KEYS)
    write_page(config, storage, read_trials(storage), KEYS)
    best = max(trials, key=lambda t: t.best["ndcg@10"])
    assert f"rec train {tmp_path}/best.toml --seeds 3" in text
    assert load(tmp_path / "best.toml").train.learning_rate == best.point["train.learning_rate"]
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert len(rows) == count
    assert rows[0]["trial"] == best.id
    page = (tmp_path / "search.html").read_text()
    panels = sum(any(key in trial.point for trial in trials) for key in KEYS)
    assert page.count("<svg") == 2 + panels + (count >= 8) + bool(objectives)


def test_a_search_without_any_evaluation_names_the_most_frequent_cause(tmp_path) -> None:
    table = {"system": "rec.systems.msmrec:MSMRec", "out": str(tmp_path), "data": {"root": "data"}}
    storage = Storage(str(tmp_path))
    for number, cause in enumerate(["loss is nan", "disk", "loss is nan"]):
        Trial(f"t{number}", {}, FAILED, cause).write(storage.below(f"trials/t{number}"))
    with pytest.raises(TrainingError, match="no trial of 3 came to an evaluation: loss is nan"):
        write_results(from_table(table), storage, KEYS)
