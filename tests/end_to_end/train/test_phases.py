"""Phases in one process: keys, schedules, best weights, ends, resuming anywhere; engines that are gone."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rec.config import RunConfig, from_json, load, to_json, to_toml
from rec.data.prepared import open_prepared
from rec.data.stream import CachedReader
from rec.errors import ConfigError, TrainingError
from rec.evaluation.measure import directions
from rec.storage import Storage
from rec.systems.api import Phase, System
from rec.train.checkpoint import CheckpointStore
from rec.train.config import PhaseConfig, TrainConfig
from rec.train.engine import LocalEngine
from rec.train.feed import PlannedFeed
from rec.train.job import build, claim, train_here
from rec.train.loop import Job, fit
from rec.train.narrator import Narrator
from rec.train.optim import make_optimiser
from rec.train.phases import better, higher_is_better, key_of, own_flags, resolved, select, stretches
from rec.train.ranks import OneRank
from rec.train.saver import Saver
from tests.support.toy_phases import ToyModel, toy_table

Make = Callable[..., RunConfig]


RISING = {"learning_rate": 0.1, "schedule": "constant", "metric": "val_loss/size"}
"""Of the first phase: codes grow with every epoch, so the best weights by their size are those of the first epoch."""


class Stop(Exception):
    """Ends a run from the outside."""


@pytest.fixture
def toy(run_config: Make) -> Make:
    return lambda **changes: run_config(**toy_table(**changes))


def quiet(_: Any) -> None:
    """Say nothing."""


def store_of(config: RunConfig) -> CheckpointStore:
    return CheckpointStore(Storage(config.out).below("checkpoints"))


def tree(config: RunConfig) -> dict[str, bytes]:
    folder = Path(config.out) / "checkpoints"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def job_of(config: RunConfig, **changes: Any) -> Job:
    """What `train_here` builds, with parts of it replaced."""
    data = open_prepared(config)
    system = build(config, data)
    store = CheckpointStore(claim(config).below("checkpoints"))
    feed = PlannedFeed(data, system, config.train, CachedReader(data.storage, system.columns), 0, 1)
    job = Job(
        system=system,
        config=config.train,
        wrap=LocalEngine,
        feed=feed,
        report=quiet,
        saver=Saver(store, OneRank()),
        directions=directions(system.tasks),
    )
    return replace(job, **changes)


class Recording(LocalEngine):
    """Notes the learning rate of every step."""

    rates: list[float]

    def step(self, rate: float) -> torch.Tensor:
        self.rates.append(rate)
        return super().step(rate)


# Keys.


def test_a_users_keys_for_a_phase_come_before_its_own_and_those_before_the_runs() -> None:
    phase = Phase(name="a", epochs=5, learning_rate=0.5)
    config = TrainConfig(epochs=2, batch_size=8, phases={"a": PhaseConfig(learning_rate=0.25, patience=0)}, patience=3)
    found = resolved(phase, config)
    assert (found.epochs, found.learning_rate, found.patience, found.batch_size) == (5, 0.25, 0, 8)
    assert resolved(Phase(name="b"), config).epochs == 2
    keys = [key_of(phase, config, name) for name in ("epochs", "learning_rate", "patience", "batch_size")]
    assert keys == ["train.phases.a.epochs", "train.phases.a.learning_rate", "train.phases.a.patience",
                    "train.batch_size"]  # fmt: skip


def test_a_phase_that_there_is_not_is_refused_before_anything_is_trained(toy: Make) -> None:
    config = toy(train={"phases": {"autoencode": {"epochs": 1}}})
    with pytest.raises(ConfigError, match=r"^train.phases.autoencode: no such phase; there are autoencoder, experts$"):
        train_here(config, quiet, quiet)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({"experts": {"epoch": 1}}, "did you mean 'epochs'"),
        ({"experts": {"epochs": 0}}, "train.phases.experts.epochs: "),
        ({"experts": {"optimiser": "sgd"}}, "train.phases.experts.optimiser: "),
    ],
)
def test_keys_of_phases_are_strict(toy: Make, phases: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy(train={"phases": phases})


@pytest.mark.parametrize(
    ("train", "key"),
    [
        ({"phases": {"autoencoder": {"batch_size": 33}}}, "train.phases.autoencoder.batch_size"),
        ({"phases": {"experts": {"batch_size": 33}}}, "train.phases.experts.batch_size"),
    ],
)
def test_a_batch_that_workers_cannot_share_names_the_phases_key(toy: Make, train: Any, key: str) -> None:
    config = toy(train=train, parallel={"workers": 2})
    data = open_prepared(config)
    with pytest.raises(ConfigError, match=rf"^{key}: must be a multiple of 2 workers, got 33$"):
        build(config, data)
    alone = toy(train=train)
    system = build(alone, data)
    feed = PlannedFeed(data, system, alone.train, CachedReader(data.storage, system.columns), 0, 2)
    phase = {phase.name: phase for phase in system.phases()}[key.split(".")[2]]
    with pytest.raises(ConfigError, match=rf"^{key}: "):
        feed.steps(phase)


def test_every_phase_has_its_own_batches_and_schedule(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy()
    Recording.rates = []
    seen: list[tuple[str, int]] = []
    fit(job_of(config, wrap=Recording, report=lambda e: seen.append((e["kind"], e.get("steps", 0)))))
    first, second = 2 * math.ceil(301 / 60), 2 * math.ceil(301 / 36)
    assert {steps for kind, steps in seen if kind == "step"} == {6, 9}
    assert len(Recording.rates) == first + second

    def wanted(peak: float, steps: int) -> list[float]:
        warm = [peak * (i + 1) / 3 for i in range(3)]
        return warm + [peak * (1 + math.cos(math.pi * i / (steps - 3))) / 2 for i in range(steps - 3)]

    assert Recording.rates == pytest.approx(wanted(0.02, first) + wanted(5e-3, second))


def test_records_name_their_phase_and_metric(toy: Make) -> None:
    history = train_here(toy(), quiet, quiet).history
    assert [(h["phase"], h["phase_name"]) for h in history] == [(0, "autoencoder")] * 2 + [(1, "experts")] * 2
    # A phase that is judged by its loss measures nothing else.
    assert all("ndcg@10" not in h and "val_loss/reconstruction" in h for h in history[:2])
    assert all("ndcg@10" in h and "val_loss" not in h for h in history[2:])
    assert [h["total_step"] for h in history] == [6, 12, 21, 30]


# What moves.


def test_a_phase_only_narrows_what_the_model_trains() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    module["a"].bias.requires_grad_(False)
    own = own_flags(module)
    assert select(module, Phase(trains=("a.*",)), own) == 1
    assert [n for n, p in module.named_parameters() if p.requires_grad] == ["a.weight"]
    # What an earlier phase froze moves again; what the model froze does not.
    assert select(module, Phase(), own) == 3
    assert not module["a"].bias.requires_grad


def test_parameters_that_a_backend_renamed_follow_those_of_their_module() -> None:
    own = {"layer.experts.up": False, "layer.experts.down": False, "head.weight": True}
    module = nn.Module()
    module.layer, module.head = nn.Module(), nn.Linear(1, 1, bias=False)
    module.layer.experts = nn.ModuleDict({"stock": nn.Linear(1, 1)})
    select(module, Phase(), own)
    assert [n for n, p in module.named_parameters() if p.requires_grad] == ["head.weight"]


def test_frozen_parts_do_not_move_in_either_phase(toy: Make) -> None:
    config = toy(train={"epochs": 1})
    fit(job_of(config))
    steps = store_of(config)
    second = steps.load(steps.steps()[-1]).tensors
    first = steps.load(steps.steps()[0]).tensors
    assert first["model.fixed"] == second["model.fixed"] == 1.0
    same = {n for n in first if n.startswith("model.") and torch.equal(first[n], second[n])}
    assert {"model.autoencoder.down.weight", "model.autoencoder.up.weight", "model.fixed"} <= same
    assert "model.item.weight" not in same


def test_a_phase_that_trains_nothing_or_counts_no_term_is_refused(toy: Make) -> None:
    class Nothing(build_class(toy)):  # type: ignore[misc]
        def phases(self) -> tuple[Phase, ...]:
            return (Phase(name="experts", trains=("fixed",)),)

    class NoTerm(build_class(toy)):  # type: ignore[misc]
        def phases(self) -> tuple[Phase, ...]:
            return (Phase(name="experts", terms=("kl",)),)

    for kind, message in (
        (Nothing, r"'experts': no parameter that the model trains"),
        (NoTerm, "no loss term matches"),
    ):
        job = job_of(toy())
        with pytest.raises(TrainingError, match=message):
            fit(replace(job, system=kind(job.system.config, job.system.static)))


def build_class(toy: Make) -> type[System[Any, Any]]:
    config = toy()
    return type(build(config, open_prepared(config)))


def test_the_module_knows_its_phase_before_it_is_wrapped(toy: Make) -> None:
    seen: list[Any] = []

    def wrap(module: nn.Module, keys: TrainConfig) -> LocalEngine:
        seen.append((module.phase, keys.batch_size, keys.optimiser))
        return LocalEngine(module, keys)

    fit(job_of(toy(), wrap=wrap))
    assert seen == [("autoencoder", 60, "adam"), ("experts", 36, "adamw")]


# Before a phase.


def test_what_is_fitted_before_a_phase_is_part_of_checkpoints_and_fitted_once(toy: Make) -> None:
    config = toy(train={"checkpoint_steps": 1})
    with pytest.raises(Stop):
        train_here(config, stopping_at(15), quiet)
    state = store_of(config).load(15).tensors
    assert state["model.fits"] == 1
    assert (state["model.centre_CX"].diff(dim=0) > 0).all()  # rising quantiles
    train_here(config, quiet, quiet)
    assert store_of(config).load(store_of(config).steps()[-1]).tensors["model.fits"] == 1


def test_an_error_before_a_phase_is_told(toy: Make) -> None:
    with pytest.raises(ValueError, match="no centres"):
        train_here(toy(model={"fail_before": True}), quiet, quiet)


# Best weights, engines.


def test_the_next_phase_starts_from_the_best_weights_of_the_one_before(toy: Make) -> None:
    keys = {"autoencoder": RISING | {"epochs": 4}}
    config = toy(train={"phases": keys, "epochs": 1})
    kept: dict[int, Any] = {}
    taken: list[dict[str, torch.Tensor]] = []
    store = CheckpointStore(claim(config).below("checkpoints"))

    class Keeping(Saver):
        def save(self, step: int, pieces: Any, *others: Any) -> None:
            kept[step] = {piece.name: piece.values.clone().view(piece.shape) for piece in pieces}
            super().save(step, pieces, *others)

    def wrap(module: nn.Module, phase: TrainConfig) -> LocalEngine:
        taken.append({name: value.clone() for name, value in module.state_dict().items()})
        return LocalEngine(module, phase)

    progress = fit(job_of(config, wrap=wrap, saver=Keeping(store, OneRank())))
    losses = {h["total_step"]: h["val_loss/size"] for h in progress.history if h["phase"] == 0}
    best = min(losses, key=lambda step: losses[step])
    assert best != max(losses), losses
    weights = {n: v for n, v in taken[1].items() if n.startswith("autoencoder")}
    assert all(torch.equal(v, kept[best][f"model.{n}"]) for n, v in weights.items())
    assert any(not torch.equal(v, kept[max(losses)][f"model.{n}"]) for n, v in weights.items())


def test_the_old_engine_is_gone_before_the_next_is_built(toy: Make) -> None:
    gone: list[tuple[Any, Any]] = []

    def wrap(module: nn.Module, keys: TrainConfig) -> LocalEngine:
        assert all(engine() is None and optimiser() is None for engine, optimiser in gone)
        engine = LocalEngine(module, keys)
        gone.append((weakref.ref(engine), weakref.ref(engine.optimizer)))
        return engine

    fit(job_of(toy(), wrap=wrap))
    assert len(gone) == 2


# Going on.


def stopping_at(step: int) -> Callable[[dict[str, Any]], None]:
    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "saved" and event["total_step"] >= step:
            raise Stop

    return report


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 6, 11, 12, 13, 20, 21, 29, 30])
def test_a_run_that_goes_on_in_any_phase_ends_equal_to_an_undisturbed_one(toy: Make, tmp_path: Path, step: int) -> None:
    """With an early phase whose best epoch is not its last."""
    keys = {
        "model": {"noise": 0.5, "dropout": 0.2},
        "train": {"checkpoint_steps": 1, "phases": {"autoencoder": RISING}},
    }
    whole, cut = (toy(out=str(tmp_path / name), **keys) for name in ("whole", "cut"))
    expected = train_here(whole, quiet, quiet)
    with pytest.raises(Stop):
        train_here(cut, stopping_at(step), quiet)
    found = train_here(cut, quiet, quiet)
    assert found.history == expected.history
    a, b = (store_of(config).load(30).tensors for config in (whole, cut))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("keys", [{}, {"metric": "val_loss", "patience": 1, "epochs": 30, "learning_rate": 0.3}])
def test_the_same_command_on_a_run_that_is_over_does_nothing_and_says_so(toy: Make, keys: Any) -> None:
    config = toy(train={"phases": {"experts": keys}})
    first = train_here(config, quiet, quiet)
    early = bool(keys)
    assert (first.epoch < 30) if early else (first.epoch == 2)
    before, events, said = tree(config), [], []
    again = train_here(config, events.append, said.append)
    assert again.history == first.history
    assert events == []
    assert tree(config) == before
    assert "nothing left to train: " + ("stopped early" if early else "all 2 epochs") in said[0]
    assert ("train.phases.experts.patience" if early else "train.epochs") in said[0]


@pytest.mark.slow
def test_more_epochs_or_patience_go_on_like_a_run_that_had_them_from_the_start(toy: Make, tmp_path: Path) -> None:
    def keys(patience: int, epochs: int) -> dict[str, Any]:
        phase = {"metric": "val_loss", "patience": patience, "epochs": epochs, "learning_rate": 0.1}
        return {"schedule": "constant", "phases": {"experts": phase}}

    train_here(toy(train=keys(1, 20)), quiet, quiet)
    more = train_here(toy(train=keys(3, 20)), quiet, quiet)
    straight = train_here(toy(train=keys(3, 20), out=str(tmp_path / "straight")), quiet, quiet)
    assert more.history == straight.history
    longer = train_here(toy(train=keys(0, more.epoch + 2)), quiet, quiet)
    assert len(longer.history) == len(more.history) + 2


@pytest.mark.parametrize(
    ("keys", "more", "refused"),
    [
        ({"epochs": 2}, {"epochs": 3}, "train.phases.autoencoder.epochs: 3, but the phase is over after 2 epochs"),
        ({"epochs": 1}, {"epochs": 9}, "9, but the phase is over after 1 epoch and the run is in phase 'experts'"),
        ({"epochs": 2}, {"epochs": 1}, ""),
        (RISING | {"epochs": 30, "patience": 1}, RISING | {"epochs": 40, "patience": 1}, ""),
    ],
)
def test_more_epochs_of_a_phase_that_is_over_are_refused(toy: Make, keys: Any, more: Any, refused: str) -> None:
    train_here(toy(train={"phases": {"autoencoder": keys}}), quiet, quiet)
    config = toy(train={"phases": {"autoencoder": more}})
    if not refused:
        train_here(config, quiet, quiet)
        return
    with pytest.raises(ConfigError) as error:
        train_here(config, quiet, quiet)
    assert refused in str(error.value)


def test_early_stopping_of_the_first_phase_goes_on_to_the_second(toy: Make) -> None:
    keys = {"autoencoder": RISING | {"epochs": 30, "patience": 1}}
    progress = train_here(toy(train={"phases": keys}), quiet, quiet)
    names = [h["phase_name"] for h in progress.history]
    assert names.count("autoencoder") == 2
    assert names.count("experts") == 2


# Directions and losses.


@pytest.mark.parametrize(
    ("value", "best", "higher", "wanted"),
    [(1.0, None, True, True), (2.0, 1.0, True, True), (1.0, 1.0, True, False), (2.0, 1.0, False, False),
     (0.5, 1.0, False, True), (math.nan, None, True, False), (math.nan, 1.0, False, False)],
)  # fmt: skip
def test_better(value: float, best: float | None, higher: bool, wanted: bool) -> None:
    assert better(value, best, higher) == wanted


def test_losses_fall_and_everything_else_rises_unless_it_is_said() -> None:
    said = {"rmse": False, "val_loss/bound": True}
    names = ["ndcg@10", "rmse", "val_loss", "val_loss/kl", "loss/ce", "val_loss/bound"]
    assert [higher_is_better(name, said) for name in names] == [True, False, False, False, False, True]


def test_the_lowest_loss_is_the_best_checkpoint_and_states_are_strict_json(toy: Make) -> None:
    config = toy(train={"phases": {"experts": {"metric": "val_loss/ce", "epochs": 4, "learning_rate": 0.1}}})
    progress = train_here(config, quiet, quiet)
    losses = {h["total_step"]: h["val_loss/ce"] for h in progress.history if h["phase"] == 1}
    best = min(losses, key=lambda step: losses[step])
    assert (progress.best, progress.best_step) == (losses[best], best)
    assert store_of(config).best_step() == best

    def refuse(word: str) -> None:
        raise AssertionError(word)

    for path in Path(config.out).rglob("state.json"):
        json.loads(path.read_text(), parse_constant=refuse)


def test_the_loss_on_validation_is_the_weighted_sum_of_means_over_all_rows(toy: Make) -> None:
    config = toy(train={"evaluate_batch_size": 7})
    progress = train_here(config, quiet, quiet)
    record = progress.history[1]
    store = store_of(config)
    data = open_prepared(config)
    system = build(config, data)
    module = system.model()
    # The second phase trains none of the autoencoder, so its last checkpoint still holds the first phase's best.
    tensors = store.load(store.steps()[-1]).tensors
    module.load_state_dict({n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
    assert isinstance(module, ToyModel)
    module.phase = "autoencoder"  # type: ignore[assignment]
    module.eval()
    from rec.data.stream import to_columns

    terms = system.loss(module, system.collate(to_columns(data.rows("val"))))
    wanted = {name: float(term.mean.detach()) for name, term in terms.items()}
    best = min(progress.history[:2], key=lambda h: h["val_loss"])
    assert best is record
    assert record["val_loss/reconstruction"] == pytest.approx(wanted["reconstruction"], rel=1e-5)
    assert record["val_loss"] == pytest.approx(wanted["reconstruction"] + 0.1 * wanted["size"], rel=1e-5)


def test_adam_adds_the_decay_to_the_gradient() -> None:
    """One step by hand: Adam's first step is rate * g / |g|, with g = gradient + decay * weight where it is coupled."""
    found = {}
    for kind in ("adam", "adamw"):
        weight = nn.Parameter(torch.tensor([2.0]))
        config = TrainConfig(optimiser=kind, weight_decay=0.5, learning_rate=0.1)  # type: ignore[arg-type]
        engine = LocalEngine(nn.ParameterList([weight]), config)
        engine.backward((weight * -0.25).sum())
        engine.step(0.1)
        found[kind] = float(weight.detach())
    # Coupled: -0.25 + 0.5 * 2 = 0.75 is positive, so the weight falls by the rate.
    assert found["adam"] == pytest.approx(2.0 - 0.1, abs=1e-6)
    # Decoupled: the weight shrinks by 0.1 * 0.5 of itself, then rises by the rate against the gradient -0.25.
    assert found["adamw"] == pytest.approx(2.0 * 0.95 + 0.1, abs=1e-6)
    assert isinstance(make_optimiser([{"params": [weight]}], TrainConfig()), torch.optim.AdamW)


