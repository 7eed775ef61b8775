"""LightGCN and its kin on one model: BPR (no layers), VBPR (vectors of items), FREEDOM-like (a frozen content graph).

Letters: B users, U users of the table, I items with padding as item 0, N nodes (users, then items), E edges, D width.
Sources: Rendle et al. 2009 (BPR); He and McAuley 2016 (VBPR); He et al. 2020 (LightGCN); Zhou and Shen 2023 (FREEDOM).
Protocol, loss and sampling are MMRec's, so that numbers compare: one uniform negative among items of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec.batch import Columns
from rec.evaluation.tasks.ranking import Ranking
from rec.nn.graph import Sparse, adjacency, bipartite, drawn_edges, mean_of_layers, moved, product
from rec.nn.interactions import collated
from rec.nn.mapped import MappedGraph
from rec.nn.negatives import MappedUnseen, Unseen
from rec.nn.pairs import COLUMNS, InteractionBatch
from rec.nn.sampled import drawn_rows, sampled_layers
from rec.seeds import derive
from rec.strict import Spaces, Strict, Variants
from rec.system import System
from rec.systems.capabilities import Ranker, RankingExamples, States
from rec.terms import Term


class LightGCNConfig(Strict):
    """Keys of `[model]`."""

    SPACES: ClassVar[Spaces] = {
        "model": {
            "layers": {"choice": [1, 2, 3, 4]},
            "regularisation": {"log": [1e-6, 1e-2]},
            "edge_dropout": {"choice": [0.0, 0.5, 0.8, 0.9]},
        }
    }
    VARIANTS: ClassVar[Variants] = {"as configured": (), "BPR": ("model.layers=0", "model.edge_dropout=0.0")}

    width: int = Field(64, ge=1)
    layers: int = Field(2, ge=0)
    """Propagations over the interaction graph, whose mean counts; 0 is BPR's matrix factorisation."""
    edge_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the interactions that an epoch does without, popular ones first; evaluation uses all."""
    fanout: int = Field(0, ge=0)
    """Neighbours drawn for each node and layer in training, weighed up; interactions stay in files then.

    0 propagates over all of the graph at once, in memory.
    """
    content: dict[str, float] = {}
    """Weights of content graphs, by name: what an item's neighbours there have is added to it (FREEDOM)."""
    content_form: Literal["given", "normalised"] = "normalised"
    """Edges weigh what the file says, or 1 over both ends' degrees' roots."""
    features: tuple[str, ...] = ()
    """Modalities whose vectors are projected beside the item's own (VBPR)."""
    regularisation: float = Field(1e-3, ge=0)
    """Weight of the norms of a step's vectors: of all users' together, of all items' together (MMRec's form)."""

    @property
    def mapped(self) -> bool:
        """Whether interactions stay in files."""
        return self.fanout > 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.edge_dropout and not self.layers:
            raise ValueError("edge_dropout: nothing is propagated with layers=0")
        if self.features and self.content:
            raise ValueError("features, content: one of both")
        return self


@dataclass(frozen=True, slots=True)
class Scored:
    """What one pass over a batch in training gives."""

    positive_B: Tensor
    negative_B: Tensor
    squares: dict[str, Tensor]
    """Squares of the users' vectors before propagation, of the liked items' and the others', each added up."""


