"""bfloat16 under DeepSpeed: float32 copies that outlive a phase, and ranks and experts without rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rec.moe.experts import FeedForwardExperts
from rec.moe.layer import MixtureOfExperts, layers_of
from rec.moe.routers import SoftmaxRouter
from rec.systems.api import Phase
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.phases import own_flags, select

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]
TRAIN = TrainConfig(learning_rate=0.01, clip_norm=1.0)
CUTS = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
"""Expert-parallel, ZeRO stage."""


class Model(nn.Module):
    """A linear layer, one number and a mixture of four experts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.scale = nn.Linear(8, 8), nn.Parameter(torch.tensor(0.3))
        self.soft = MixtureOfExperts(SoftmaxRouter(8, 4, 2), FeedForwardExperts(8, 16, 4))
        self.register_buffer("shift_D", torch.full((8,), 0.1))

    def forward(self, x_ND: Tensor) -> Tensor:
        mixed = self.soft(self.first(x_ND.to(self.scale.dtype)) * self.scale + self.shift_D)
        return mixed.y_ND.float() + mixed.balance_term(0.0).sum


def engine_of(module: nn.Module, ep: int, stage: int, precision: str) -> Any:
    from rec.runtime.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(
        module,
        TRAIN,
        ParallelConfig(workers=2, expert_parallel=ep, zero_stage=stage, precision=precision),  # type: ignore[arg-type]
    )


def losses(engine: Any, rank: int, rows: tuple[int, int], steps: int = 5) -> list[float]:
    found = []
    engine.module.train()
    for _ in range(steps):
        x_ND = torch.randn(sum(rows), 8, generator=torch.Generator().manual_seed(0))
        loss = (engine(x_ND[: rows[0]] if rank == 0 else x_ND[rows[0] :]) - 1).square().sum()
        found.append(float(engine.sum_over_ranks(loss.detach().double().reshape(1))) / sum(rows))
        engine.backward(loss * (2 / sum(rows)))
        assert float(engine.step(0.01)) > 0
        for _, layer in layers_of(engine.module):
            layer.usage.settle()
    return found


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in [*module.named_parameters(), *module.named_buffers()]}


def phases(rank: int, world: int, ep: int, stage: int) -> None:
    """Weights are as they were at the end of a phase in the next, whether they move in it or only later."""
    module: nn.Module = Model()
    own = own_flags(module)
    select(module, Phase(), own)
    engine = engine_of(module, ep, stage, "bf16")
    losses(engine, rank, (7, 5))
    assert {p.dtype for p in engine.module.parameters()} == {torch.bfloat16}
    module = engine.module
    engine.close()
    ended = values(module)
    assert {value.dtype for value in ended.values()} == {torch.float32}
    for name in ("first.weight", "soft.experts.up_EDF", "scale"):
        assert not torch.equal(ended[name], ended[name].bfloat16().float()), name
    for globs in (("soft.*",), ("first.*", "scale"), ("*",)):
        select(module, Phase(trains=globs), own)
        engine = engine_of(module, ep, stage, "bf16")
        module = engine.module
        engine.close()
        found = values(module)
        assert all(torch.equal(found[name], value) for name, value in ended.items() if name != "shift_D"), globs


@pytest.mark.parametrize(("ep", "stage"), CUTS)
def test_float32_copies_outlive_a_phase(ranks: Any, ep: int, stage: int) -> None:
    ranks.run(2, phases, ep, stage)


def trained(rank: int, world: int, ep: int, stage: int, rows: tuple[int, int]) -> list[list[float]]:
    return [losses(engine_of(Model(), ep, stage, precision), rank, rows) for precision in ("fp32", "bf16")]


@pytest.mark.parametrize("rows", [(9, 3), (1, 0), (0, 6)])
@pytest.mark.parametrize(("ep", "stage"), [(2, 0), (2, 1), (1, 2)])
def test_losses_are_those_of_float32_within_two_percent_also_on_a_rank_without_rows(
    ranks: Any, ep: int, stage: int, rows: tuple[int, int]
) -> None:
    single, half = ranks.run(2, trained, ep, stage, rows)[0]
    assert half == pytest.approx(single, rel=0.02)
    assert single[-1] < single[0]
