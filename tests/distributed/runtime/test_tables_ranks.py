"""A table whose rows lie on two ranks, beside a dense one in one process: losses, states, measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rec.conformance import take
from rec.evaluation.measure import measure, metrics
from rec.nn.making import made_empty
from rec.nn.sharded import EPSILON, is_sharded
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import LocalEngine
from rec.train.optim import make_optimiser
from tests.conformance import Alone
from tests.support.states import InMemory, state_of

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]

ITEMS, TEXTS, RATE, STEPS = 100_000, 2, 0.01, 4
PARTS = [list(range(3)), list(range(3, 16))]
TRAIN = TrainConfig(learning_rate=RATE)


def system_and_rows(gate: str, item_table: str) -> tuple[MSMRec, dict[str, Any]]:
    rng = np.random.default_rng(0)
    length = rng.integers(2, 9, 16)
    rows = {
        "user": np.arange(16),
        "history": [rng.integers(1, ITEMS + 1, n).astype(np.int32) for n in length],
        "target": rng.integers(1, ITEMS + 1, 16).astype(np.int32),
    }
    tables = {
        "item_count": rng.integers(0, 9, ITEMS + 1),
        "text": rng.standard_normal((ITEMS + 1, TEXTS, 4), dtype=np.float32),
    }
    keys = {"width": 8, "blocks": 1, "max_length": 10, "dropout": 0.0, "loss": "sampled", "negatives": 64}
    return MSMRec(MSMRecConfig(**keys, gate=gate, item_table=item_table), tables), rows  # type: ignore[arg-type]


def step(engine: Any, system: MSMRec, rows: dict[str, Any], number: int) -> float:
    """The mean loss of a step in which every rank draws items of its own."""
    torch.manual_seed(10 * number + engine.rank)
    (term,) = system.loss(engine, system.collate(rows)).values()
    total = engine.sum_over_ranks(torch.stack([term.sum.detach().double(), torch.tensor(float(term.count))]))
    engine.backward(term.sum * (engine.world_size / float(total[1])))
    engine.step(RATE)
    return float(total[0] / total[1])


def worker(rank: int, world: int, gate: str, stage: int) -> dict[str, Any]:
    from rec.runtime.deepspeed import DeepSpeedEngine

    system, rows = system_and_rows(gate, "sharded")
    torch.manual_seed(0)
    engine = DeepSpeedEngine(system.model(), TRAIN, ParallelConfig(workers=world, zero_stage=stage))
    mine = take(rows, PARTS[rank])
    losses = [step(engine, system, mine, number) for number in range(STEPS // 2)]
    saved = state_of(engine)
    losses += [step(engine, system, mine, number) for number in range(STEPS // 2, STEPS)]
    ranked = measure(system, engine, iter([(system.collate(mine), True)]))
    torch.manual_seed(1)
    other = DeepSpeedEngine(made_empty(system.model), TRAIN, ParallelConfig(workers=world, zero_stage=stage))
    other.load_state(InMemory(saved))
    again = [step(other, system, mine, number) for number in range(STEPS // 2, STEPS)]
    held = other.module.item.weight.shape
    return {
        "losses": losses,
        "again": again,
        "saved": saved,
        "held": tuple(held),
        "sharded": is_sharded(other.module),
        "metrics": metrics(system, ranked),
    }


def dense(gate: str) -> tuple[list[float], Any, MSMRec]:
    """Losses of a whole table with the same start values, updated by row-wise Adagrad from its dense gradient."""
    system, rows = system_and_rows(gate, "whole")
    sharded, _ = system_and_rows(gate, "sharded")
    torch.manual_seed(0)
    start = sharded.model().state_dict()
    module = system.model()
    module.load_state_dict(start)
    item = module.item.weight
    optimiser = make_optimiser([{"params": [p for p in module.parameters() if p is not item]}], TRAIN)
    square, losses = torch.zeros(ITEMS + 1), []
    for number in range(STEPS):
        terms = []
        for rank, part in enumerate(PARTS):
            torch.manual_seed(10 * number + rank)
            terms += system.loss(module, system.collate(take(rows, part))).values()
        loss = torch.stack([term.sum for term in terms]).sum() / sum(float(term.count) for term in terms)
        losses.append(float(loss.detach()))
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            square += item.grad.square().mean(1)
            item -= RATE * system.config.table_rate * item.grad / (square.sqrt() + EPSILON)[:, None]
        module.zero_grad()
    return losses, module, system


@pytest.mark.parametrize(("gate", "stage"), [("none", 1), ("item", 0)])
def test_two_ranks_train_as_a_dense_table_does(ranks: Any, gate: str, stage: int) -> None:
    found = ranks.run(2, worker, gate, stage)
    losses, module, system = dense(gate)
    for rank in range(2):
        np.testing.assert_allclose(found[rank]["losses"], losses, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(found[rank]["again"], losses[STEPS // 2 :], rtol=1e-6, atol=1e-5)
        assert found[rank]["sharded"]
    assert [part["held"] for part in found] == [(50_001, 8), (50_000, 8)]
    rows = system_and_rows(gate, "whole")[1]
    whole = metrics(system, measure(system, Alone(module), iter([(system.collate(rows), True)])))
    assert found[0]["metrics"] == pytest.approx(whole, abs=1e-3)
    assert found[0]["metrics"] == found[1]["metrics"]


def test_one_process_goes_on_from_what_two_ranks_saved(ranks: Any) -> None:
    saved = ranks.run(2, worker, "none", 1)[0]["saved"]
    system, _ = system_and_rows("none", "sharded")
    engine = LocalEngine(system.model(), TRAIN)
    engine.load_state(InMemory(saved))
    assert torch.equal(engine.module.item.weight, saved["model.item.weight"])
    assert torch.equal(engine.module.item.square_L, saved["optimizer.item.weight.square"])
    assert int((saved["optimizer.item.weight.square"] > 0).sum()) > 64
    assert state_of(engine).keys() == saved.keys()
