"""Two systems that live outside the package go through every command, with nothing edited inside it."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from rec.cli import main
from rec.config import RunConfig, load, override, to_json
from rec.data.prepared import Prepared
from rec.data.stream import CachedReader
from rec.errors import ConfigError
from rec.evaluation.compare import compare
from rec.evaluation.measure import measure
from rec.evaluation.predict import PredictionOrder, predict
from rec.evaluation.predictor import predict_here
from rec.evaluation.run import Numbers, evaluate_run, open_run
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.sets import Sets
from rec.evaluation.tasks.sets.meanings import EARLIER
from rec.evaluation.tasks.sets.metrics import RARE
from rec.evaluation.tasks.writing import Writing
from rec.report.page import write_report
from rec.serving.answers import Answerer
from rec.serving.export import export
from rec.storage import Storage
from rec.systems.capabilities import Decoding
from rec.train.checkpoint import CheckpointStore
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import load_model
from rec.train.feed import PlannedFeed
from rec.train.job import train_here
from tests.guests import sets_guest, writer_guest
from tests.guests.conftest import GUESTS, config_of, quiet

ROOT = Path(__file__).resolve().parents[2]


def test_the_set_predictor_beats_its_baselines(numbers: dict[str, Numbers]) -> None:
    found = numbers["sets"]
    assert found["expect"]["jaccard_patient"]["met"]
    assert len(found["baselines"]) == 3
    for values in found["baselines"].values():
        for name in ("jaccard_patient", "jaccard_visit", "prauc_patient", "f1_patient"):
            assert found["metrics"][name] > values[name] + 0.1
        assert values["ddi_rate"] == 0  # what is frequent here, or was given before, does not interact
    assert found["interval"]["ddi_rate"]["low"] <= found["metrics"]["ddi_rate"] <= found["interval"]["ddi_rate"]["high"]
    assert found["notice"] == sets_guest.Prescriber.notice
    told = found["tasks"]["sets"]
    assert set(told["groups"]) == set(EARLIER)
    assert sum(group["examples"] for group in told["groups"].values()) == found["examples"]
    assert told["threshold"] == {"value": 0.5, "from": "protocol"}
    assert "filter" not in told  # nothing is taken by default
    assert sum(label["true"] for label in told["labels"]) == round(
        found["metrics"]["true_medications"] * found["examples"]
    )


def test_a_filter_is_measured_before_and_after(
    trained: dict[str, RunConfig], numbers: dict[str, Numbers], tmp_path: Path
) -> None:
    """The same weights, of which the config says that interacting molecules are taken out."""
    folder = tmp_path / "run"
    shutil.copytree(trained["sets"].out, folder)
    config = override(trained["sets"], [f"out={folder}", "model.filter=greedy"])
    (folder / "config.json").write_text(to_json(config))
    found = evaluate_run(config, "test")
    told, plain = found["tasks"]["sets"]["filter"], numbers["sets"]["metrics"]
    assert found["metrics"]["ddi_rate"] == 0 < plain["ddi_rate"]
    assert told["before"] == pytest.approx({name: plain[name] for name in told["before"]})
    assert told["after"] == {name: found["metrics"][name] for name in told["after"]}
    (same,) = (point for point in found["tasks"]["sets"]["trade_off"]["greedy"] if point["threshold"] == 0.5)
    assert same["jaccard_patient"] == pytest.approx(found["metrics"]["jaccard_patient"])


def test_validation_chooses_a_threshold_for_test_files_and_answers(
    trained: dict[str, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained["sets"].out, folder)
    config = override(trained["sets"], [f"out={folder}", "evaluate.threshold=validation"])
    told = evaluate_run(config, "test")["tasks"]["sets"]["threshold"]
    jaccard = {
        least: evaluate_run(override(config, [f"evaluate.threshold={least}"]), "val")["metrics"]["jaccard_patient"]
        for least in (0.2, 0.3, 0.5, 0.7)
    }
    chosen = evaluate_run(config, "val")["metrics"]["jaccard_patient"]
    assert told["from"] == "validation"
    assert chosen >= max(jaccard.values()) - 1e-9
    assert chosen > jaccard[0.7]
    predict(PredictionOrder(config=config, folder=str(tmp_path / "p"), split="test"), predict_here, quiet)
    given = pq.read_table(tmp_path / "p" / "answers").to_pylist()
    assert min(min(row["probabilities"]) for row in given if row["probabilities"]) >= told["value"]
    monkeypatch.setattr(Sets, "settle", lambda *_: pytest.fail("what is on file is not chosen again"))
    artifact = export(config, str(tmp_path / "artifact"), quiet)
    answerer = Answerer(artifact)
    assert artifact.manifest["settled"] == {"sets": {"threshold": told["value"], "threshold_from": "validation"}}
    row = {name: given[0][name] for name in ("patient",)} | {"visits": [["code 1", "code 4"]]}
    for asked in ({}, {"threshold": told["value"]}):
        answers = answerer.respond("predict", {"rows": [row], **asked})["answers"]
        assert answers == answerer.respond("predict", {"rows": [row]})["answers"]
    assert set(answers[0]["labels"][0]) >= {"label", "probability"}


@pytest.mark.parametrize("least", [-0.1, 1.5, "half"])
def test_a_threshold_that_is_none_is_refused(roots: dict[str, str], tmp_path: Path, least: object) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.threshold"):
        config_of("sets", roots, tmp_path / "run", evaluate={"threshold": least})


@pytest.mark.parametrize(
    ("guest", "told"),
    [("sets", ["Capabilities: SetPredictor", "visits"]), ("writer", ["Capabilities: Rater, Writer", "rating"])],
)
def test_what_guests_read_and_their_data_offer_is_listed(
    trained: dict[str, RunConfig], guest: str, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["columns", trained[guest].out]) == 0
    listed = capsys.readouterr().out
    assert [word for word in [*told, "Entities", "Tables"] if word not in listed] == []


def test_a_report_shows_sets_and_no_ranking(trained: dict[str, RunConfig], numbers: dict[str, Numbers]) -> None:
    path = write_report(trained["sets"].out)
    page = text_of(path)
    for wanted in ("jaccard_patient", "Sizes of sets, and rounds", "molecule 1", "given in vain", "no medical advice"):
        assert wanted in page, wanted
    assert f"Licence of the data: {sets_guest.LICENCE}." in Path(path.removeprefix("file://")).read_text()
    for wanted in ("3 or more earlier examples", "Rare labels", "Overlap beside interactions", "before training"):
        assert wanted in page, wanted
    for other in ("ranking", "ndcg", "catalogue"):
        assert other not in page.lower(), other


def text_of(path: str) -> str:
    """Return what people read on a page."""
    html = Path(path.removeprefix("file://")).read_text()
    return re.sub(r"<(style|svg|script).*?</\1>|<[^>]*>|data:[^\"']*", " ", html, flags=re.DOTALL)


def test_runs_are_compared_by_metrics_of_examples_and_of_sums(
    trained: dict[str, RunConfig], numbers: dict[str, Numbers], roots: dict[str, str], tmp_path: Path
) -> None:
    worse = config_of("sets", roots, tmp_path / "worse", train={"epochs": 1})
    train_here(worse, quiet, quiet)
    evaluate_run(worse, "test")
    found = {entry["metric"]: entry for entry in compare(trained["sets"].out, worse.out, 200)}
    assert set(found) == {"jaccard_patient", "prauc_patient", "f1_patient", "ddi_rate", RARE[0], RARE[-1]}
    assert found["jaccard_patient"]["difference"]["low"] > 0
    assert found["jaccard_patient"]["not_better"] == 0
    rates = {"a": numbers["sets"]["metrics"]["ddi_rate"], "b": evaluate_run(worse, "test")["metrics"]["ddi_rate"]}
    assert {key: found["ddi_rate"][key] for key in "ab"} == pytest.approx(rates)
    assert not found["ddi_rate"]["higher_is_better"]


def test_a_number_that_describes_cannot_choose(roots: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"train\.metric: 'medications' describes answers and is neither good nor bad"
    ):
        config_of("sets", roots, tmp_path / "run", train={"metric": "medications"})
    with pytest.raises(ConfigError, match=r"train\.metric: 'rare_recall_patient' is known once a run is measured"):
        config_of("sets", roots, tmp_path / "run", train={"metric": "rare_recall_patient"})
    with pytest.raises(ConfigError, match=r"expect\.true_ddi_rate"):
        config_of("sets", roots, tmp_path / "run", expect={"true_ddi_rate": 0.1})


@pytest.mark.parametrize("guest", GUESTS)
def test_a_guest_needs_no_line_outside_its_own_file(guest: str) -> None:
    """Nothing in the package, in its configs or in its packaging names a guest's file or classes."""
    module, name = tomllib.loads(GUESTS[guest].TOML)["system"].split(":")  # type: ignore[attr-defined]
    names = [module.rsplit(".", 1)[-1], name, "guests"]
    files = [path for path in (ROOT / "rec").rglob("*") if path.suffix in (".py", ".toml", ".html")]
    files.append(ROOT / "pyproject.toml")
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if any(re.search(rf"\b{name}", line) for name in names)
    ]
    assert len(lines) == 0, "\n".join(lines)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_the_set_predictor_as_one_process(
    ray_runtime: None, roots: dict[str, str], tmp_path: Path
) -> None:
    from rec.runtime.training import train

    here = train_here(config_of("sets", roots, tmp_path / "here", train={"epochs": 3}), quiet, quiet).history
    config = config_of("sets", roots, tmp_path / "there", train={"epochs": 3}, parallel={"workers": 2})
    train(config, quiet, quiet)
    there = json.loads(Storage(config.out).read("history.json"))
    for a, b in zip(there, here, strict=True):
        assert a["loss/given"] == pytest.approx(b["loss/given"], rel=1e-3)
        assert a["jaccard_patient"] == pytest.approx(b["jaccard_patient"], abs=0.02)


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_over_the_set_predictor(ray_runtime: None, roots: dict[str, str], tmp_path: Path) -> None:
    from rec.runtime.tuning import search
    from rec.tuning.results import read_trials

    config = config_of("sets", roots, tmp_path / "search", train={"epochs": 2, "metric": "ddi_rate"})
    search(config, quiet)
    trials = read_trials(Storage(config.out))
    assert [trial.status for trial in trials] == ["finished"] * 2
    assert all("jaccard_patient" in trial.best for trial in trials)


