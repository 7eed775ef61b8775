"""Steps of a system on rows, and their products."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rec.benchmarks.steps import Steps, weighted
from rec.config import from_table
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.terms import Term


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """Return three steps of the guest that predicts sets."""
    table = {
        "system": "tests.guests.sets_guest:Prescriber",
        "out": str(tmp_path / "run"),
        "data": {
            "root": str(tmp_path / "data"),
            "source": "tests.guests.sets_guest:Cohort",
            "split": {"protocol": "given"},
        },
        "train": {"batch_size": 32},
    }
    config = from_table(table)
    prepare(config.data, InProcess(), lambda _: None)
    return Steps(config, 3)


def test_steps_train_on_rows_and_an_epoch_is_so_many(steps: Steps) -> None:
    before = [p.detach().clone() for p in steps.engine.module.parameters()]
    steps()
    assert all(not torch.equal(p, old) for p, old in zip(steps.engine.module.parameters(), before, strict=True))
    rows = sum(len(part) for part in steps.parts)
    assert rows == 3 * 32
    assert steps.epochs == steps.in_epoch / 3


def test_their_products_leave_weights_alone(steps: Steps) -> None:
    action = steps.bare()
    before = [p.detach().clone() for p in steps.engine.module.parameters()]
    action()
    assert all(torch.equal(p, old) for p, old in zip(steps.engine.module.parameters(), before, strict=True))


def test_weights_of_terms_may_depend_on_other_terms() -> None:
    value = torch.tensor(6.0, requires_grad=True)
    terms = {
        "a": Term(value, 2, 0.5, scale=lambda found: found["b"]),
        "b": Term(torch.tensor(8.0), 4, 0.0),
    }
    total = weighted(terms)
    assert total.item() == 6 / 2 * 0.5 * (8 / 4)
    assert torch.autograd.grad(total, value)[0].item() == 1 / 2 * 0.5 * 2
