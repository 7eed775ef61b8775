import pytest

from rec.config import RunConfig, from_table, load, to_toml
from rec.errors import ConfigError
from rec.tuning.search import apply, ready_spaces, space_of


def config(**changes) -> RunConfig:
    table = {"system": "rec.systems.msmrec:MSMRec", "out": "out/x", "data": {"root": "data"}} | changes
    return from_table(table)


def test_every_ready_space_of_a_system_has_valid_values() -> None:
    model = {"feedforward_mixture": {"experts": 4}}
    names = tuple(ready_spaces(config(model=model)))
    assert {"gate", "model", "experts", "router", "optimiser"} <= set(names)
    space = space_of(config(model=model, tune={"use": list(names)}))
    assert "model.feedforward_mixture.balance_weight" in space
    when = space["model.feedforward_mixture.z_weight"].when
    assert when == {"model.feedforward_mixture.router": (True, ("softmax",))}


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({}, "tune.space: nothing to search"),
        ({"use": ["optimizer"]}, "tune.use: no ready-made space 'optimizer'"),
        ({"space": {"train.learning_rat": {"log": [1e-4, 1e-2]}}}, "did you mean 'train.learning_rate'?"),
        ({"space": {"train.learning_rate": {"uniform": [-2.0, -1.0]}}}, "train.learning_rate: no value of it is valid"),
        ({"space": {"model.gate": {"choice": ["itm"]}}}, "tune.space.model.gate: no value of it is valid"),
        ({"space": {"model.width": {"log": [0, 4]}}}, "model.width.log: expected numbers above 0"),
        ({"space": {"model.width": {"int": [8, 16], "when": {"model.gat": ["item"]}}}}, "model.gat: unknown key"),
        ({"trials": 0}, "tune.trials"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_with_its_key(tune, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        space_of(config(tune=tune))
    assert message in str(error.value)


def test_a_point_makes_a_run_and_its_toml_reads_back(tmp_path) -> None:
    run = apply(config(), {"model.width": 32, "train.learning_rate": 0.01, "model.gate": "user"}, "out/y")
    assert (run.model.width, run.model.gate, run.train.learning_rate, run.out) == (32, "user", 0.01, "out/y")
    (tmp_path / "run.toml").write_text(to_toml(run))
    assert load(tmp_path / "run.toml") == run
