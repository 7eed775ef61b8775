"""`rec results`: pages on runs, from their own files."""

from __future__ import annotations

import json
import math
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from rec.cli import main
from rec.config import RunConfig, from_table, override
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.errors import EvaluationError, RequestError
from rec.evaluation.compare import compare
from rec.evaluation.run import evaluate_run
from rec.report.results.find import FROM_ROOT
from rec.report.results.page import write_results
from rec.report.results.tables import cost_of
from rec.train.job import train_here
from rec.train.loop import Report
from tests.conftest import planted_config
from tests.end_to_end.train.test_training_record import Stop, stop_at_saved

Plain = dict[str, Any]
RESAMPLES = 200
RECORDS = ("training.json", "evaluation/test/measurement.json")


def quiet(_: Any) -> None:
    """Say nothing."""


def trained(out: Path, root: str, *words: str, report: Report = quiet) -> RunConfig:
    """Return a run of one epoch."""
    table = {
        "system": "rec.systems.msmrec:MSMRec",
        "out": str(out),
        "model": {"width": 16, "blocks": 1, "max_length": 20},
        "data": {"root": root},
        "train": {"batch_size": 32, "epochs": 1, "learning_rate": 5e-3},
        "evaluate": {"bootstrap": 100},
    }
    config = override(from_table(table), words)
    train_here(config, report, quiet)
    return config