class LightGCNModel(nn.Module):
    """Tables of users and items, propagated over graphs that are no part of the weights."""

    GRAPHS: ClassVar[tuple[str, ...]] = ("user_E", "item_E", "whole", "drawn", "content", "unseen", "feature_IM")
    """What moves between devices with the weights, and is none of them."""

    def __init__(self, config: LightGCNConfig, tables: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.config = config
        self.num_users, self.num_items = len(tables["user_count"]), len(tables["item_count"]) - 1
        self.frozen: Tensor | None = None
        self.cached: Tensor | None = None
        self.drawn: Sparse | None = None
        self.whole: Sparse | None = None
        self.mapped = MappedGraph.of(tables) if config.mapped else None
        warm = torch.from_numpy(np.flatnonzero(tables["item_count"]))
        if self.mapped is None:
            edge_E2 = torch.from_numpy(np.asarray(tables["edge_train"])).long()
            self.user_E, self.item_E = edge_E2[:, 0], edge_E2[:, 1]
            self.unseen = Unseen(self.user_E, self.item_E, warm)
            if config.layers:
                self.whole = bipartite(self.user_E, self.item_E, self.num_users, self.num_items + 1)
        else:
            self.user_E = self.item_E = torch.zeros(0, dtype=torch.int64)
            self.unseen = MappedUnseen(self.mapped, warm)
            self.whole = self.mapped if config.layers else None
        self.content = self._contents(tables)
        width = config.width * (2 if config.features else 1)
        self.user = nn.Embedding(self.num_users, width)
        self.item = nn.Embedding(self.num_items + 1, config.width)
        parts = [torch.from_numpy(np.asarray(tables[f"feature_{name}"])) for name in config.features]
        self.feature_IM = torch.cat(parts, 1) if parts else None
        if self.feature_IM is not None:
            self.project = nn.Linear(self.feature_IM.shape[1], config.width)
            nn.init.xavier_normal_(self.project.weight)
            nn.init.zeros_(self.project.bias)
        for table in (self.user, self.item):
            nn.init.xavier_uniform_(table.weight)

    def _contents(self, tables: Mapping[str, np.ndarray]) -> list[tuple[Tensor, Tensor]]:
        """Return the content graphs whose neighbours are added to items."""
        return [self._content(name, tables) for name in self.config.content]

    def _content(self, name: str, tables: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor]:
        """Return a content graph over items, weighted, and its transpose."""
        edge_E2 = torch.from_numpy(np.asarray(tables[f"graph_{name}_edge"])).long()
        weight_E = torch.from_numpy(np.array(tables[f"graph_{name}_weight"])) * self.config.content[name]
        row_E, column_E, nodes = edge_E2[:, 0], edge_E2[:, 1], self.num_items + 1
        if self.config.content_form == "given":
            return adjacency(row_E, column_E, weight_E, nodes), adjacency(column_E, row_E, weight_E, nodes)
        out_N, in_N = (torch.bincount(end, minlength=nodes).float() for end in (row_E, column_E))
        weight_E = self.config.content[name] * (out_N[row_E] * in_N[column_E]).clamp(min=1).rsqrt()
        return adjacency(row_E, column_E, weight_E, nodes), adjacency(column_E, row_E, weight_E, nodes)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for name in self.GRAPHS:
            setattr(self, name, moved(getattr(self, name), self.item.weight.device))
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what was computed of all nodes is computed anew."""
        self.cached = None
        return super().train(mode)

    def draw(self, seed: int) -> None:
        """Draw the interactions that the coming epoch propagates over."""
        share = 1 - self.config.edge_dropout
        if share == 1:
            return
        if self.mapped is not None:
            self.keep_mapped(self.mapped.drawn(share, seed))
        else:
            generator = torch.Generator().manual_seed(seed)
            self.keep(drawn_edges(self.user_E, self.item_E, share, generator))

    def keep(self, kept_E: Tensor) -> None:
        """Propagate over some of the interactions in training."""
        self.drawn = bipartite(self.user_E[kept_E], self.item_E[kept_E], self.num_users, self.num_items + 1)

    def keep_mapped(self, drawn: MappedGraph) -> None:
        """Propagate over some of the interactions in training, which are in files."""
        self.drawn = drawn

    @property
    def graph(self) -> Sparse | None:
        """The graph to propagate over: the epoch's in training, all interactions in evaluation."""
        return self.drawn if self.training and self.drawn is not None else self.whole

    def nodes(self) -> Tensor:
        """Return the vectors of all users and items, (U + I, D)."""
        item_ID = self.item.weight
        if self.feature_IM is not None:
            item_ID = torch.cat([item_ID, self.project(self.feature_IM)], 1)
        node_ND = torch.cat([self.user.weight, item_ID])
        if self.graph is not None:
            node_ND = mean_of_layers(self.graph, node_ND, self.config.layers)
        if self.content:
            added = sum(product(matrix, item_ID, transposed) for matrix, transposed in self.content)
            node_ND = torch.cat([node_ND[: self.num_users], node_ND[self.num_users :] + added])
        return node_ND

    def at(self, node_P: Tensor) -> Tensor:
        """Return the vectors of some nodes in training, (P, D); estimates over drawn neighbours with a fanout."""
        if not self.config.fanout:
            # index_select's gradient is much faster on a CPU than that of an index in brackets.
            return self.nodes().index_select(0, node_P)
        node_X, place_P = node_P.unique(return_inverse=True)
        node_XD = self.propagated(self.graph, node_X)
        for matrix, _ in self.content:
            node_XD = self.with_similar(matrix, node_X, node_XD)
        return node_XD.index_select(0, place_P)

    def with_similar(self, matrix: Tensor, node_X: Tensor, node_XD: Tensor) -> Tensor:
        """Return vectors of nodes that rise, to whose items what similar ones have is added, (X, D)."""
        users = int((node_X < self.num_users).sum())
        near = drawn_rows(matrix, node_X[users:] - self.num_users, self.config.fanout)
        added_ID = near.times(self.items_before(near.node_Y))
        return torch.cat([node_XD[:users], node_XD[users:] + added_ID])

    def propagated(self, graph: Sparse | None, node_X: Tensor) -> Tensor:
        """Return an estimate of the mean over layers at nodes that rise, (X, D), from drawn neighbours."""
        if graph is None:
            return self.before(node_X)
        layers = sampled_layers(graph, self.before, node_X, self.config.layers, self.config.fanout)
        return torch.stack(layers).mean(0)

    def before(self, node_X: Tensor) -> Tensor:
        """Return what nodes that rise have before propagation, (X, D)."""
        users = int((node_X < self.num_users).sum())
        item_XD = self.items_before(node_X[users:] - self.num_users)
        return torch.cat([self.user.weight.index_select(0, node_X[:users]), item_XD])

    def items_before(self, item_X: Tensor) -> Tensor:
        """Return what items have before propagation, (X, D)."""
        item_XD = self.item.weight.index_select(0, item_X)
        if self.feature_IM is not None:
            item_XD = torch.cat([item_XD, self.project(self.feature_IM[item_X])], 1)
        return item_XD

    def catalogue(self) -> Tensor:
        """Return the vectors of all nodes in evaluation, kept until training goes on."""
        if self.frozen is not None:
            return self.frozen
        if self.cached is None or self.training:
            self.cached = self.nodes()
        return self.cached

    def forward(self, batch: InteractionBatch) -> Scored:
        """Return the scores of liked items and of one other item for each."""
        user_B, liked_B = batch.user_B[batch.target_row_P], batch.target_P
        other_B = self.unseen.draw(user_B)
        node_QD = self.at(torch.cat([user_B, self.num_users + liked_B, self.num_users + other_B]))
        user_BD, liked_BD, other_BD = node_QD.split(len(user_B))
        positive_B, negative_B = (user_BD * liked_BD).sum(1), (user_BD * other_BD).sum(1)
        rows = {"user": self.user(user_B), "liked": self.items_before(liked_B), "other": self.items_before(other_B)}
        return Scored(positive_B, negative_B, {name: row_BD.square().sum() for name, row_BD in rows.items()})


M = TypeVar("M", bound=LightGCNModel)


class GraphRecommender(System[InteractionBatch, M], Ranker[InteractionBatch, M], Generic[M]):
    """What recommenders by vectors of the nodes of an interaction graph share."""

    columns = COLUMNS
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

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        graphs = [f"graph_{name}_{part}" for name in config.content for part in ("edge", "weight")]
        return (*cls.edge_names(config), *graphs, *(f"feature_{name}" for name in config.features))

    def model(self) -> LightGCNModel:
        """Return a freshly initialised model."""
        return LightGCNModel(self.config, self.static)

    def loss(self, model: Callable[[InteractionBatch], Any], batch: InteractionBatch) -> dict[str, Term]:
        """Return the pairwise ranking loss and the norms of the vectors behind it."""
        scored: Scored = model(batch)
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
