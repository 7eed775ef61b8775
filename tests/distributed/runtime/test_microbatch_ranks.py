"""Microbatches under DeepSpeed on two ranks, without Ray: the steps of one process that takes each batch whole."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from rec.conformance.cuts import in_training
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import LocalEngine
from rec.train.feed import in_parts
from rec.train.phases import Stretch
from rec.train.progress import TrainingProgress
from rec.train.update import Update
from tests.support.toy_phases import TOY_EXPERTS

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]
TRAIN = TrainConfig(clip_norm=0.5, optimiser="adam")
STEPS = 3
CASES = [
    ("tests.end_to_end.systems.test_msmrec:TestConformance", {"balance_weight": 0.1}, 1),
    ("tests.end_to_end.systems.test_msmrec:TestConformance", {"item_table": "sharded", "loss": "bce"}, 1),
    ("tests.end_to_end.systems.test_healthmoe:TestHealthMoE", {"head": "classification"}, 2),
    ("tests.end_to_end.systems.test_nlammr:TestNLAMMR", {"fusion": "moe"}, 1),
    ("tests.end_to_end.systems.test_nlammr:TestNLAMMR", {"refresh_every": 2}, 1),
    ("tests.end_to_end.systems.test_magnet:TestMagnet", {"routing_terms": True}, 1),
    ("tests.end_to_end.systems.test_toy_phases:TestToyPhases", {"feedforward_mixture": TOY_EXPERTS}, 2),
]  # fmt: skip
"""Where a test class is, what one of its configs holds, and over how many ranks experts are spread."""


def steps(path: str, table: dict[str, Any], rank: int, world: int, parts: int, wrap: Any) -> list[dict[str, float]]:
    """Return the terms of the steps of a rank, in microbatches."""
    where, _, name = path.partition(":")
    tests: Any = getattr(import_module(where), name)()
    rows, tables = tests.system.sample(tests.ROWS, np.random.default_rng(0))
    (keys,) = [config for config in tests.configs if table.items() <= config.items()]
    system = tests.system(tests.system.Config.model_validate(keys), tables)
    phase, whole = system.phases()[-1], system.collate(rows)
    module = in_training(system, phase, whole)
    tests.still(system, module)
    terms = system.loss(in_training(system, phase, whole), whole)
    names = tuple(name for name in terms if name not in system.within_batch())
    engine = wrap(module)
    own = slice(0, 7) if rank == 0 else slice(7, tests.ROWS)
    given = rows if world == 1 else {name: column[own] for name, column in rows.items()}
    micro = [(system.collate(part), counts) for part, counts in in_parts(given, parts)]
    stretch = Stretch(phase=replace(phase, terms=names), config=TRAIN, index=0, count=1)
    update = Update(system, stretch, engine, TrainingProgress(), lambda _: None)
    return [update(micro, 0.01, False)[0] for _ in range(STEPS)]


def spread(rank: int, world: int, path: str, table: dict[str, Any], ep: int, parts: int) -> list[dict[str, float]]:
    from rec.runtime.deepspeed import DeepSpeedEngine

    parallel = ParallelConfig(workers=world, expert_parallel=ep, zero_stage=1)
    return steps(path, table, rank, world, parts, lambda module: DeepSpeedEngine(module, TRAIN, parallel))


@pytest.mark.parametrize(("path", "table", "ep"), CASES)
def test_terms_are_those_of_whole_batches_in_one_process(ranks: Any, path: str, table: dict[str, Any], ep: int) -> None:
    """Ranks have 7 and 5 rows; with 6 microbatches one of the second rank counts nowhere."""
    wanted = steps(path, table, 0, 1, 1, lambda module: LocalEngine(module, TRAIN))
    assert wanted[0] != pytest.approx(wanted[2], rel=1e-3)
    for found in ranks.run(2, spread, path, table, ep, 6):
        for one, other in zip(found, wanted, strict=True):
            assert one == pytest.approx(other, rel=5e-4, abs=1e-5)
