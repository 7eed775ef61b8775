"""Two systems that live outside the package go through every command, with nothing edited inside it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rec.cli import main
from rec.config import RunConfig, from_table
from rec.errors import ConfigError
from rec.evaluation.compare import compare
from rec.evaluation.run import Numbers, evaluate_run
from rec.report.page import write_report
from rec.storage import Storage
from rec.train.job import train_here
from tests.guests import sets_guest, writer_guest

ROOT = Path(__file__).resolve().parents[2]
GUESTS = {"sets": sets_guest, "writer": writer_guest}


def quiet(_: Any) -> None:
    """Say nothing."""


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The generated data of each guest."""
    found = {name: str(tmp_path_factory.mktemp(f"{name}-data")) for name in GUESTS}
    for name, module in GUESTS.items():
        module.write_data(found[name])  # type: ignore[attr-defined]
    return found


def config_of(guest: str, roots: dict[str, str], out: Path, **changes: dict[str, Any]) -> RunConfig:
    """Return the config of a guest's own TOML with some keys changed."""
    table = tomllib.loads(GUESTS[guest].TOML)  # type: ignore[attr-defined]
    table |= {"out": str(out), "data": {"root": roots[guest]}}
    for name, value in changes.items():
        table[name] = table.get(name, {}) | value
    return from_table(table)


@pytest.fixture(scope="session")
def trained(roots: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunConfig]:
    """A run of each guest, trained in this process."""
    found = {name: config_of(name, roots, tmp_path_factory.mktemp(name) / "run") for name in GUESTS}
    for config in found.values():
        train_here(config, quiet, quiet)
    return found


@pytest.fixture(scope="session")
def numbers(trained: dict[str, RunConfig]) -> dict[str, Numbers]:
    """Each run measured on test."""
    return {name: evaluate_run(config, "test") for name, config in trained.items()}


def test_the_set_predictor_beats_its_baselines(numbers: dict[str, Numbers]) -> None:
    found = numbers["sets"]
    assert found["expect"]["jaccard_patient"]["met"]
    assert len(found["baselines"]) == 2
    for values in found["baselines"].values():
        for name in ("jaccard_patient", "jaccard_visit", "prauc_patient", "f1_patient"):
            assert found["metrics"][name] > values[name] + 0.1
        assert values["ddi_rate"] == 0  # what is frequent here, or was given before, does not interact
    assert found["interval"]["ddi_rate"]["low"] <= found["metrics"]["ddi_rate"] <= found["interval"]["ddi_rate"]["high"]
    assert found["notice"] == sets_guest.Prescriber.notice
    assert set(found["tasks"]["sets"]["groups"]) == {"nothing known before", "labels known before"}


def test_a_report_shows_sets_and_no_ranking(trained: dict[str, RunConfig], numbers: dict[str, Numbers]) -> None:
    page = text_of(write_report(trained["sets"].out))
    for wanted in ("jaccard_patient", "Sizes of sets, and rounds", "molecule 3", "given in vain", "no medical advice"):
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
    assert set(found) == {"jaccard_patient", "prauc_patient", "f1_patient", "ddi_rate"}
    assert found["jaccard_patient"]["difference"]["low"] > 0
    assert found["jaccard_patient"]["not_better"] == 0
    rates = {"a": numbers["sets"]["metrics"]["ddi_rate"], "b": evaluate_run(worse, "test")["metrics"]["ddi_rate"]}
    assert {key: found["ddi_rate"][key] for key in "ab"} == pytest.approx(rates)
    assert not found["ddi_rate"]["higher_is_better"]


def test_a_number_that_describes_cannot_choose(roots: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.metric: 'medications' describes answers and is neither good nor bad"):
        config_of("sets", roots, tmp_path / "run", train={"metric": "medications"})
    with pytest.raises(ConfigError, match=r"expect\.true_ddi_rate"):
        config_of("sets", roots, tmp_path / "run", expect={"true_ddi_rate": 0.1})


@pytest.mark.parametrize("guest", GUESTS)
def test_a_guest_needs_no_line_outside_its_own_file(guest: str) -> None:
    """Nothing in the package, in its configs or in its packaging names a guest, or anything that it defines."""
    module = GUESTS[guest]
    own = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    names = {module.__name__.rsplit(".", 1)[-1], *(name for name in own if name not in ("Config", "Language"))}
    files = [path for path in (ROOT / "rec").rglob("*") if path.suffix in (".py", ".toml", ".html")]
    files.append(ROOT / "pyproject.toml")
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if any(re.search(rf"\b{name}\b", line) for name in names if name[0].isupper() or name.endswith("_guest"))
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
