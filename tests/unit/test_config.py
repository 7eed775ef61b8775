"""Config: what is refused, and what the refusal says."""

from pathlib import Path

import pytest

from rec.config import RunConfig, differing, from_json, from_table, load, to_json, to_toml
from rec.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "rec" / "configs").glob("*.toml"))
MINIMAL = {"system": "rec.systems.msmrec:MSMRec", "out": "o", "data": {"root": "r"}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    config = load(path)
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("change", "train"),
    [
        ({}, {}),
        ({"metric": "ndcg@10"}, {}),  # the headline of the first task
        ({"metric": "hit@10", "epochs": 2}, {"metric": "hit@10", "epochs": 2}),
        ({"epochs": 2}, {"epochs": 2}),
    ],
)
def test_what_is_told_of_a_config_is_what_differs_from_what_nobody_set(
    change: dict, train: dict, tmp_path: Path
) -> None:
    config = from_table(MINIMAL | {"train": change})
    assert config.train.metric == change.get("metric", "ndcg@10")
    assert differing(config).get("train", {}) == train
    assert ("metric" in to_toml(config)) == ("metric" in train)
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert load(tmp_path / "run.toml") == config


def test_overrides_are_dotted_toml_values(tmp_path: Path) -> None:
    config = load(
        CONFIGS[0].with_name("demo.toml"),
        ["train.epochs=7", "model.top_k=2", "data.root=some/where", "model.gate=user"],
    )
    assert (config.train.epochs, config.data.root) == (7, "some/where")
    assert config.model.model_dump()["top_k"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"drop": 1}}, "model.drop: unknown key; did you mean 'dropout'?"),
        ({"train": {"epoch": 1}}, "train.epoch: unknown key; did you mean 'epochs'?"),
        ({"train": {"epochs": "3"}}, "train.epochs: input should be a valid integer, got '3'"),
        ({"train": {"learning_rate": -1.0}}, "train.learning_rate: input should be greater than 0, got -1.0"),
        ({"train": {"learning_rate": float("inf")}}, "train.learning_rate: input should be a finite number, got inf"),
        ({"model": {"mix_scale": float("nan")}}, "model.mix_scale: input should be a finite number, got nan"),
        ({"tune": {"use": "gate"}}, "tune.use: input should be a list, as in [1, 2], got 'gate'"),
        ({"data": {}}, "data.root: required key is missing"),
        ({"model": {"loss": "mse"}}, "model.loss: input should be 'ce', 'ss', 'gbce', 'bce' or 'sampled', got 'mse'"),
        (
            {"system": "rec.errors:ConfigError"},
            "'rec.errors:ConfigError' is no system: expected a class with Config and tasks",
        ),
        ({"expect": {"hit@1O": 0.1}}, "expect.hit@1O: is not measured; did you mean 'hit@10'?"),
        ({"expect": {"hit@10": float("nan")}}, "expect.hit@10: input should be a finite number, got nan"),
        ({"system": "rec.systems.msmrec:Nope"}, "system: no class 'rec.systems.msmrec:Nope'"),
        ({"parallel": {"workers": 3}}, "train.batch_size: must be a multiple of parallel.workers (3), got 128"),
        ({"parallel": {"workers": 2, "expert_parallel": 3}}, "expert_parallel: must divide workers (2), got 3"),
    ],
)
def test_errors_name_key_found_and_expected(change: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_table(MINIMAL | change)
    assert message in str(error.value)


def test_integers_are_numbers_where_floats_are_expected() -> None:
    config = from_table(MINIMAL | {"train": {"learning_rate": 1}})
    assert isinstance(config, RunConfig)
    assert config.train.learning_rate == 1.0


@pytest.mark.parametrize("text", ["system = ", "\xff\xfe"])
def test_a_file_that_is_no_toml_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.toml")