# What a person sees.


def test_the_line_counts_the_steps_of_its_phase_and_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    narrator = Narrator(said.append)
    step = {"kind": "step", "rank": 0, "phases": 2, "epoch": 0, "epochs": 1, "loss": 1.0, "examples_per_s": 1.0}
    step |= {"wait_share": 0.0, "moe": {}, "total_step": 0}
    narrator(step | {"phase": "first", "step": 63, "steps": 64})
    narrator.line.shown_s = -1e9  # type: ignore[union-attr]
    narrator(step | {"phase": "first", "step": 64, "steps": 64})
    narrator(step | {"phase": "second", "step": 1, "steps": 8})
    narrator.line.shown_s = -1e9  # type: ignore[union-attr]
    narrator(step | {"phase": "second", "step": 3, "steps": 8})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" epoch")[0] for line in lines] == [
        "first step 63/64", "first step 64/64", "second step 1/8", "second step 3/8",
    ]  # fmt: skip
    assert all("left -" not in line for line in lines)
    record = {"kind": "evaluated", "metric": "m", "m": 0.5, "best": True, "epoch": 3, "stopped": False, "why": ""}
    narrator(record | {"phase_name": "second", "phases": 2})
    narrator(record | {"phase_name": "train", "phases": 1, "stopped": True, "why": "long ago"})
    assert said == [
        "second epoch 3: validation m 0.5000 (best)",
        "epoch 3: validation m 0.5000 (best); stopped early, long ago",
    ]
    narrator(record | {"phase_name": "train", "phases": 1, "loss/ce": 1.5, "loss/balance": 0.25})
    assert said[-1] == "epoch 3: validation m 0.5000 (best); loss ce 1.5000, balance 0.2500"