def test_the_command_line_prints_the_tasks_metrics(
    trained: dict[str, RunConfig], numbers: dict[str, Numbers], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    config = trained["sets"]
    path.write_text(sets_guest.TOML)
    words = [f"out={config.out}", f"data.root={config.data.root}"]
    assert main(["evaluate", str(path), *words]) == 0
    assert "jaccard_patient" in capsys.readouterr().out
    assert main(["evaluate", str(path), *words, "expect.jaccard_patient=0.99"]) == 1


def test_the_writer_beats_its_baselines_in_words_and_ratings(numbers: dict[str, Numbers]) -> None:
    found = numbers["writer"]
    assert all(entry["met"] for entry in found["expect"].values())
    texts, ratings = (found["tasks"][name]["baselines"] for name in ("writing", "rating"))
    assert len(texts) == 8
    # Where users of a cluster write alike, who is told the true feature can copy the item's text about it.
    fair = [values for name, values in texts.items() if name not in found["told_more"]]
    assert len(fair) == 5
    assert all(found["metrics"]["bleu4"] > values["bleu4"] + 10 for values in fair)
    assert len(ratings) == 4
    assert all(found["metrics"]["rmse"] < 0.6 * values["rmse"] for values in ratings.values())
    assert found["metrics"]["fmr"] == 1


def test_the_mixture_between_the_phases_finds_the_planted_clusters(trained: dict[str, RunConfig]) -> None:
    run = open_run(trained["writer"])
    module = run.module
    assert isinstance(module, writer_guest.ReviewerModel)
    with torch.no_grad():
        cluster_U = module.clusters(module.users.latent(module.user_UF)[0]).numpy()
    truth_U = run.data.entity("user")["cluster"].to_numpy()
    assert adjusted_rand_score(truth_U, cluster_U) > 0.9


def test_each_phase_has_its_own_epochs_metric_and_curve(
    trained: dict[str, RunConfig], numbers: dict[str, Numbers]
) -> None:
    history = Storage(trained["writer"].out).read_json("history.json")
    first, second = ([h for h in history if h["phase_name"] == name] for name in ("represent", "write"))
    assert 1 <= len(first) <= 12
    assert len(second) == 6
    assert "bleu4" not in first[-1]
    assert "loss/text" not in first[-1]
    assert first[-1]["val_loss"] < first[0]["val_loss"] / 2
    assert second[-1]["bleu4"] > second[0]["bleu4"]
    page = text_of(write_report(trained["writer"].out))
    for wanted in (
        "represent",
        "write",
        "Some texts",
        "Predicted ratings",
        "Experts of language.mixture",
        "Beside simple answers: rating",
    ):
        assert wanted in page, wanted


def test_the_same_command_on_a_finished_run_does_nothing(trained: dict[str, RunConfig]) -> None:
    before = Storage(trained["writer"].out).read_json("history.json")
    assert train_here(trained["writer"], quiet, quiet).finished
    assert Storage(trained["writer"].out).read_json("history.json") == before


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_texts_end_and_do_not_depend_on_company(trained: dict[str, RunConfig], temperature: float) -> None:
    run = open_run(trained["writer"])
    run.module.eval()
    batch = next(iter(run.feed.evaluate("test")))[0]
    decoding = Decoding(max_tokens=16, temperature=temperature, seed=3)
    heard: list[list[str]] = []
    together = run.system.write(run.module, batch, decoding, heard=lambda words: heard.append(list(words)))
    assert together == run.system.write(run.module, batch, decoding)
    assert ["".join(words).strip() for words in zip(*heard, strict=True)] == together
    assert any(len(text.split()) < 16 for text in together)
    assert len(heard) <= 16
    rows = {name: run.data.rows("test")[name].to_pylist() for name in run.data.rows("test").column_names}
    alone = [
        run.system.write(run.module, run.system.collate({n: v[i : i + 1] for n, v in rows.items()}), decoding)[0]
        for i in range(5)
    ]
    assert alone == together[:5]
    if temperature:
        assert together != run.system.write(run.module, batch, Decoding(max_tokens=16, temperature=1.5, seed=4))


def spread_texts(rank: int, world: int, root: str, tensors: dict[str, Any], asked: dict[str, Any]) -> Any:
    """Return the records of both tasks by a module whose experts are spread, and how often this rank decoded."""
    from rec.runtime.deepspeed import DeepSpeedEngine

    data = Prepared.open(root, "records")
    system = writer_guest.Reviewer(writer_guest.Config(), data.tables(writer_guest.Reviewer.tables))
    system.tasks = (Writing(decoding=Decoding(max_tokens=16, **asked)), Rating())
    module = system.model()
    load_model(module, tensors)
    keys = TrainConfig(batch_size=2, evaluate_batch_size=7)
    engine = DeepSpeedEngine(module, keys, ParallelConfig(workers=world, expert_parallel=world))
    feed = PlannedFeed(data, system, keys, CachedReader(data.storage, system.columns), rank, world)
    return {name: table.to_pydict() for name, table in measure(system, engine, feed.evaluate("test")).items()}


@pytest.mark.ray
@pytest.mark.parametrize("asked", [{}, {"temperature": 1.5}, {"beams": 3}], ids=str)
def test_ranks_with_spread_experts_write_what_one_process_writes(
    ranks: Any, trained: dict[str, RunConfig], roots: dict[str, str], asked: dict[str, Any]
) -> None:
    run = open_run(trained["writer"])
    run.system.tasks = (Writing(decoding=Decoding(max_tokens=16, **asked)), Rating())
    expected = measure(run.system, run.engine, run.feed.evaluate("test"))
    tensors = CheckpointStore(Storage(run.config.out).below("checkpoints")).load_best().tensors
    for found in ranks.run(2, spread_texts, roots["writer"], tensors, asked):
        assert found["writing"]["text"] == expected["writing"]["text"].to_pylist()
        assert found["rating"]["predicted"] == pytest.approx(expected["rating"]["predicted"].to_pylist(), abs=1e-5)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_that_share_experts_train_the_writer(
    ray_runtime: None, roots: dict[str, str], tmp_path: Path
) -> None:
    from rec.runtime.training import train

    parallel = {"workers": 2, "expert_parallel": 2}
    config = config_of("writer", roots, tmp_path / "run", parallel=parallel)
    train(config, quiet, quiet)
    history = json.loads(Storage(config.out).read("history.json"))
    assert [h["phase_name"] for h in history].count("write") == 6
    found = evaluate_run(config, "test")
    assert all(entry["met"] for entry in found["expect"].values())


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_over_the_writers_last_phase(ray_runtime: None, roots: dict[str, str], tmp_path: Path) -> None:
    from rec.runtime.tuning import search
    from rec.tuning.results import read_trials

    keys = {"epochs": 2, "metric": "rmse", "phases": {"represent": {"epochs": 3}}}
    config = config_of("writer", roots, tmp_path / "search", train=keys)
    search(config, quiet)
    trials = read_trials(Storage(config.out))
    assert [trial.status for trial in trials] == ["finished"] * 2
    best = min(trials, key=lambda trial: trial.best["rmse"])
    assert load(tmp_path / "search" / "best.toml").model.hidden == best.point["model.hidden"]  # type: ignore[attr-defined]
