"""Cross-entropy over a whole catalogue, forward and backward, beside its three bare products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.benchmarks.memory import largest_bytes
from rec.benchmarks.products import bare, recorded
from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import cpu_s, in_turns
from rec.benchmarks.work import Say
from rec.nn import losses
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig

ITEMS = (10_000, 100_000)
WIDTH, ROWS, USERS, LENGTH, MODALITIES = 64, 1024, 32, 32, 3
REPEATS, GOAL = 7, 1.5
BARE_ROWS = 256
"""Rows of the bare products at a time: the whole of their results would only be carried to memory and back."""


def measure(folder: str, say: Say) -> list[Row]:
    """Return times of the loss and of whole steps, and the largest tensor that the loss makes."""
    found = []
    for items in ITEMS:
        found += [*_loss(items), *(_step(items, gate) for gate in ("none", "item"))]
        say(f"entropy: {items:,} items done")
    return found


def _loss(items: int) -> list[Row]:
    state_ND = torch.randn(ROWS, WIDTH, requires_grad=True)
    item_ID = (0.1 * torch.randn(items + 1, WIDTH)).requires_grad_()
    target_N = torch.randint(1, items + 1, (ROWS,))

    def loss() -> None:
        state_ND.grad = item_ID.grad = None
        losses.full_cross_entropy(state_ND, item_ID, target_N).backward()

    state, item = state_ND.detach(), item_ID.detach()
    value, limit = in_turns([loss, lambda: products(state, item)], REPEATS, clock=cpu_s)
    name = f"cross-entropy over {items:,} items x {WIDTH}, {ROWS:,} rows"
    block = 4 * losses.ROWS_PER_CHUNK * losses.ITEMS_PER_BLOCK
    least = max(block, 4 * item.numel())  # the items' gradient is as large as they are
    return [
        timed(f"{name}, both ways, limit: bare products", value, limit, GOAL),
        Row(f"{name}, largest tensor, limit: a block or the gradient", largest_bytes(loss), "bytes", least, 1.0),
    ]


def products(state_ND: Tensor, item_ID: Tensor) -> None:
    """Make the products of scores, of the rows' gradient and of the items', a few rows at a time."""
    for state in state_ND.split(BARE_ROWS):
        score = state @ item_ID.T
        torch.mm(score, item_ID)
        torch.mm(score.T, state)


def _step(items: int, gate: str) -> Row:
    """Return the time of a step of SASRec (no gate) or MSMRec beside all its bare products and gathers."""
    step = training_step(items, gate)
    value, limit = in_turns([step, bare(recorded(step))], REPEATS, clock=cpu_s)
    name = "SASRec" if gate == "none" else f"MSMRec with {MODALITIES} texts"
    told = f"{name}, {items:,} items, {USERS} histories of {LENGTH}: loss and gradients, limit: its products"
    return timed(told, value, limit, GOAL, physical=True)


def training_step(items: int, gate: str) -> Callable[[], Any]:
    """Return an action that computes the full loss of a batch and its gradients."""
    rng = np.random.default_rng(0)
    tables = {
        "item_count": np.ones(items + 1, np.int64),
        "text": rng.standard_normal((items + 1, MODALITIES, WIDTH), dtype=np.float32),
    }
    system = MSMRec(MSMRecConfig(gate=gate, width=WIDTH, max_length=LENGTH), tables)  # type: ignore[arg-type]
    module = system.model()
    history = list(rng.integers(1, items + 1, (USERS, LENGTH)).astype(np.int32))
    target = rng.integers(1, items + 1, USERS).astype(np.int32)
    batch = system.collate({"user": np.arange(USERS), "history": history, "target": target})

    def step() -> None:
        module.zero_grad()
        system.loss(module, batch)["ce"].sum.backward()

    return step
