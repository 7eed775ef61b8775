import csv
import re
from pathlib import Path

import numpy as np
import pytest

from rec.config import from_table, load
from rec.errors import TrainingError
from rec.storage import Storage
from rec.tuning.page import importance, write_page
from rec.tuning.results import dominates, front, ranked, read_trials, summary, write_results
from rec.tuning.search import short_names
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


def test_the_lowest_is_best_where_lower_is_better() -> None:
    trials = [trial("a", 0.3), trial("b", 0.1), trial("c", 0.2)]
    assert [t.id for t in ranked(trials, {"ndcg@10": "min"})] == ["b", "c", "a"]
    assert [t.id for t in front(trials, {"ndcg@10": "min", "evaluate_s": "min"})] == ["b"]


def test_the_best_run_of_a_falling_objective_is_the_lowest(tmp_path) -> None:
    table = {"system": "rec.systems.msmrec:MSMRec", "out": str(tmp_path), "data": {"root": "data"}}
    config = from_table(table | {"tune": {"metric": "val_loss", "space": {KEYS[0]: {"log": [1e-4, 1e-2]}}}})
    storage = Storage(str(tmp_path))
    for name, loss in (("a", 3.0), ("b", 1.5), ("c", 2.0)):
        one = Trial(name, {KEYS[0]: loss / 1000}, FINISHED, best={"val_loss": loss}, curve=[4.0, loss])
        one.write(storage.below(f"trials/{name}"))
    write_results(config, storage, [KEYS[0]])
    write_page(config, storage, read_trials(storage), [KEYS[0]])
    assert load(tmp_path / "best.toml").train.learning_rate == 0.0015
    assert next(csv.DictReader((tmp_path / "trials.csv").open()))["trial"] == "b"


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
    drawn = page.count("<svg") - page.count('class="drawing small"')  # wide figures once more for phones
    assert drawn == 2 + panels + (count >= 8) + bool(objectives)


def test_a_search_without_any_evaluation_names_the_most_frequent_cause(tmp_path) -> None:
    table = {"system": "rec.systems.msmrec:MSMRec", "out": str(tmp_path), "data": {"root": "data"}}
    storage = Storage(str(tmp_path))
    for number, cause in enumerate(["loss is nan", "disk", "loss is nan"]):
        Trial(f"t{number}", {}, FAILED, cause).write(storage.below(f"trials/t{number}"))
    with pytest.raises(TrainingError, match="no trial of 3 came to an evaluation: loss is nan"):
        write_results(from_table(table), storage, KEYS)


def test_keys_are_told_by_the_shortest_end_that_no_other_has() -> None:
    keys = ("train.learning_rate", "model.top_k", "model.mixture.top_k", "model.gate")
    assert short_names(keys) == {
        "train.learning_rate": "learning_rate",
        "model.top_k": "model.top_k",
        "model.mixture.top_k": "mixture.top_k",
        "model.gate": "gate",
    }
    assert short_names(["a.b", "c.a.b"]) == {"a.b": "a.b", "c.a.b": "c.a.b"}


def wide_trials(count: int, keys: int) -> tuple[list[Trial], list[str]]:
    names = [f"model.feedforward_mixture.key_{k}" for k in range(keys)]
    rng = np.random.default_rng(0)
    return [trial(f"t{n}", float(rng.random()), **{k: float(rng.random()) for k in names}) for n in range(count)], names


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_of_a_wide_search_fits_the_terminal(
    tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = {"system": "rec.systems.msmrec:MSMRec", "out": "out/search", "data": {"root": "data"}}
    trials, keys = wide_trials(5, 16)
    lines = summary(from_table(table), trials, keys).splitlines()
    assert max(map(len, lines)) <= columns
    assert all(any(f"key_{k}" in line.split() for line in lines) for k in range(16))


def test_the_page_of_a_search_says_what_was_found_and_draws_a_panel_per_key(tmp_path: Path) -> None:
    table = {"system": "rec.systems.msmrec:MSMRec", "out": str(tmp_path), "data": {"root": f"{tmp_path}/films/data"}}
    trials, keys = wide_trials(12, 16)
    trials[3].status, trials[3].best = FAILED, {}
    for one in trials:
        one.total_s = 10.0
    write_page(from_table(table), Storage(str(tmp_path)), trials, keys)
    text = (tmp_path / "search.html").read_text()
    best = max((one for one in trials if one.best), key=lambda one: one.best["ndcg@10"])
    (lead,) = re.findall(r'<p class="lead">([^<]*)</p>', text)
    assert lead.startswith(
        f"The best of 12 trials (1 failed, 11 finished) reached ndcg@10 {best.best['ndcg@10']:.4f} on validation. All "
        "trials together took 2 min 00 s"
    )
    assert f"key_0 {best.show(keys[0])}, " in lead
    assert "Search for MSMRec on films" in text
    assert str(tmp_path) not in text
    panels = text.split('<section id="s3-keys">')[1].split("</section>")[0]
    assert panels.count("<svg") == 16
    table_html = text.split("Trials</h2>")[1]
    assert table_html.index('class="scroll"') < table_html.index("<table>")
    parts = table_html.split("<table>")[1:]  # a wide one is cut between columns
    assert {part.count("<tr>") for part in parts} == {12}, "a head, and the trials that were measured"
