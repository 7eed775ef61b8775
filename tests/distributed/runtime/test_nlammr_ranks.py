"""NLA-MMR's loss, gradient and running statistics when visits are cut over workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from rec.moe.layer import layers_of
from rec.runtime.exchange import WorldRanks
from rec.systems.nlammr import NLAMMR
from rec.systems.nlammr.config import NLAMMRConfig
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import LocalEngine
from rec.train.replicas import replicated_of, start_step
from tests.conformance import take
from tests.support.states import state_of

pytestmark = [pytest.mark.ray]
MODEL = {
    "width": 8,
    "graph_width": 6,
    "graph_layers": 2,
    "history_gate": True,
    "missing_text_mask": True,
    "ddi_weight": 1.0,
    "ddi_target": 0.05,
}
EXPERTS = {"fusion": "moe", "patient_moe": True}
STEPS = 3


def trained(rank: int, world: int, sizes: list[int], dropout: float, more: dict[str, Any]) -> dict[str, Any]:
    """Return loss terms of three steps, weights and buffers after them; a rank without rows repeats some."""
    columns, tables = NLAMMR.sample(12, np.random.default_rng(0))
    table = MODEL | {"dropout": 0.0, "graph_dropout": dropout} | more
    system = NLAMMR(NLAMMRConfig.model_validate(table), tables, seed=3)
    torch.manual_seed(0)
    module: Any = system.model().train()
    counting, ranks = float(sizes[rank] > 0), WorldRanks()
    for name, layer in layers_of(module):
        layer.counting = sizes[rank] > 0
        layer.ranks = ranks if name.startswith("patients") else layer.ranks
    first = sum(sizes[:rank])
    batch = system.collate(take(dict(columns), list(range(first, first + sizes[rank])) or [0, 1]))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    told = []
    for step in range(STEPS):
        torch.manual_seed(100 * step + rank)
        start_step(replicated_of(module), 3, 0, step)
        terms = system.loss(module, batch)
        total = torch.tensor([[float(t.sum.detach()), float(t.count)] for t in terms.values()], dtype=torch.float64)
        total = ranks.sum(total * counting)
        values = {name: t.value_of(*sums) for (name, t), sums in zip(terms.items(), total.tolist(), strict=True)}
        parts = [
            t.part_of(*sums) * (t.weight_in(values) * counting * world)
            for t, sums in zip(terms.values(), total.tolist(), strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(parts).sum().backward()
        for parameter in module.parameters():
            parameter.grad = ranks.sum(parameter.grad) / world
        optimizer.step()
        module.after_step()
        told.append(values)
    return {"told": told, "state": {name: value.numpy() for name, value in module.state_dict().items()}}


@pytest.mark.parametrize("more", [{}, EXPERTS], ids=["plain", "experts"])
@pytest.mark.parametrize("sizes", [[7, 5], [1, 11], [12, 0]])
def test_how_visits_are_cut_over_workers_changes_nothing(ranks: Any, sizes: list[int], more: dict[str, Any]) -> None:
    whole = ranks.run(1, trained, [12], 0.0, more)[0]
    assert whole["told"][0]["ddi_rate"] > 0.05
    for found in ranks.run(len(sizes), trained, sizes, 0.0, more):
        for values, wanted in zip(found["told"], whole["told"], strict=True):
            assert values == pytest.approx(wanted, rel=1e-4)
        for name, value in whole["state"].items():
            np.testing.assert_allclose(found["state"][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_medications_are_the_same_on_all_ranks_with_dropout(ranks: Any) -> None:
    one, other = ranks.run(2, trained, [9, 3], 0.7, {"refresh_every": 2, "dropout": 0.2})
    assert any(name.endswith("running_mean") for name in one["state"])
    for name, value in one["state"].items():
        assert np.array_equal(value, other["state"][name]), name


TRAIN = TrainConfig(optimiser="adam", weight_decay=0.1, learning_rate=0.01)


def stepped(engine: Any, system: Any, batch: Any, seed: int = 3) -> list[list[float]]:
    """Return the terms and the gradient's norm of three steps of an engine, after which layers balance."""
    found = []
    for step in range(STEPS):
        start_step(replicated_of(engine.module), seed, 0, step)
        terms = system.loss(engine, batch)
        total = torch.tensor([[float(t.sum.detach()), float(t.count)] for t in terms.values()], dtype=torch.float64)
        total = engine.sum_over_ranks(total)
        values = {name: t.value_of(*sums) for (name, t), sums in zip(terms.items(), total.tolist(), strict=True)}
        parts = [
            t.part_of(*sums) * (t.weight_in(values) * engine.world_size)
            for t, sums in zip(terms.values(), total.tolist(), strict=True)
        ]
        engine.backward(torch.stack([part.float() for part in parts]).sum())
        found.append([*values.values(), float(engine.step(0.01))])
        engine.module.after_step()
    return found


def small(more: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return a system with experts on both sides, its rows, and a model."""
    columns, tables = NLAMMR.sample(12, np.random.default_rng(0))
    table = {**MODEL, **EXPERTS, "dropout": 0.0, "graph_dropout": 0.7, **more}
    system = NLAMMR(NLAMMRConfig.model_validate(table), tables, seed=3)
    torch.manual_seed(0)
    return system, dict(columns), system.model().train()


def spread(rank: int, world: int, stage: int, precision: str, more: dict[str, Any]) -> dict[str, Any]:
    """Return what three steps under DeepSpeed tell, with patients' experts over two ranks."""
    from rec.runtime.deepspeed import DeepSpeedEngine

    system, columns, module = small(more)
    sizes = [7, 5]
    first = sum(sizes[:rank])
    batch = system.collate(take(columns, list(range(first, first + sizes[rank]))))
    parallel = ParallelConfig(workers=world, expert_parallel=2, zero_stage=stage, precision=precision)  # type: ignore[arg-type]
    engine = DeepSpeedEngine(module, TRAIN, parallel)
    steps = stepped(engine, system, batch)
    held = {name: layer.experts.num_experts for name, layer in layers_of(engine.module)}
    return {"steps": steps, "held": held, "state": state_of(engine)}


@pytest.mark.parametrize(("stage", "more"), [(1, {}), (2, {"refresh_every": 2})])
def test_patients_experts_are_spread_and_medications_stay_whole(ranks: Any, stage: int, more: dict[str, Any]) -> None:
    pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
    system, columns, module = small(more)
    local = LocalEngine(module, TRAIN)
    wanted = stepped(local, system, system.collate(columns))
    for found in ranks.run(2, spread, stage, "fp32", more):
        assert found["held"] == {"patients.project": 2, "medications.module.project": 4}
        torch.testing.assert_close(torch.tensor(found["steps"]), torch.tensor(wanted), rtol=1e-3, atol=1e-4)
        for name, value in state_of(local).items():
            if name.startswith("model."):
                torch.testing.assert_close(found["state"][name], value, rtol=2e-3, atol=2e-3, msg=name)


def test_half_precision_trains_on_two_ranks(ranks: Any) -> None:
    pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
    one, other = ranks.run(2, spread, 1, "bf16", {"refresh_every": 2})
    assert np.isfinite(one["steps"]).all()
    for name, value in one["state"].items():
        if "running" in name or name.endswith(("age", "structure_VG")):
            assert torch.equal(value, other["state"][name]), name
