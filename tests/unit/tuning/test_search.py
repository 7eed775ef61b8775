import numpy as np
import pytest

from rec.config import RunConfig, from_table, load, to_toml
from rec.errors import ConfigError
from rec.systems.msmrec import MSMRec
from rec.train.job import build_from
from rec.train.phases import stretches
from rec.tuning.search import (
    apply,
    check_objectives,
    evaluations,
    for_search,
    objectives,
    ready_spaces,
    space_of,
    value_at,
)
from tests.support.toy_phases import ToyPhases, toy_table


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


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"metric": "ndcg@1O"}, "tune.metric: 'ndcg@1O' is not measured; did you mean 'ndcg@10'?"),
        (
            {"objectives": {"evaluate": "min"}},
            "tune.objectives.evaluate: 'evaluate' is not measured; did you mean 'evaluate_s'?",
        ),
        ({"objectives": {"auc": "min"}}, "tune.objectives.auc: 'min', but higher is better in 'auc'"),
        (
            {"objectives": {"evaluate_s": "max"}},
            "tune.objectives.evaluate_s: 'max', but lower is better in 'evaluate_s'",
        ),
    ],
)
def test_objectives_that_are_not_measured_or_go_the_other_way_are_refused(tune, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_objectives(config(tune=tune), MSMRec)
    assert message in str(error.value)


def test_objectives_that_are_measured_are_taken() -> None:
    names = {"evaluate_s": "min", "load_balance": "max", "val_loss": "min", "loss/train": "min", "coverage@10": "max"}
    check_objectives(config(tune={"objectives": names}), MSMRec)


def toy(**changes) -> RunConfig:
    return from_table({"out": "out/x", "data": {"root": "data"}} | toy_table(**changes))


def test_evaluations_are_those_of_every_phases_own_epochs() -> None:
    config = toy(model={"first_epochs": 7}, train={"epochs": 4, "evaluate_every": 3})
    system = build_from(config, ToyPhases.sample(4, np.random.default_rng(0))[1])
    found = stretches(system, config.train)
    assert evaluations(found) == 3 + 2  # 7 / 3 and 4 / 3, the last epoch always
    assert evaluations(found[-1:]) == 2


@pytest.mark.parametrize(
    ("train", "tune", "wanted"),
    [
        ({}, {}, {"ndcg@10": "max"}),
        ({"metric": "mean_rank"}, {}, {"mean_rank": "min"}),
        ({"phases": {"experts": {"metric": "val_loss"}}}, {}, {"val_loss": "min"}),
        ({"phases": {"autoencoder": {"metric": "val_loss"}}}, {}, {"ndcg@10": "max"}),
        ({}, {"metric": "hit@10"}, {"hit@10": "max"}),
        ({}, {"metric": "hit@10", "objectives": {"hit@10": "min"}}, {"hit@10": "min"}),
    ],
)
def test_trials_are_compared_by_the_last_phases_metric_in_its_direction(train, tune, wanted) -> None:
    config = toy(train=train, tune=tune)
    system = build_from(config, ToyPhases.sample(4, np.random.default_rng(0))[1])
    assert objectives(for_search(config, system)) == wanted


def test_keys_of_a_phase_can_be_searched() -> None:
    config = toy(tune={"space": {"train.phases.autoencoder.learning_rate": {"log": [1e-3, 1e-1]}}})
    (key,) = space_of(config)
    assert value_at(config, key) is None
    run = apply(config, {key: 0.05}, "out/y")
    assert run.train.phases["autoencoder"].learning_rate == 0.05
    bad = toy(tune={"space": {"train.phases.autoencoder.learning_rat": {"log": [1e-3, 1e-1]}}})
    with pytest.raises(ConfigError, match=r"did you mean 'train.phases.autoencoder.learning_rate'\?"):
        space_of(bad)