def test_a_system_with_two_phases_of_one_name_is_refused(toy: Make) -> None:
    class Twins(build_class(toy)):  # type: ignore[misc]
        def phases(self) -> tuple[Phase, ...]:
            return Phase(), Phase()

    config = toy()
    system = build(config, open_prepared(config))
    with pytest.raises(ConfigError, match="two phases of one name"):
        stretches(Twins(system.config, system.static), config.train)


def test_keys_of_phases_survive_the_files_of_a_run(toy: Make, tmp_path: Path) -> None:
    config = toy(train={"phases": {"experts": {"epochs": 3, "optimiser": "adam"}}})
    assert from_json(to_json(config)) == config
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert load(tmp_path / "run.toml") == config
    changed = load(tmp_path / "run.toml", ["train.phases.experts.epochs=5"])
    assert changed.train.phases["experts"] == PhaseConfig(epochs=5, optimiser="adam")


def test_a_step_has_at_most_as_many_microbatches_as_a_worker_has_rows(toy: Make) -> None:
    train = {"batch_size": 32, "accumulate": 17}
    config = toy(train=train, parallel={"workers": 2})
    with pytest.raises(ConfigError, match=r"^train.accumulate: at most the 16 rows of a worker's batch, got 17$"):
        build(config, open_prepared(config))
    alone = toy(train=train)
    assert build(alone, open_prepared(alone))
