"""Phases under DeepSpeed on several ranks, without Ray: equal to one process at every cut and ZeRO stage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec.config import RunConfig, from_json, to_json
from rec.data.prepared import open_prepared
from rec.data.stream import CachedReader
from rec.evaluation.measure import directions
from rec.moe.experts import UnlikeExperts
from rec.moe.layer import MixtureOfExperts
from rec.moe.routers import SoftmaxRouter
from rec.nn.replicated import Replicated
from rec.storage import Storage
from rec.systems.api import Phase
from rec.train.checkpoint import CheckpointStore
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import LocalEngine
from rec.train.feed import PlannedFeed
from rec.train.job import build, claim, train_here
from rec.train.loop import Job, fit
from rec.train.phases import own_flags, select
from rec.train.ranks import RankFeed, equalise_buffers
from rec.train.replicas import average_running_statistics, replicated_of, start_step
from rec.train.saver import Saver
from tests.distributed.runtime.test_training import agree
from tests.support.states import InMemory, state_of
from tests.support.toy_phases import toy_table

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]
Make = Callable[..., RunConfig]
CUTS = [(2, 1, 0), (2, 1, 1), (2, 2, 0), (2, 2, 1), (2, 2, 2)]
"""Workers, expert-parallel, ZeRO stage."""


class Stop(Exception):
    """Ends a run from the outside."""


def quiet(_: Any) -> None:
    """Say nothing."""


@pytest.fixture
def toy(run_config: Make) -> Make:
    return lambda **changes: run_config(**toy_table(**changes))


# What ranks agree on.


def branches(rank: int, world: int) -> dict[str, Any]:
    """One step of a branch with dropout and statistics, inside `Replicated` and bare, on ranks of different seeds."""
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    module = nn.ModuleDict({"alike": Replicated(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)))})
    module["bare"] = bare
    x_ND = torch.randn(6, 4)
    torch.manual_seed(100 + rank)
    start_step(replicated_of(module), 7, 1, 3)
    first, second = module["alike"](x_ND), module["alike"](x_ND)
    start_step(replicated_of(module), 7, 1, 3)
    again = module["alike"](x_ND)
    start_step(replicated_of(module), 7, 1, 4)
    later = module["alike"](x_ND)
    own = torch.rand(1)
    bare(x_ND + rank)
    before = bare[1].running_mean.clone()
    from rec.runtime.deepspeed import DeepSpeedEngine

    engine = DeepSpeedEngine(module, TrainConfig(), ParallelConfig(workers=world))
    average_running_statistics(engine)
    module.eval()
    return {
        "first": first.detach(), "second": second.detach(), "again": again.detach(), "later": later.detach(),
        "own": own, "alike": module["alike"].module[2].running_var.clone(), "before": before,
        "after": bare[1].running_mean.clone(), "gather": engine.gather({"rank": rank}),
    }  # fmt: skip


def test_replicated_branches_draw_alike_and_running_statistics_are_made_equal(ranks: Any) -> None:
    a, b = ranks.run(2, branches)
    for name in ("first", "second", "again", "later", "alike"):
        assert torch.equal(a[name], b[name]), name
    assert torch.equal(a["first"], a["again"])
    assert not torch.equal(a["first"], a["second"])
    assert not torch.equal(a["first"], a["later"])
    assert not torch.equal(a["own"], b["own"])  # everything else keeps its rank's draws
    assert not torch.equal(a["before"], b["before"])
    assert torch.equal(a["after"], b["after"])
    torch.testing.assert_close(a["after"], (a["before"] + b["before"]) / 2)
    assert a["gather"] == b["gather"] == [{"rank": 0}, {"rank": 1}]


def agreements(rank: int, world: int) -> Any:
    from rec.errors import TrainingError
    from rec.runtime.ranks import TorchRanks

    feed = RankFeed(TorchRanks(), lambda split: iter(()))
    module = nn.BatchNorm1d(2)
    module.running_mean += rank + 1
    equalise_buffers(module, feed.ranks)
    calls: list[int] = []
    once = feed.once(lambda: calls.append(rank) or np.arange(3))  # type: ignore[func-returns-value]
    try:
        feed.once(lambda: 1 / 0)
        failure = ""
    except TrainingError as error:
        failure = str(error)
    rows = feed.gather(np.full(rank + 1, rank))
    return module.running_mean.tolist(), calls, once.tolist(), failure, [r.tolist() for r in rows]


def test_ranks_agree_before_there_is_an_engine(ranks: Any) -> None:
    a, b = ranks.run(2, agreements)
    assert (a[1], b[1]) == ([0], [])
    for found in (a, b):
        assert found[0] == [1.0, 1.0]
        assert found[2] == [0, 1, 2]
        assert found[3].endswith("ZeroDivisionError: division by zero")
        assert found[4] == [[0], [1, 1]]


# Whole runs.


def train_rank(rank: int, world: int, text: str, stop_at: int = 0) -> Any:
    """Train as one rank, as a worker of Ray does; stop at a step after its checkpoint."""
    from rec.runtime.deepspeed import DeepSpeedEngine
    from rec.runtime.ranks import TorchRanks

    config = from_json(text)
    data = open_prepared(config)
    system = build(config, data)
    store = CheckpointStore(Storage(config.out).below("checkpoints"))
    step, _ = store.newest_valid()
    torch.distributed.barrier()  # all look before anyone writes
    gone: list[tuple[Any, ...]] = []

    def wrap(module: nn.Module, keys: TrainConfig) -> DeepSpeedEngine:
        alive = [ref() for refs in gone for ref in refs if ref() is not None]
        assert not alive, [type(one) for one in alive]
        engine = DeepSpeedEngine(module, keys, config.parallel)
        found = {id(one): one for one in (engine, engine.engine, engine.optimizer, engine._inner())}
        gone.append(tuple(weakref.ref(one) for one in found.values()))
        return engine

    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "saving" and stop_at and event["total_step"] > stop_at:
            raise Stop

    feed = PlannedFeed(data, system, config.train, CachedReader(data.storage, system.columns), rank, world)
    job = Job(
        system=system, config=config.train, wrap=wrap, feed=feed, report=report,
        saver=Saver(store, TorchRanks()), resume=store.load(step, TorchRanks()) if step is not None else None,
        ranks=TorchRanks(), directions=directions(system.tasks),
    )  # fmt: skip
    try:
        progress = fit(job)
    except Stop:
        return None
    gc.collect()
    return progress.history


RISING = {"autoencoder": {"learning_rate": 0.05, "metric": "val_loss/size", "schedule": "constant"}}


def close(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Assert that runs agree in both phases."""
    last = [[h for h in history if h["phase"] == 1] for history in (found, wanted)]
    agree(*last)
    for a, b in zip(found, wanted, strict=True):
        for name, value in b.items():
            if name.startswith(("loss/", "val_loss")):
                assert a[name] == pytest.approx(value, rel=2e-4), name


