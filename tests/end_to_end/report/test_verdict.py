"""`rec sweep --verdict`: real runs held against their twins, as long as it takes, and what is told of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rec.config import RunConfig, load, override
from rec.errors import ConfigError
from rec.report.verdict import OWN, filed_verdict, judged_runs, verdict
from rec.storage import Storage
from rec.train.job import train_here

SHIPPED = sorted(Path(__file__).parents[3].glob("rec/configs/*.toml"))
HAVE_NONE = ("lightgcn", "peter", "safedrug", "visits", "eicu", "mimic-iii", "mimic-iv", "kar", "food")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_twins_of_what_is_shipped_are_configs(file: Path) -> None:
    config = load(str(file))
    if file.stem.endswith(HAVE_NONE):
        with pytest.raises(ConfigError, match="has no mixture"):
            judged_runs(config, [])
        return
    own, *others = judged_runs(config, [])
    assert own.name == OWN
    assert any(one.is_twin for one in others)
    made = [override(config, one.words).model for one in (own, *others)]
    assert all(a != b for place, a in enumerate(made) for b in made[:place]), "no two are the same run"


def test_a_dense_twin_is_as_wide_as_the_experts_of_a_row() -> None:
    words = ["model.mixture.experts=4", "model.mixture.shared=true", "model.mixture.per_row=3"]
    config = load(str(SHIPPED[0].parent / "food.toml"), words)
    twins = config.model.twins("model")
    mixture, hidden = config.model.mixture, config.model.hidden
    for name, networks in (("dense, active width", 3 + 1), ("dense, total width", mixture.experts + 1)):
        dense = override(config, twins[name]).model
        assert (dense.mixture.experts, dense.mixture.active) == (1, 1)
        assert dense.hidden == hidden * networks


def test_what_would_be_the_same_run_is_trained_once(run_config: Callable[..., RunConfig]) -> None:
    config = run_config(model={"gate": "none", "feedforward_mixture": {"experts": 2}})
    assert config.model.feedforward_mixture.per_row == 2
    names = [one.name for one in judged_runs(config, [])]
    assert "dense, active width" in names
    assert "dense, total width" not in names


@pytest.fixture
def mixed(run_config: Callable[..., RunConfig]) -> RunConfig:
    return run_config(model={"gate": "none", "feedforward_mixture": {"experts": 2}}, train={"epochs": 1})


def test_runs_are_trained_until_it_is_clear(mixed: RunConfig) -> None:
    trained: list[str] = []

    def train(config: RunConfig) -> None:
        trained.append(config.out)
        train_here(config, lambda _: None, lambda _: None)

    only = ["dense, active width", "random gate", "4 experts"]
    lines: list[str] = []
    # Everything is alike within a margin as large as the metric itself: two seeds are enough, whatever is allowed.
    text = verdict(mixed, only, 5, 1.0, train, lines.append)
    assert len(trained) == 2 * 4
    assert "all is clear after 2 seeds" in lines
    assert text.startswith("The mixture does not pay: ")
    assert all(f"{name}: model." in text for name in only)
    told = json.loads(Path(mixed.out, "verdict.json").read_text())
    assert told["standing"] == "alike"
    assert told["by"] in ("dense, active width", "random gate")
    assert {name: len(one["values"]) for name, one in told["runs"].items()} == dict.fromkeys((OWN, *only), 2)
    for name in only:
        ours, theirs = (sum(told["runs"][one]["values"]) / 2 for one in (OWN, name))
        assert told["gains"][name]["mean"] == pytest.approx(ours - theirs, abs=1e-6)
    weights = {name: one["weights"] for name, one in told["runs"].items()}
    assert weights["4 experts"] > weights[OWN] > weights["random gate"] - 1
    assert [section.title for section in filed_verdict(Storage(mixed.out))] == ["Does the mixture pay?"]
    assert "Does the mixture" in Path(mixed.out, "verdict.html").read_text()

    again: list[str] = []
    assert verdict(mixed, only, 5, 1.0, lambda config: again.append(config.out), lines.append) == text
    assert again == trained, "the same runs, whose trainer finds that they are done"


def test_one_seed_says_nothing(mixed: RunConfig) -> None:
    def train(config: RunConfig) -> None:
        train_here(config, lambda _: None, lambda _: None)

    text = verdict(mixed, ["uniform gate"], 1, 0.01, train, lambda _: None)
    assert text.startswith("Not clear after 1 seed: ")
    alone = verdict(mixed, ["4 experts"], 1, 0.01, train, lambda _: None)
    assert alone.startswith("Nothing plainer was trained in the place of the mixture")


@pytest.mark.parametrize(
    ("words", "only", "fault"),
    [
        (["parallel.workers=2", "parallel.expert_parallel=2"], [], "twins have no experts to spread over workers"),
        (["model.feedforward_mixture.experts=0"], [], "has no mixture that something could replace"),
        ([], ["dens"], "nothing is called 'dens'; there are dense, active width; dense, total width; random gate; "),
    ],
)
def test_what_cannot_be_judged_is_refused(mixed: RunConfig, words: list[str], only: list[str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        judged_runs(override(mixed, words), only)
