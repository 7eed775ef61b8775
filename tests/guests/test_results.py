"""Results of systems outside the package: which metrics are shown, and what is better, their tasks say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rec.config import RunConfig
from rec.evaluation.run import Numbers, evaluate_run
from rec.report.results.page import write_results
from rec.train.job import train_here
from tests.guests.conftest import config_of, quiet


@pytest.mark.parametrize(("guest", "falling"), [("sets", "ddi_rate"), ("writer", "rmse")])
def test_lower_is_better_where_the_task_says_so(
    guest: str,
    falling: str,
    trained: dict[str, RunConfig],
    numbers: dict[str, Numbers],
    roots: dict[str, str],
    tmp_path: Path,
) -> None:
    other = config_of(guest, roots, tmp_path / "other", train={"epochs": 1})
    train_here(other, quiet, quiet)
    found = {"other": evaluate_run(other, "test"), "trained": numbers[guest]}
    page, plain = write_results([trained[guest].out, other.out], "guest", str(tmp_path / "pages"), resamples=200)
    (table,) = json.loads(Path(plain).read_text())["tables"]
    assert [metric["name"] for metric in table["metrics"]] == found["other"]["shown"]
    simple = [entry["metrics"][falling] for entry in table["baselines"] if falling in entry["metrics"]]
    best = min(*(numbers["metrics"][falling] for numbers in found.values()), *simple)
    text = Path(page).read_text()
    assert f"{falling} (lower is better)" in text
    assert f"**{best:.4f}**" in text
    reached = {line["label"]: line["metrics"][falling]["mean"] for line in table["lines"]}
    assert [label for label, value in reached.items() if value == best] == [
        label for label in table["best"][falling] if label in reached
    ]
    line = next(line for line in table["lines"] if line["label"] != table["reference"])
    gain = line["metrics"][falling]["mean"] - reached[table["reference"]]
    assert line["difference"][falling]["mean"] == pytest.approx(gain)
