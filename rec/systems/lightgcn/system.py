"""LightGCN and its kin on one model: BPR (no layers), VBPR (vectors of items), FREEDOM-like (a frozen content graph).

Letters: B users, U users of the table, I items with padding as item 0, N nodes (users, then items), E edges, D width.
Sources: Rendle et al. 2009 (BPR); He and McAuley 2016 (VBPR); He et al. 2020 (LightGCN); Zhou and Shen 2023 (FREEDOM).
Protocol, loss and sampling are MMRec's, so that numbers compare: one uniform negative among items of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rec.batch import Columns
from rec.evaluation.tasks.ranking import Ranking
from rec.nn.interactions import collated
from rec.nn.pairs import COLUMNS, InteractionBatch
from rec.seeds import derive
from rec.systems.api import System
from rec.systems.capabilities import Ranker, RankingExamples, States
from rec.systems.lightgcn.config import LightGCNConfig
from rec.systems.lightgcn.model import LightGCNModel, LightGCNScores
from rec.terms import Term

M = TypeVar("M", bound=LightGCNModel)


class GraphRecommender(System[InteractionBatch, M], Ranker[InteractionBatch, M], Generic[M]):
    """What recommenders by vectors of the nodes of an interaction graph share."""

    columns = COLUMNS
    view = "graph"
    tasks = (
        Ranking(
            cuts=(5, 10, 20, 50),
            headline="recall@20",
            shown=("recall@20", "ndcg@20", "recall@10", "ndcg@10", "precision@5", "hit@10"),
        ),
    )

    @staticmethod
    def edge_names(config: LightGCNConfig) -> tuple[str, ...]:
        """Return the tables of interactions that this config reads."""
        by_item = ("edge_by_item_user", "edge_by_item_place") if config.mapped else ()
        return ("item_count", "user_count", "edge_train", *by_item)

    def collate(self, rows: Columns) -> InteractionBatch:
        """Return the batch of these rows."""
        return collated(rows, len(self.static["user_count"]))

    def start_epoch(self, module: M, epoch: int) -> None:
        """Draw the epoch's edges."""
        module.draw(derive(self.seed, "edges", epoch))

    def examples(self, batch: InteractionBatch) -> RankingExamples:
        """Return users, the items to find, and what training knows of them, which is left out."""
        known = batch.history_row_M, batch.history_M
        target = batch.target_row_P, batch.target_P
        return RankingExamples(subject_B=batch.user_B, target=target, left_out=known, known=known)

    def known_or_mean(self, node_ND: Tensor, num_users: int, batch: InteractionBatch) -> Tensor:
        """Return known users' vectors, and the mean of their items' for others, (B, D)."""
        state_BD = node_ND[batch.user_B.clamp(min=0)]
        new_B = batch.user_B < 0
        if not bool(new_B.any()):
            return state_BD
        total_BD = torch.zeros_like(state_BD)
        total_BD.index_add_(0, batch.history_row_M, node_ND[num_users + batch.history_M])
        count_B = torch.bincount(batch.history_row_M, minlength=len(batch)).clamp(min=1)
        return torch.where(new_B[:, None], total_BD / count_B[:, None], state_BD)

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        items = 20
        liked = [rng.permutation(items - 2)[:6] + 1 for _ in range(rows)]
        edge = np.array([(user, item) for user, part in enumerate(liked) for item in part[:4]], dtype=np.int32)
        near = np.stack([np.repeat(np.arange(1, items + 1), 3), rng.integers(1, items + 1, 3 * items)], 1)
        by_item = np.argsort(edge[:, 1], kind="stable")
        columns = {
            "user": np.arange(rows),
            "history": [part[:4].astype(np.int32) for part in liked],
            "target": [part[4 : 5 + n % 2].astype(np.int32) for n, part in enumerate(liked)],
        }
        tables = {
            "user_count": np.full(rows, 4),
            "item_count": np.bincount(edge[:, 1], minlength=items + 1),
            "edge_train": edge,
            "edge_by_item_user": edge[by_item, 0],
            "edge_by_item_place": by_item,
            "graph_text_edge": near.astype(np.int32),
            "graph_text_weight": np.ones(len(near), np.float32),
            "feature_text": rng.standard_normal((items + 1, 5)).astype(np.float32),
        }
        return columns, tables


class LightGCN(GraphRecommender[LightGCNModel]):
    """Recommender by vectors of users and items that are propagated over their graph."""

    Config = LightGCNConfig
    config: LightGCNConfig
    loss_terms: ClassVar[Mapping[str, str]] = {
        "bpr": "pairwise ranking of an item of the user above a drawn one",
        "norm_*": "size of the vectors",
    }

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        graphs = [f"graph_{name}_{part}" for name in config.content for part in ("edge", "weight")]
        return (*cls.edge_names(config), *graphs, *(f"feature_{name}" for name in config.features))

    def model(self) -> LightGCNModel:
        """Return a freshly initialised model."""
        module = LightGCNModel(self.config, self.static)
        self.left_out = set(module.unseen.full_F.tolist())
        return module

    def loss(self, model: Callable[[InteractionBatch], Any], batch: InteractionBatch) -> dict[str, Term]:
        """Return the pairwise ranking loss and the norms of the vectors behind it."""
        scored: LightGCNScores = model(batch)
        bpr_B = -nn.functional.logsigmoid(scored.positive_B - scored.negative_B)
        terms = {"bpr": Term(bpr_B.sum(), len(bpr_B))}
        if self.config.regularisation:
            for name, squares in scored.squares.items():
                terms[f"norm_{name}"] = Term(squares, len(bpr_B), self.config.regularisation, root=True)
        return terms

    def states(self, module: LightGCNModel, batch: InteractionBatch) -> dict[str, Tensor]:
        """Return users' vectors; of users who are not known, the mean of the items they come with."""
        return {"state_BD": self.known_or_mean(module.catalogue(), module.num_users, batch)}

    def scores(self, module: LightGCNModel, states: States, items: slice) -> Tensor:
        """Return the inner products of users and a range of items."""
        return (states["state_BD"] @ self.item_vectors(module)[items].T).float()

    def item_vectors(self, module: LightGCNModel) -> Tensor:
        """Return the items' vectors."""
        return module.catalogue()[module.num_users :]

    def queries(self, module: LightGCNModel, states: States) -> Tensor:
        """Return users' vectors."""
        return states["state_BD"]

    def catalogue(self, module: LightGCNModel) -> dict[str, Tensor]:
        """Return the vectors of all nodes."""
        return {"node_ND": module.catalogue()}

    def freeze(self, module: LightGCNModel, catalogue: Mapping[str, Tensor]) -> None:
        """Let the module answer from a catalogue that was computed before."""
        module.frozen = catalogue["node_ND"]
