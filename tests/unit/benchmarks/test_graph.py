"""The graph benchmark on a small graph."""

from pathlib import Path

import pytest

pytest.importorskip("psutil", reason="needs the extra `cluster`")


from rec.benchmarks.graph import FREEDOM, SystemOnBatch, planted_data
from rec.data.generated.graph import PlantedGraphConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.nn.graph import observed_products
from rec.systems.lightgcn import LightGCN


def test_every_sparse_product_of_a_step_is_seen(tmp_path: Path) -> None:
    planted = PlantedGraphConfig(users=80, items=40, interactions=800)
    data = prepare(planted_data(str(tmp_path), planted), InProcess(), lambda _: None).seen_as("graph")
    run = SystemOnBatch(LightGCN, FREEDOM, data)
    spent: list[float] = []
    with observed_products(spent.append):
        run.step()
    # Forward and backward of each layer, and of each of the two content graphs: it has one matrix for both here.
    assert len(spent) == 2 * (FREEDOM.layers + len(run.module.content))
    assert 0 < run.sparse_share() < 1