@pytest.fixture(scope="module")
def filed(planted: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one config and one of another, on one data set."""
    top = tmp_path_factory.mktemp("results") / "runs"
    for name, words in (
        ("gated/seed-0", ()),
        ("gated/seed-1", ("train.seed=1",)),
        ("plain", ("model.gate=none",)),
    ):
        evaluate_run(trained(top / name, planted.root, *words), "test")
    return top


@pytest.fixture
def runs(filed: Path, tmp_path: Path) -> Path:
    """A copy of these runs."""
    shutil.copytree(filed, tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("config.json"):
        table = json.loads(path.read_text())
        path.write_text(json.dumps(table | {"out": str(path.parent)}))
    return tmp_path / "runs"


def made(*folders: Path, baseline: str = "") -> tuple[Plain, str]:
    """Return what the page on some folders holds, and the page."""
    to = folders[0].parent / "pages"
    page, plain = write_results([str(f) for f in folders], "all", str(to), baseline, RESAMPLES)
    return json.loads(Path(plain).read_text()), Path(page).read_text()


def metrics_of(folder: Path) -> Plain:
    return json.loads((folder / "evaluation/test/metrics.json").read_text())["metrics"]


def line_of(table: Plain, label: str) -> Plain:
    return next(line for line in table["lines"] if line["label"] == label)


def test_a_table_holds_what_the_files_of_runs_say(runs: Path) -> None:
    told, page = made(runs)
    (table,) = told["tables"]
    assert {line["label"] for line in table["lines"]} == {"MSMRec", "MSMRec, gate=none"}
    a, b, plain = (metrics_of(runs / name) for name in ("gated/seed-0", "gated/seed-1", "plain"))
    for name in ("hit@10", "ndcg@10", "mrr"):
        found = line_of(table, "MSMRec")["metrics"][name]
        mean = (a[name] + b[name]) / 2
        assert found["mean"] == pytest.approx(mean)
        assert found["sd"] == pytest.approx(math.sqrt((a[name] - mean) ** 2 + (b[name] - mean) ** 2))
        assert found["values"] == [a[name], b[name]]
        assert f"{mean:.4f}" in page
        assert line_of(table, "MSMRec, gate=none")["metrics"][name]["mean"] == plain[name]
    assert [run["seed"] for run in line_of(table, "MSMRec")["runs"]] == [0, 1]
    assert table["baselines"][0]["label"] == "popularity"
    assert table["examples"] == 301


def test_the_best_is_bold_simple_answers_included(runs: Path) -> None:
    told, page = made(runs)
    (table,) = told["tables"]
    for place, metric in enumerate(table["metrics"]):
        values = {line["label"]: line["metrics"][metric["name"]]["mean"] for line in table["lines"]}
        values |= {entry["label"]: entry["metrics"][metric["name"]] for entry in table["baselines"]}
        assert table["best"][metric["name"]] == [label for label in values if values[label] == max(values.values())]
        rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| (\d|  \|) ", line)]
        bold = {cells[1].strip("*") for cells in rows[:2] if cells[3 + place].startswith("**")}
        assert bold == {label for label in table["best"][metric["name"]] if label.startswith("MSMRec")}


def test_columns_that_are_the_same_in_all_lines_stand_once(runs: Path) -> None:
    files = sorted(runs.rglob("evaluation/test/metrics.json"))
    for file in files:
        table = json.loads(file.read_text())
        file.write_text(json.dumps(table | {"shown": ["hit@10", "recall@10", "ndcg@10", "map@10", "mrr@10"]}))
    told, page = made(runs)
    (table,) = told["tables"]
    assert table["same"] == {"recall@10": "hit@10", "mrr@10": "map@10"}
    heads = [line for line in page.splitlines() if line.startswith(("|  | model", "| model"))]
    assert len(heads) == 2
    assert all("| hit@10 = recall@10 | ndcg@10 | map@10 = mrr@10 |" in head for head in heads)
    table = json.loads(files[0].read_text())
    table["metrics"]["recall@10"] += 0.1
    files[0].write_text(json.dumps(table))
    assert made(runs)[0]["tables"][0]["same"] == {"mrr@10": "map@10"}


def test_differences_are_those_of_a_paired_comparison(runs: Path) -> None:
    told, page = made(runs, baseline="plain")
    (table,) = told["tables"]
    assert table["reference"] == "MSMRec, gate=none"
    wanted = {e["metric"]: e for e in compare(str(runs / "gated"), str(runs / "plain"), RESAMPLES)}
    found = line_of(table, "MSMRec")["difference"]
    assert found.keys() == wanted.keys()
    assert all({**wanted[n]["difference"], "not_better": wanted[n]["not_better"]} == found[n] for n in found)
    assert f"{found['hit@10']['mean']:+.4f} (" in page
    assert made(runs, baseline=str(runs / "plain"))[0] == told
    with pytest.raises(RequestError, match=r"--baseline: '.*' means several lines"):
        made(runs, baseline="runs")
    with pytest.raises(RequestError, match="--baseline: no line 'sasrec'; there are MSMRec"):
        made(runs, baseline="sasrec")


def test_costs_and_origins_are_told(runs: Path) -> None:
    told, page = made(runs)
    line = line_of(told["tables"][0], "MSMRec, gate=none")
    training = json.loads((runs / "plain/training.json").read_text())
    measurement = json.loads((runs / "plain/evaluation/test/measurement.json").read_text())
    (run,) = line["runs"]
    assert run["training"]["seconds"] == training["commands"][0]["seconds"]
    assert run["evaluation"]["seconds"] == measurement["seconds"]
    assert line["keys"]["model.gate"] == "none"
    for wanted in (
        f"{training['commands'][0]['seconds']:,.1f} s",
        f"{run['parameters']:,}",
        f"{training['commands'][0]['versions']['torch']}",
        f"{training['commands'][0]['machines'][0]['cores']} cores",
        "`model.gate=none`",
        "`runs/gated/seed-1`",
    ):
        assert wanted in page, wanted


def test_a_page_names_no_folder_of_somebody_and_no_host(runs: Path) -> None:
    _, page = made(runs)
    written = page + (runs.parent / "pages/all.json").read_text()
    assert str(runs.parent) not in written
    assert not re.search(rf"\b{re.escape(platform.node())}\b", written)


def test_what_was_not_recorded_is_said(runs: Path) -> None:
    for name in RECORDS:
        (runs / "plain" / name).unlink()
    told, page = made(runs)
    (table,) = told["tables"]
    assert line_of(table, "MSMRec, gate=none")["runs"][0]["training"] is None
    row = next(line for line in page.splitlines() if "MSMRec, gate=none" in line)
    assert row.count("not recorded") == 4
    assert "- trained and measured: not recorded" in page
    assert "Some runs have not recorded their split" in page


def test_other_splits_stand_in_tables_of_their_own(runs: Path, tmp_path: Path) -> None:
    other = prepare(planted_config(tmp_path / "other", users=200, interactions=4000), InProcess(), quiet)
    evaluate_run(trained(runs / "other", other.root), "test")
    told, page = made(runs)
    assert sorted(len(table["lines"]) for table in told["tables"]) == [1, 2]
    assert len({table["split"]["sha256"] for table in told["tables"]}) == 2
    assert sum(line.startswith("## ") for line in page.splitlines()) == 2


def test_a_protocol_stands_in_the_title_and_parts_tables(runs: Path) -> None:
    for name in RECORDS:
        path = runs / "plain" / name
        found = json.loads(path.read_text())
        found["data"]["split"]["protocol"] = "subjects"
        path.write_text(json.dumps(found))
    told, page = made(runs)
    assert {table["split"]["protocol"] for table in told["tables"]} == {"leave-one-out", "subjects"}
    assert re.search(r"^## .*: subjects$", page, re.MULTILINE)
    path.write_text(path.read_text().replace("subjects", "time"))
    told, _ = made(runs)
    assert told["passed_over"] == [{"run": "runs/plain", "reason": "trained on another split than it was measured on"}]


def test_other_keys_of_evaluation_stand_in_a_table_of_their_own(runs: Path, planted: Prepared) -> None:
    config = trained(runs / "again", planted.root, "train.learning_rate=1e-3")
    evaluate_run(override(config, ["evaluate.popular_share=0.5"]), "test")
    told, page = made(runs)
    assert sorted(len(table["lines"]) for table in told["tables"]) == [1, 2]
    assert "evaluate.popular_share=0.5" in page
    assert "measured with other keys of `[evaluate]` stand in a table of their own" in page


def test_runs_that_cannot_stand_in_a_table_are_told(runs: Path, planted: Prepared) -> None:
    trained(runs / "unmeasured", planted.root, "model.dropout=0.4")
    with pytest.raises(Stop):
        trained(runs / "stopped", planted.root, "train.epochs=3", report=stop_at_saved(2))
    longer = trained(runs / "longer", planted.root, "model.dropout=0.3")
    evaluate_run(longer, "test")
    (runs / "longer/config.json").write_text(override(longer, ["train.epochs=5"]).model_dump_json())
    shutil.copytree(runs / "gated/seed-1", runs / "repeated")
    (runs / "broken").mkdir()
    (runs / "broken/config.json").write_text(json.dumps({"system": "no.such:System", "out": "", "train": {}}))
    told, page = made(runs)
    reasons = {one["run"]: one["reason"] for one in told["passed_over"]}
    assert reasons["runs/unmeasured"] == "not evaluated on test; run `rec evaluate`"
    assert reasons["runs/stopped"] == "stopped after 2 of 3 epochs; not evaluated on test; run `rec evaluate`"
    assert reasons["runs/longer"] == "stopped after 1 of 5 epochs"
    assert "system: no class 'no.such:System'" in reasons["runs/broken"]
    (repeated,) = (name for name in reasons if "the same config and seed as" in reasons[name])
    assert repeated in ("runs/repeated", "runs/gated/seed-1")
    assert "with the same numbers" in reasons[repeated]
    assert FROM_ROOT.sub(lambda path: path[1], "'/home/me/a.csv': as evaluation/x.json says") == (
        "'a.csv': as evaluation/x.json says"
    )
    assert len(reasons) == 5
    assert all(f"- `{name}`: " in page for name in reasons)
    assert [run["seed"] for run in line_of(told["tables"][0], "MSMRec")["runs"]] == [0, 1]


def test_a_run_of_old_that_was_stopped_is_told_by_its_history(runs: Path) -> None:
    (runs / "plain/training.json").unlink()
    config = json.loads((runs / "plain/config.json").read_text())
    config["train"]["epochs"] = 4
    (runs / "plain/config.json").write_text(json.dumps(config))
    told, _ = made(runs)
    assert told["passed_over"] == [{"run": "runs/plain", "reason": "stopped after 1 of 4 epochs"}]


def test_metrics_stay_equal_when_measured_again(runs: Path) -> None:
    config = from_table(json.loads((runs / "plain/config.json").read_text()))
    before = (runs / "plain/evaluation/test/metrics.json").read_bytes()
    evaluate_run(config, "test")
    assert (runs / "plain/evaluation/test/metrics.json").read_bytes() == before


def test_the_same_folders_give_the_same_page(runs: Path) -> None:
    assert made(runs) == made(runs, runs / "gated")


def test_without_runs_there_is_an_error(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()

    def last() -> str:
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert main(["results", "empty"]) == 1
    assert last() == (
        "error: no run below empty was trained to its end and measured on test: "
        "there is no folder with a run's config.json; expected one from `rec train`"
    )
    assert main(["results", "nowhere"]) == 1
    assert last() == "error: nowhere: no such folder"
    assert main(["results", "runs", "--name", "a/b"]) == 1
    assert last().startswith("error: --name: expected letters")
    assert main(["results", "runs", "train.seed=1"]) == 1
    assert "takes no keys" in last()
    shutil.rmtree(runs / "plain/evaluation")
    with pytest.raises(EvaluationError, match="plain: not evaluated on test"):
        write_results([str(runs / "plain")], "all", str(tmp_path))
    assert not (tmp_path / "results").exists()


def test_the_command_writes_a_page_and_its_values(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["results", "runs/gated"]) == 0
    assert capsys.readouterr().out.split() == ["results/gated.md", "results/gated.json"]
    assert (tmp_path / "results/gated.md").read_text().startswith("# Results: gated\n")


def test_what_commands_cost_is_summed_and_gaps_are_seen() -> None:
    def command(start: int, step: int, seconds: float, peak: int) -> Plain:
        return {"start_step": start, "step": step, "seconds": seconds, "peak_memory_bytes": peak}

    found = cost_of([command(0, 10, 2.0, 70), command(10, 30, 3.5, 50)])
    assert (found["seconds"], found["peak_memory_bytes"], found["whole"]) == (2.0 + 3.5, max(70, 50), True)
    assert not cost_of([command(10, 30, 3.5, 50)])["whole"]
    assert not cost_of([command(0, 10, 2.0, 70), command(20, 30, 1.0, 1)])["whole"]
