"""`rec benchmark gpu`, in small and on the CPU: its parts run, tell what is wrong, and count what there is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rec.benchmarks import gpu

TINY = gpu.GPUSizes(steps=2, rows=8, items=(1000,), parameters=1 << 12)
CPU = torch.device("cpu")


def test_all_parts_run_and_have_their_limits(tmp_path: Path) -> None:
    said: list[str] = []
    names = ("rec.systems.msmrec:MSMRec", "rec.systems.safedrug:CodeBaseline")
    rows = {row.name: row for row in gpu.measure(str(tmp_path), said.append, TINY, names)}
    assert "no GPU here" in said[0] or torch.cuda.is_available()
    for name in ("MSMRec", "CodeBaseline"):
        near = rows[f"{name} float32: distance of losses to the CPU's"]
        assert near.met
        assert near.value < 1e-6 or torch.cuda.is_available()
        assert rows[f"{name} float32: operations of a step"].value > 20
    for kind in gpu.TYPES:
        assert rows[f"grouped product, {kind}, rows (5, 0, 7, 0)"].met
        assert rows[f"grouped product, {kind}, rows (0, 0, 0, 9)"].met
        (attention,) = (row for name, row in rows.items() if name.startswith("attention") and f", {kind}: by" in name)
        assert 0 < attention.value < 60
        assert attention.name.endswith("by slabs")
    assert rows["MSMRec, 1,000 items: peak of a step"].limit == 16 * parameters()
    assert rows["4,096 parameters: save"].limit is not None
    assert all(math.isfinite(row.value) for row in rows.values())


def parameters() -> int:
    cls = gpu.resolve(gpu.MSMREC)
    system = cls(cls.Config.model_validate({"width": 64, "gate": "none"}), {"item_count": np.ones(1001, np.int64)})
    return sum(parameter.numel() for parameter in system.model().parameters())


def test_a_part_that_fails_is_a_row_that_is_not_met() -> None:
    def fails() -> list[gpu.Row]:
        raise RuntimeError("Invalid strides [0,0]\nand more")

    said: list[str] = []
    (row,) = gpu.guarded("a part", fails, said.append)
    assert (row.name, row.met) == ("a part: RuntimeError", False)
    assert said[-1] == "gpu: a part: RuntimeError: Invalid strides [0,0]"


@pytest.mark.parametrize(
    ("action", "operations", "reads"),
    [
        (lambda x: x + 1, 1, 0),
        (lambda x: float(x.sum()), 2, 1),
        (lambda x: x.sum().item() + x.max().item(), 4, 2),
    ],
)
def test_values_that_the_host_waits_for_are_counted(action, operations: int, reads: int) -> None:
    ones = torch.ones(3)
    with gpu.Counted() as counted:
        action(ones)
    assert (counted.operations, counted.reads) == (operations, reads)


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu.grouped_product
    monkeypatch.setattr(gpu, "grouped_product", lambda x, weight, grouping: right(x, weight.roll(1, 0), grouping))
    assert gpu.product_row("wrong", "float32", (3, 4, 2, 1), CPU).met is False
