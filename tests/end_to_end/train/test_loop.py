"""The loop: resuming, early stopping, what is refused."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rec.config import RunConfig
from rec.data.prepared import Prepared
from rec.errors import ConfigError, DataError, TrainingError
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from rec.train.job import claim, train_here
from rec.train.narrator import Narrator
from rec.train.optim import learning_rate

Make = Callable[..., RunConfig]


class Stop(Exception):
    """Ends a run from the outside."""


def quiet(_: Any) -> None:
    """Say nothing."""


def stopping_at(step: int) -> Callable[[dict[str, Any]], None]:
    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "saved" and event["total_step"] >= step:
            raise Stop

    return report


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    store = CheckpointStore(Storage(config.out).below("checkpoints"))
    return store.load(store.steps()[-1]).tensors


@pytest.mark.parametrize(("loss", "step"), [("ce", 1), ("ce", 4), ("ce", 10), ("ce", 17), ("bce", 4)])
def test_a_run_that_goes_on_ends_equal_to_an_undisturbed_one(
    run_config: Make, tmp_path: Path, step: int, loss: str
) -> None:
    train = {"checkpoint_steps": 1, "clip_norm": 1.0, "warmup_steps": 5, "schedule": "cosine"}
    whole = run_config(out=str(tmp_path / "whole"), train=train, model={"loss": loss})
    cut = run_config(out=str(tmp_path / "cut"), train=train, model={"loss": loss})
    expected = train_here(whole, quiet, quiet)
    with pytest.raises(Stop):
        train_here(cut, stopping_at(step), quiet)
    found = train_here(cut, quiet, quiet)
    assert found.history == expected.history
    a, b = weights(whole), weights(cut)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_is_not_trained_again(run_config: Make) -> None:
    config = run_config()
    first = train_here(config, quiet, quiet)
    events: list[str] = []
    again = train_here(config, lambda e: events.append(e["kind"]), quiet)
    assert again.history == first.history
    assert "step" not in events


def test_more_epochs_go_on_where_it_stood(run_config: Make) -> None:
    train_here(run_config(train={"epochs": 2}), quiet, quiet)
    longer = train_here(run_config(train={"epochs": 4}), quiet, quiet)
    assert [h["epoch"] for h in longer.history] == [1, 2, 3, 4]
    straight = train_here(run_config(train={"epochs": 4}, out=longer_out(run_config)), quiet, quiet)
    assert straight.history == longer.history


def longer_out(run_config: Make) -> str:
    return run_config().out + "-straight"


def test_patience_stops_early_and_keeps_the_best(run_config: Make) -> None:
    config = run_config(train={"epochs": 40, "patience": 2, "learning_rate": 0.05})
    progress = train_here(config, quiet, quiet)
    values = [h["ndcg@10"] for h in progress.history]
    assert len(values) < 40
    assert progress.best == max(values)
    assert values.index(max(values)) == len(values) - 3
    store = CheckpointStore(Storage(config.out).below("checkpoints"))
    assert store.best_step() == progress.history[values.index(max(values))]["total_step"]


NEVER_BETTER = {"epochs": 12, "learning_rate": 1e-30, "checkpoint_steps": 0}
"""The first evaluation stays the best; an epoch has 301 examples."""


@pytest.mark.parametrize(
    ("keys", "epochs", "told"),
    [
        ({"patience": 2}, 3, "2 evaluations (20 steps, 602 examples) after the best ndcg@10: train.patience is 2 "),
        (
            {"patience_examples": 700},
            4,
            "903 examples) after the best ndcg@10: train.patience_examples is 700 examples",
        ),
        (
            {"patience": 1, "patience_examples": 602},
            3,
            "train.patience is 1 evaluation and train.patience_examples is 602 examples",
        ),
        ({"patience": 5, "patience_examples": 1}, 6, "5 evaluations (50 steps, 1,505 examples)"),
        ({"patience_examples": 700, "evaluate_every": 2}, 6, "2 evaluations (40 steps, 1,204 examples)"),
        ({"patience_examples": 301, "batch_size": 301}, 2, "1 evaluation (1 step, 301 examples)"),
        ({"patience": 0, "patience_examples": 0}, 12, ""),
    ],
)
def test_patience_is_of_evaluations_examples_or_both_and_is_told(
    run_config: Make, keys: dict[str, int], epochs: int, told: str
) -> None:
    config, said = run_config(train=NEVER_BETTER | keys), []
    assert train_here(config, Narrator(said.append), quiet).epoch == epochs
    last = " ".join(said[-1].split())
    assert told in last
    assert ("; stopped early, " in last) == bool(told)
    again: list[str] = []
    train_here(config, quiet, again.append)
    assert told in again[0]
    for name in keys if told else ():
        assert name not in ("patience", "patience_examples") or f"train.{name}" in again[0].partition("; raise")[2]


def test_a_run_that_goes_on_counts_the_examples_of_before(run_config: Make) -> None:
    config = run_config(train=NEVER_BETTER | {"patience_examples": 900})
    with pytest.raises(Stop):
        train_here(config, stopping_at(20), quiet)
    assert train_here(config, quiet, quiet).epoch == 4
    more = run_config(train=NEVER_BETTER | {"patience_examples": 1500})
    assert train_here(more, quiet, quiet).epoch == 6


def test_validation_improves_on_planted_preferences(run_config: Make) -> None:
    progress = train_here(run_config(train={"epochs": 12, "learning_rate": 1e-3}), quiet, quiet)
    assert progress.history[-1]["ndcg@10"] > 1.3 * progress.history[0]["ndcg@10"]
    assert progress.history[-1]["loss/ce"] < progress.history[0]["loss/ce"]


@pytest.mark.parametrize("batch", [32, 1000])
def test_the_loss_is_a_mean_over_all_examples_of_the_epoch(run_config: Make, batch: int) -> None:
    config = run_config(train={"epochs": 1, "batch_size": batch, "learning_rate": 1e-9}, model={"dropout": 0.0})
    progress = train_here(config, quiet, quiet)
    # At the start scores are near 0, so every item of 120 is about as likely.
    assert progress.history[0]["loss/ce"] == pytest.approx(math.log(120), abs=0.05)


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_no_checkpoint(run_config: Make) -> None:
    config = run_config(train={"learning_rate": 1e30, "epochs": 5, "evaluate_every": 5})
    with pytest.raises(
        TrainingError, match=r"epoch \d+ step \d+: (loss term 'ce' is|the gradient's norm is) (nan|inf)"
    ):
        train_here(config, quiet, quiet)
    assert CheckpointStore(Storage(config.out).below("checkpoints")).steps() == []


def test_an_unknown_metric_is_refused(run_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"train.metric: 'ndgc@10' is not measured; did you mean 'ndcg@10'\?"):
        train_here(run_config(train={"metric": "ndgc@10"}), quiet, quiet)


def test_a_folder_of_another_run_is_refused(run_config: Make) -> None:
    claim(run_config())
    with pytest.raises(ConfigError, match=r"model.width: 8, but the run in .* was started with 16"):
        claim(run_config(model={"width": 8}))
    claim(run_config(train={"epochs": 9}, parallel={"workers": 2}))


def test_a_folder_of_data_is_the_same_however_it_is_written(
    run_config: Make, planted: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(run_config())
    monkeypatch.chdir(Path(planted.root).parent)
    claim(run_config(data={"root": Path(planted.root).name}))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_rows_is_refused_before_training(
    run_config: Make, planted: Prepared, tmp_path: Path, split: str
) -> None:
    shutil.copytree(planted.root, tmp_path / "data")
    view = tmp_path / "data" / Path(planted.storage.root).name / "views" / "sequences" / "view.json"
    told = json.loads(view.read_text())
    told["splits"][split] = []
    view.write_text(json.dumps(told))
    with pytest.raises(DataError, match=f"data: the split '{split}' has no rows; expected at least one"):
        train_here(run_config(data={"root": str(tmp_path / "data")}), quiet, quiet)
    assert not (tmp_path / "run" / "config.json").exists()


def test_rates_rise_then_fall() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_steps=4, schedule="cosine")
    rates = [learning_rate(config, step, 20) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5)  # half-way between warm-up and end: (1 + cos(pi / 2)) / 2
    assert rates[4:] == sorted(rates[4:], reverse=True)
    linear = TrainConfig(learning_rate=1.0, schedule="linear")
    assert learning_rate(linear, 5, 20) == pytest.approx(0.75)


def test_the_gradient_norm_is_told_and_clipped() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    engine = LocalEngine(module, TrainConfig(clip_norm=1.0))
    engine.backward((module.weight * 30).sum())
    assert float(engine.step(0.1)) == pytest.approx(30.0)