@pytest.mark.parametrize(("world", "ep", "stage"), CUTS)
def test_phases_find_on_ranks_what_they_find_in_one_process(
    ranks: Any, toy: Make, tmp_path: Path, world: int, ep: int, stage: int
) -> None:
    keys = {"train": {"phases": RISING, "clip_norm": 0.5}}
    wanted = train_here(toy(out=str(tmp_path / "alone"), **keys), quiet, quiet)
    parallel = {"workers": world, "expert_parallel": ep, "zero_stage": stage}
    config = toy(out=str(tmp_path / "ranks"), parallel=parallel, **keys)
    claim(config)
    for found in ranks.run(world, train_rank, to_json(config)):
        close(found, wanted.history)
    one, other = (CheckpointStore(Storage(str(tmp_path / n)).below("checkpoints")).load(30) for n in ("alone", "ranks"))
    assert one.tensors.keys() == other.tensors.keys()
    assert other.tensors["model.fits"] == 1
    # Made of codes that were gathered in another order.
    torch.testing.assert_close(one.tensors["model.centre_CX"], other.tensors["model.centre_CX"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("world", "ep", "stage", "offload", "cut"),
    [
        (2, 1, 0, False, {"tokens": 70}),
        (2, 2, 1, False, {"accumulate": 4}),
        (3, 3, 2, False, {"tokens": 70}),
        (2, 1, 1, True, {}),
        (2, 2, 2, True, {}),
        (2, 2, 1, True, {"accumulate": 3}),
        (2, 2, 2, True, {"tokens": 70}),
    ],
)
def test_microbatches_and_an_optimiser_elsewhere_change_no_number(
    ranks: Any, run_config: Make, tmp_path: Path, world: int, ep: int, stage: int, offload: bool, cut: dict[str, int]
) -> None:
    """Ranks have unlike numbers of microbatches in a budget; the run is stopped, and goes on in the second epoch."""
    experts = {"experts": 6, "per_row": 2, "router": "sigmoid", "bias_rate": 0.1}
    keys = {"batch_size": 36, "epochs": 2, "learning_rate": 5e-3, "clip_norm": 0.5, "checkpoint_steps": 1}
    model = {"dropout": 0.0, "feedforward_mixture": experts}
    wanted = train_here(run_config(out=str(tmp_path / "alone"), train=keys, model=model), quiet, quiet)
    parallel = {"workers": world, "expert_parallel": ep, "zero_stage": stage, "offload": offload}
    config = run_config(out=str(tmp_path / "ranks"), train={**keys, **cut}, model=model, parallel=parallel)
    claim(config)
    assert ranks.run(world, train_rank, to_json(config), 13) == [None] * world
    for found in ranks.run(world, train_rank, to_json(config)):
        agree(found, wanted.history)


@pytest.mark.parametrize("stop_at", [3, 12, 13, 21])
def test_a_run_stopped_in_any_phase_goes_on_at_another_size(
    ranks: Any, toy: Make, tmp_path: Path, stop_at: int
) -> None:
    keys = {"train": {"phases": RISING, "checkpoint_steps": 1}}
    wanted = train_here(toy(out=str(tmp_path / "alone"), **keys), quiet, quiet)
    out = str(tmp_path / "ranks")
    first = toy(out=out, parallel={"workers": 2, "expert_parallel": 2, "zero_stage": 2}, **keys)
    claim(first)
    assert ranks.run(2, train_rank, to_json(first), stop_at) == [None, None]
    assert CheckpointStore(Storage(out).below("checkpoints")).steps()[-1] == stop_at
    second = toy(out=out, parallel={"workers": 3, "expert_parallel": 1, "zero_stage": 1}, **keys)
    for found in ranks.run(3, train_rank, to_json(second)):
        close(found, wanted.history)


# Phases that leave ranks without anything to train.


class Mixture(nn.Module):
    """A linear layer and four unlike experts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 8)
        self.soft = MixtureOfExperts(SoftmaxRouter(8, 4, 2), UnlikeExperts([nn.Linear(8, 8) for _ in range(4)]))

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.soft(self.first(x_ND)).y_ND


TRAIN = TrainConfig(learning_rate=0.01, clip_norm=0.3, weight_decay=0.01)
GLOBS = [("first.*",), ("soft.experts.members.0.*",), ("first.*", "soft.experts.members.3.*"), ("*",)]


def steps(engine: Any, world: int | None, rank: int) -> list[tuple[float, float]]:
    found = []
    for step in range(3):
        x = torch.randn(12, 8, generator=torch.Generator().manual_seed(step))
        mine = x if world is None else x.chunk(world)[rank]
        loss = engine(mine).square().sum()
        total = float(engine.sum_over_ranks(loss.detach().double().reshape(1)))
        engine.backward(loss * (engine.world_size / 12))
        found.append((total / 12, float(engine.step(0.01))))
    return found


def frozen_parts(rank: int, world: int, ep: int, stage: int) -> Any:
    from rec.runtime.deepspeed import DeepSpeedEngine

    module: nn.Module = Mixture()
    own, found, state, closed = own_flags(module), [], {}, []
    for globs in GLOBS:
        select(module, Phase(trains=globs), own)
        engine = DeepSpeedEngine(module, TRAIN, ParallelConfig(workers=world, expert_parallel=ep, zero_stage=stage))  # type: ignore[arg-type]
        # However late DeepSpeed's engine before is collected, nothing of this one's is lost.
        closed.clear()
        gc.collect()
        found.append(steps(engine, world, rank))
        state = state_of(engine)
        engine.load_state(InMemory(state))
        module = engine.module
        closed.append(engine.engine)
        engine.close()
        assert "idle" not in " ".join(name for name, _ in module.named_parameters())
    return found, state


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize(("world", "ep"), [(2, 1), (2, 2), (4, 2)])
def test_ranks_may_have_nothing_to_train_in_a_phase(ranks: Any, world: int, ep: int, stage: int) -> None:
    module = Mixture()
    own, wanted, state = own_flags(module), [], {}
    for globs in GLOBS:
        select(module, Phase(trains=globs), own)
        engine = LocalEngine(module, TRAIN)
        wanted.append(steps(engine, None, 0))
        state = state_of(engine)
    for found, assembled in ranks.run(world, frozen_parts, ep, stage):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-5, atol=1e-5)
        assert assembled.keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(assembled[name], value, rtol=1e-3, atol=1e-5, msg=name)


def coupled(rank: int, world: int, stage: int) -> Any:
    from rec.runtime.deepspeed import DeepSpeedEngine

    keys = replace_optimiser()
    engine = DeepSpeedEngine(Mixture(), keys, ParallelConfig(workers=world, zero_stage=stage))  # type: ignore[arg-type]
    return steps(engine, world, rank)


def replace_optimiser() -> TrainConfig:
    return TRAIN.model_copy(update={"optimiser": "adam", "weight_decay": 0.3})


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_adam_with_coupled_decay_is_the_same_under_deepspeed(ranks: Any, stage: int) -> None:
    wanted = steps(LocalEngine(Mixture(), replace_optimiser()), None, 0)
    decoupled = steps(LocalEngine(Mixture(), TRAIN.model_copy(update={"weight_decay": 0.3})), None, 0)
    assert abs(wanted[-1][0] - decoupled[-1][0]) > 1e-3
    for found in ranks.run(2, coupled, stage):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-5, atol=1e-5)
