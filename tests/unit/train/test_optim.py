"""The optimiser: torch's own, without what would import its compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import pytest
import torch
from torch import nn

from rec.train.config import TrainConfig
from rec.train.optim import make_optimiser

ALONE = """
import sys, torch
from torch import nn
from rec.train.config import TrainConfig
from rec.nn.making import made_undrawn
from rec.train.optim import make_optimiser
module = made_undrawn(lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), nn.Embedding)
optimiser = make_optimiser([{"params": list(module.parameters())}], TrainConfig())
module(torch.ones(4, 3)).sum().backward()
optimiser.step()
optimiser.load_state_dict(optimiser.state_dict())
optimiser.zero_grad()
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_steps_are_torchs_own(name: Literal["adam", "adamw"], kind: type[torch.optim.Adam]) -> None:
    config = TrainConfig(optimiser=name, learning_rate=0.01, weight_decay=0.1)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    mine = make_optimiser([{"params": list(ours.parameters())}], config)
    other = kind(theirs.parameters(), lr=0.01, betas=(0.9, config.adam_beta2), weight_decay=0.1, fused=True)
    heard: list[str] = []
    mine.register_step_pre_hook(lambda *_: heard.append("before"))
    for step in range(4):
        for module, optimiser in ((ours, mine), (theirs, other)):
            loss = module(torch.full((2, 5), float(step))).square().sum()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    assert heard == ["before"] * 4
    assert isinstance(mine, kind)
    assert not mine.param_groups[0]["params"][0].grad_fn
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert mine.state_dict().keys() == other.state_dict().keys()


def test_training_imports_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
