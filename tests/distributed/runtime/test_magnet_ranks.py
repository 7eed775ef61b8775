"""MAGNET's loss, gradient and trigger when rows are cut over workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from rec.runtime.exchange import WorldRanks
from rec.systems.magnet import Magnet
from rec.systems.magnet.config import MagnetConfig
from tests.conformance import EveryUsersOther, take

pytestmark = [pytest.mark.ray]
MODEL = {
    "width": 8,
    "noise": 0.0,
    "contrast_weight": 0.1,
    "contrast_nodes": 7,
    "view": "joint",
    "trigger": {"window": 1, "warmup": 0, "threshold": 0.1},
}
STEPS = 3


def trained(rank: int, world: int, sizes: list[int]) -> dict[str, Any]:
    """Return loss terms and trigger of three steps, and the weights after them; a rank without rows repeats some."""
    columns, tables = Magnet.sample(12, np.random.default_rng(0))
    system = Magnet(MagnetConfig.model_validate(MODEL), tables, seed=3)
    torch.manual_seed(0)
    module: Any = system.model()
    module.unseen = EveryUsersOther()
    layer = module.mixture
    layer.ranks, layer.counting = WorldRanks(), sizes[rank] > 0
    first = sum(sizes[:rank])
    batch = system.collate(take(dict(columns), list(range(first, first + sizes[rank])) or [0, 1]))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    told = []
    for step in range(STEPS):
        system.start_epoch(module, step)
        terms = system.loss(module, batch)
        total = torch.tensor([[float(t.sum.detach()), float(t.count)] for t in terms.values()], dtype=torch.float64)
        total = layer.ranks.sum(total * float(layer.counting))
        parts = [
            t.part_of(*sums) * (t.weight * float(layer.counting) * world)
            for t, sums in zip(terms.values(), total.tolist(), strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(parts).sum().backward()
        for parameter in module.parameters():
            parameter.grad = layer.ranks.sum(parameter.grad) / world
        optimizer.step()
        layer.after_step()
        means = dict(zip(terms, (total[:, 0] / total[:, 1]).tolist(), strict=True))
        told.append((means, layer.trigger.state.tolist()))
    return {"told": told, "weights": {n: p.detach().numpy() for n, p in module.named_parameters()}}


@pytest.mark.parametrize("sizes", [[7, 5], [1, 11], [12, 0], [4, 4, 4]])
def test_how_rows_are_cut_over_workers_changes_nothing(ranks: Any, sizes: list[int]) -> None:
    whole = ranks.run(1, trained, [12])[0]
    assert whole["told"][-1][0]["confidence"] > 0
    assert whole["told"][-1][1][2] == 1  # switched at the first step
    for found in ranks.run(len(sizes), trained, sizes):
        for (means, state), (wanted, wanted_state) in zip(found["told"], whole["told"], strict=True):
            assert means == pytest.approx(wanted, rel=1e-5)
            assert state == wanted_state
        for name, weight in whole["weights"].items():
            np.testing.assert_allclose(found["weights"][name], weight, rtol=1e-4, atol=1e-6, err_msg=name)
