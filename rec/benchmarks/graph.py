"""Training and ranking on graphs beside the bare sparse and dense products of the same shapes, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rec.benchmarks.memory import PeakMemory
from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import in_turns, side_by_side
from rec.config import load
from rec.data.config import ContentConfig, DataConfig, SplitConfig
from rec.data.generated.graph import PlantedGraphConfig
from rec.data.neighbours import nearest
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.data.stream import to_columns
from rec.nn.graph import observed_products
from rec.nn.pairs import InteractionBatch
from rec.systems.lightgcn import GraphRecommender, LightGCN, LightGCNConfig
from rec.systems.lightgcn import LightGCNModel as GraphModel
from rec.systems.magnet import Magnet
from rec.systems.magnet.model import MagnetModel as MagnetModel
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from rec.train.memory import keep_freed_memory

BATCH, REPEATS, RANKED, CANDIDATES = 2048, 15, 512, 500
BABY = PlantedGraphConfig(users=19_445, items=7_050, interactions=170_000)
"""A graph of Amazon Baby's size."""
FREEDOM = LightGCNConfig(edge_dropout=0.8, content={"image": 0.1, "text": 0.9}, regularisation=0.0)
MAGNET = Path(__file__).parents[1] / "configs/baby-magnet.toml"


def measure(data: Prepared) -> list[Row]:
    """Return times of an epoch and of a full ranking, each beside its limit."""
    torch.set_num_threads(1)
    keep_freed_memory()
    light = SystemOnBatch(LightGCN, LightGCNConfig(layers=2), data)
    freedom = SystemOnBatch(LightGCN, FREEDOM, data)
    magnet = SystemOnBatch(Magnet, load(MAGNET).model, data)
    rows = []
    for name, run in (("LightGCN", light), ("FREEDOM-like", freedom)):
        step, bare = side_by_side(run.step, run.bare(), REPEATS)
        epoch, least = step.scaled(run.steps), bare.scaled(run.steps)
        rows.append(
            timed(f"{name}: epoch of {run.steps} steps, limit: bare products", epoch, least, 2.0, physical=True)
        )
        rows.append(Row(f"{name}: share of a step in sparse products", run.sparse_share(), ""))
    mixed, base = in_turns([magnet.step, freedom.step], REPEATS)
    mixed, base = mixed.scaled(magnet.steps), base.scaled(magnet.steps)
    rows.append(timed("MAGNET: epoch, limit: FREEDOM-like", mixed, base, 3.0))
    rows.append(Row("MAGNET: share of a step in sparse products", magnet.sparse_share(), ""))
    for name, run in (("FREEDOM-like", freedom), ("MAGNET", magnet)):
        start_s = time.perf_counter()
        run.system.start_epoch(run.module, 1)
        rows.append(Row(f"{name}: edges drawn for an epoch", time.perf_counter() - start_s, "s"))
    return [*rows, *_ranking(magnet, data.num_users)]


