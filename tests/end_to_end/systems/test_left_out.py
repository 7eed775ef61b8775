"""A user who has every item: nothing can be drawn against theirs, so the loss leaves them out and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from rec.config import RunConfig, from_table
from rec.systems.healthmoe import HealthMoE
from rec.systems.lightgcn import LightGCN
from rec.systems.msmrec import MSMRec
from rec.train.job import train_here
from rec.train.narrator import Narrator
from tests.support.prepared import write_prepared

ITEMS, USERS = 6, 4
HAS = {0: [1, 2, 3, 4, 5, 6], 1: [1, 2, 3], 2: [2, 4, 5], 3: [6, 1]}
"""What each user has in training; user 0 has everything."""


def graph_rows() -> dict[str, list[Any]]:
    pairs = [(user, item) for user, items in HAS.items() for item in items]
    return {"user": [u for u, _ in pairs], "history": [[] for _ in pairs], "target": [[i] for _, i in pairs]}


def graph_tables() -> dict[str, np.ndarray]:
    edge = np.array([(user, item) for user, items in HAS.items() for item in items], np.int32)
    by_item = np.argsort(edge[:, 1], kind="stable")
    near = np.stack([np.arange(1, ITEMS + 1), np.roll(np.arange(1, ITEMS + 1), 1)], 1).astype(np.int32)
    found = {
        "user_count": np.bincount(edge[:, 0], minlength=USERS),
        "item_count": np.bincount(edge[:, 1], minlength=ITEMS + 1),
        "item_total": np.bincount(edge[:, 1], minlength=ITEMS + 1),
        "edge_train": edge,
        "edge_by_item_user": edge[by_item, 0],
        "edge_by_item_place": by_item,
    }
    for name in ("text", "image"):
        found |= {f"graph_{name}_edge": near, f"graph_{name}_weight": np.ones(ITEMS, np.float32)}
        found[f"feature_{name}"] = np.eye(ITEMS + 1, 4, dtype=np.float32)
    return found


@pytest.mark.parametrize(
    ("system", "model"),
    [
        ("rec.systems.lightgcn:LightGCN", {}),
        ("rec.systems.lightgcn:LightGCN", {"layers": 0}),
        ("rec.systems.lightgcn:LightGCN", {"fanout": 2}),
        ("rec.systems.magnet:Magnet", {"edge_dropout": 0.0}),
    ],
)
def test_a_graph_is_trained_without_the_user_and_says_so(
    system: str, model: dict[str, Any], tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = pa.list_(pa.int32())
    schema = pa.schema({"user": pa.int64(), "history": lists, "target": lists})
    rows = pa.table(graph_rows(), schema=schema)
    asked = pa.table({"user": [1, 2], "history": [[1, 2, 3], [2, 4, 5]], "target": [[4], [1]]}, schema=rows.schema)
    write_prepared(
        str(tmp_path / "data"),
        splits={"train": rows, "val": asked, "test": asked},
        entities={
            "user": (pa.table({"id": [f"u{n}" for n in range(USERS)]}), 0),
            "item": (pa.table({"id": [f"i{n}" for n in range(ITEMS)]}), 1),
        },
        tables=graph_tables(),
        config={},
    )
    config = from_table(
        {
            "system": system,
            "out": str(tmp_path / "run"),
            "model": {"width": 8, **model},
            "data": {"root": str(tmp_path / "data")},
            "train": {"batch_size": 4, "epochs": 2},
        }
    )
    said: list[str] = []
    progress = train_here(config, Narrator(said.append), said.append)
    assert sum("left out of the loss: 1 who have every item" in line for line in said) == 1
    assert all(np.isfinite(record["loss/bpr"]) for record in progress.history)


def test_the_loss_of_a_graph_is_that_of_the_others() -> None:
    rows, tables = graph_rows(), graph_tables()
    system = LightGCN(LightGCN.Config(width=8, layers=1, regularisation=0.1), tables)
    torch.manual_seed(0)
    module = system.model()
    assert system.left_out == {0}
    whole = system.collate(rows)
    others = system.collate({name: values[len(HAS[0]) :] for name, values in rows.items()})
    found = []
    for batch in (whole, others):
        torch.manual_seed(1)
        found.append({name: float(term.mean.detach()) for name, term in system.loss(module, batch).items()})
    assert found[0] == pytest.approx(found[1])
    alone = system.collate({name: values[: len(HAS[0])] for name, values in rows.items()})
    terms = system.loss(module, alone)
    assert {term.count for term in terms.values()} == {0}
    assert sum(float(term.part_of(float(term.sum.detach()), 0).detach()) for term in terms.values()) == 0.0


def histories(user: list[int], seen: list[list[int]]) -> dict[str, Any]:
    return {
        "user": user,
        "history": [np.array(items[:-1], np.int32) for items in seen],
        "target": np.array([items[-1] for items in seen], np.int32),
    }


@pytest.mark.parametrize("loss", ["ss", "bce", "gbce"])
def test_a_sequence_of_everything_is_no_part_of_a_sampled_loss(loss: str) -> None:
    tables = {"item_count": np.array([0, 3, 3, 3, 3, 3])}
    system = MSMRec(MSMRec.Config(gate="none", width=8, blocks=1, loss=loss, negatives=4, dropout=0.0), tables)
    torch.manual_seed(0)
    module = system.model().eval()
    both = system.collate(histories([7, 8], [[1, 2, 3, 4, 5], [2, 3, 4]]))
    term = system.loss(module, both)[loss]
    assert (term.count, system.left_out) == (2, {7})
    assert torch.isfinite(term.sum)
    alone = system.loss(module, system.collate(histories([7], [[5, 4, 3, 2, 1]])))[loss]
    assert (alone.count, float(alone.sum)) == (0, 0.0)
    alone.part_of(0.0, 0).backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in module.parameters())


@pytest.mark.parametrize("keys", [{"negatives": 4}, {"negatives": 0}, {"loss": "bpr"}, {"head": "classification"}])
def test_a_pair_of_someone_with_everything_is_no_part_of_the_loss(
    keys: dict[str, Any], food_run: Callable[..., RunConfig]
) -> None:
    rows, tables = HealthMoE.sample(6, np.random.default_rng(0))
    config = food_run(model={**keys}).model
    system = HealthMoE(config, tables)
    torch.manual_seed(0)
    module = system.model().eval()
    warm = np.flatnonzero(tables["item_count"])
    rows = dict(rows) | {"target": [warm.astype(np.int32), *rows["target"][1:]]}
    terms = system.loss(module, system.collate(rows))
    first = next(iter(terms.values()))
    assert system.left_out == {int(rows["user"][0])}
    assert torch.isfinite(first.sum)
    assert 0 < first.count <= sum(min(len(t), config.positives) for t in rows["target"][1:])
