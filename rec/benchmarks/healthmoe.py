"""A training step of HealthMoE, end to end, beside the bare forward and backward of its encoders on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import side_by_side
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.data.stream import to_columns
from rec.keys import DataConfig, TrainConfig
from rec.keys_pairs import FoodConfig, PairsConfig
from rec.nn.pairs import PairsBatch
from rec.systems.healthmoe import HealthMoE
from rec.systems.healthmoe_keys import HealthMoEConfig
from rec.systems.healthmoe_model import HealthMoEModel
from rec.train.optim import adamw

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
    assert isinstance(module, HealthMoEModel)
    batch = system.collate(to_columns(data.rows("train").slice(0, USERS)))
    optimizer = adamw(module, TrainConfig())

    def step() -> None:
        terms: Any = system.loss(module, batch).values()
        torch.stack([term.weight * term.mean for term in terms]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    ours, bare = side_by_side(step, _bare(system, module, batch), REPEATS)
    name = f"end to end: step of {USERS} users and 400 foods, limit: encoders forward and backward"
    return [timed(name, ours, bare, physical=True)]


def _bare(system: HealthMoE, module: HealthMoEModel, batch: PairsBatch) -> Callable[[], None]:
    """Return the encoders' forward and backward on what one step encodes."""
    encoders: tuple[nn.Module, nn.Module] = module.text, module.image
    seen: dict[nn.Module, list[Tensor]] = {encoder: [] for encoder in encoders}
    hooks = [encoder.register_forward_pre_hook(lambda m, given: seen[m].append(given[0])) for encoder in encoders]
    system.loss(module, batch)
    for hook in hooks:
        hook.remove()
    tokens, pixels = (torch.cat(seen[encoder]) for encoder in encoders)

    def bare() -> None:
        (module.text(tokens).sum() + module.image(pixels).sum()).backward()
        module.zero_grad(set_to_none=True)

    return bare
