"""Parameters that are single numbers under DeepSpeed, as in the plain engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import LocalEngine
from tests.support.states import state_of

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]
TRAIN = TrainConfig(learning_rate=0.05, clip_norm=0.5)
CASES = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (0, "bf16"), (1, "bf16"), (2, "bf16")]


class Scaled(nn.Module):
    """A linear layer whose output is scaled by one learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(4, 1), nn.Parameter(torch.tensor(0.5))

    def forward(self, x_N4: Tensor) -> Tensor:
        scaled: Tensor = self.scale * self.linear(x_N4.to(self.scale.dtype))[:, 0]
        return scaled.float()


def losses(engine: Any, x_N4: Tensor) -> list[float]:
    found = []
    for _ in range(6):
        loss = (engine(x_N4) - x_N4.sum(1)).square().mean()
        engine.backward(loss)
        engine.step(0.05)
        found.append(float(loss.detach()))
    return found


def made() -> tuple[Scaled, Tensor]:
    torch.manual_seed(0)
    return Scaled(), torch.randn(8, 4)


def under_deepspeed(rank: int, world: int) -> dict[Any, Any]:
    from rec.runtime.deepspeed import DeepSpeedEngine

    found = {}
    for stage, precision in CASES:
        module, x_N4 = made()
        engine = DeepSpeedEngine(module, TRAIN, ParallelConfig(workers=world, zero_stage=stage, precision=precision))  # type: ignore[arg-type]
        told = losses(engine, x_N4)
        found[stage, precision] = told, state_of(engine)["model.scale"], tuple(engine.module.scale.shape)
    return found


@pytest.mark.parametrize("world", [1, 2])
def test_a_single_number_trains_as_in_the_plain_engine(ranks: Any, world: int) -> None:
    module, x_N4 = made()
    local = LocalEngine(module, TRAIN)
    wanted = losses(local, x_N4)
    for (_, precision), (found, scale, shape) in ranks.run(world, under_deepspeed)[0].items():
        assert found == pytest.approx(wanted, rel=1e-5 if precision == "fp32" else 0.05)
        torch.testing.assert_close(scale, module.scale.detach(), atol=1e-5 if precision == "fp32" else 0.02, rtol=0)
        assert scale.shape == shape == ()
        assert float(scale) != 0.5
