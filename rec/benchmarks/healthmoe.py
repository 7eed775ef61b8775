"""A training step of HealthMoE, end to end, beside the bare forward and backward of its encoders on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rec.benchmarks.row import Row, side_by_side
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.data.stream import to_columns
from rec.keys import DataConfig, TrainConfig
from rec.keys_pairs import FoodConfig, PairsConfig
from rec.nn.pairs import PairsBatch
from rec.systems.healthmoe import HealthMoE
from rec.systems.healthmoe_keys import HealthMoEConfig
from rec.systems.healthmoe_model import Model
from rec.train.optim import make_optimiser

USERS, REPEATS = 32, 9
CONFIG = HealthMoEConfig(width=64, hidden=128, out=64)


def measure(root: str, threads: int) -> list[Row]:
    """Return the time of a step with small encoders, 400 foods and 32 users, and that of the encoders alone."""
    food = FoodConfig(pairs=4000, users=400, foods=400)
    data = prepare(DataConfig(root=root, pairs=PairsConfig(kind="food", food=food)), InProcess(), lambda _: None)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    system = HealthMoE(CONFIG, data.tables(HealthMoE.table_names(CONFIG)))
    module = system.model().train()
    assert isinstance(module, Model)
    batch = system.collate(to_columns(data.rows("train").slice(0, USERS)))
    optimizer = make_optimiser([{"params": list(module.parameters())}], TrainConfig())

    def step() -> None:
        terms: Any = system.loss(module, batch).values()
        torch.stack([term.weight * term.mean for term in terms]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    ours, bare = side_by_side(step, _bare(system, module, batch), REPEATS)
    name = f"end to end: step of {USERS} users and 400 foods, limit: encoders forward and backward"
    return [Row(name, ours, "s", bare)]


def _bare(system: HealthMoE, module: Model, batch: PairsBatch) -> Callable[[], None]:
    """Return the encoders' forward and backward on what one step encodes."""
    seen: list[torch.Tensor] = []
    original = module.item_side
    module.item_side = lambda index, *rest: seen.append(index) or original(index, *rest)  # type: ignore[func-returns-value, method-assign]
    system.loss(module, batch)
    module.item_side = original  # type: ignore[method-assign]
    tokens = torch.cat([batch.text_BX, module.tables["item_tokens"][seen[0]]])
    pixels = module.tables["item_pixels"][seen[0]]

    def bare() -> None:
        (module.text(tokens).sum() + module.image(pixels).sum()).backward()
        module.zero_grad(set_to_none=True)

    return bare