class SystemOnBatch:
    """A system on one batch of the data set."""

    def __init__(self, system: type[GraphRecommender[Any]], config: Any, data: Prepared) -> None:
        torch.manual_seed(0)
        self.system = system(config, data.tables(system.table_names(config)))
        self.engine = LocalEngine(self.system.model(), TrainConfig())
        module = self.engine.module
        assert isinstance(module, GraphModel)
        self.module, self.config = module, config
        rows = data.rows("train")
        self.steps = -(-len(rows) // BATCH)
        self.batch: InteractionBatch = self.system.collate(to_columns(rows.slice(0, BATCH)))
        module.train()
        self.system.start_epoch(module, 0)

    def step(self) -> None:
        """Make one optimiser step."""
        terms = self.system.loss(self.engine, self.batch).values()
        self.engine.backward(torch.stack([term.weight * term.mean for term in terms]).sum())
        self.engine.step(1e-3)

    def bare(self) -> Callable[[], None]:
        """Return an action that makes just a step's products: propagation, content and scores, both ways."""
        module, width = self.module, self.config.width
        graph = module.whole if module.drawn is None else module.drawn
        assert graph is not None
        node_ND = torch.randn(module.num_users + module.num_items + 1, width)
        item_ID, user_BD, other_BD = torch.randn(module.num_items + 1, width), *torch.randn(2, BATCH, width)

        def action() -> None:
            for _ in range(2):  # forward and backward
                for _ in range(self.config.layers):
                    graph @ node_ND
                for matrix, _ in module.content:
                    matrix @ item_ID
            for _ in range(2 * 3):  # two scores, each with the gradients of both sides
                (user_BD * other_BD).sum(1)

        return action

    def sparse_share(self) -> float:
        """Return the share of a step's time that sparse products take."""
        self.step()
        spent: list[float] = []
        with observed_products(spent.append):
            start_s = time.perf_counter()
            for _ in range(3):
                self.step()
            total_s = time.perf_counter() - start_s
        return sum(spent) / total_s


def _ranking(magnet: SystemOnBatch, users: int) -> list[Row]:
    """Return the time to score all items for all users, from that of some, beside the products alone.

    And that of the best candidates by the base score alone, with the share of the best 20 items that they hold.
    """
    module = magnet.module
    assert isinstance(module, MagnetModel)
    assert isinstance(magnet.system, Magnet)
    module.eval()
    with torch.inference_mode():
        stack_IAD, _, item_EID = module.items()
        user_BAD = module.streams()[:RANKED]
        item_IX, user_BX = stack_IAD.flatten(1), user_BAD.flatten(1)
        user_EBD = module.mixture.experts.of_nodes(user_BAD)

        def products() -> None:
            for expert in range(len(item_EID)):
                user_BX @ item_IX.T
                user_EBD[expert] @ item_EID[expert].T

        def two_stages() -> Any:
            base_BI = user_BAD[:, 0] @ stack_IAD[:, 0].T
            item_BC = base_BI.topk(CANDIDATES, dim=1).indices
            user_PAD = user_BAD.repeat_interleave(CANDIDATES, 0)
            score_BC = module.pair_scores(user_PAD, item_BC.flatten()).view(item_BC.shape)
            return item_BC.gather(1, score_BC.topk(20, dim=1).indices)

        ours, bare, few = in_turns([lambda: module.scores(user_BAD).float(), products, two_stages], 5)
        best_BK = module.scores(user_BAD).float().topk(20, dim=1).indices
        kept = (best_BK[:, :, None] == two_stages()[:, None]).any(2).float().mean()
    ours, bare, few = (times.scaled(users / RANKED) for times in (ours, bare, few))
    return [
        timed(f"MAGNET: scores of {users:,} users, limit: matrix products", ours, bare, 2.0, physical=True),
        timed(f"MAGNET: the best {CANDIDATES} by the base score alone, limit: all", few, ours),
        Row("MAGNET: share of the best 20 that are among them", float(kept), ""),
    ]


def baby_like(root: str) -> Prepared:
    """Return a generated graph of Amazon Baby's size."""
    return prepare(planted_data(root, BABY), InProcess(), lambda _: None).seen_as(LightGCN.view)


def planted_data(root: str, graph: PlantedGraphConfig, content: ContentConfig | None = None) -> DataConfig:
    """Return the config of a generated graph, split as MMRec does."""
    return DataConfig(
        root=root, source="rec.data.generated.graph:PlantedGraph", read=graph, split=SplitConfig(protocol="mmrec"),
        content=content or ContentConfig(),
    )  # fmt: skip


def neighbours_row(items: int, width: int) -> Row:
    """Return the peak memory of the neighbours of many items, in GiB; at most 8 for 10^6 items of 128 numbers."""
    vector_ID = np.random.default_rng(0).standard_normal((items, width), dtype=np.float32)
    with PeakMemory() as memory:
        nearest(vector_ID, 10, "ivf")
    return Row(f"peak memory of the neighbours of {items:,} items", memory.peak_bytes / 2**30, "GiB", goal=8.0)
