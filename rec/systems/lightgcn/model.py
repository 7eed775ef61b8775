"""The model of LightGCN and its kin: tables of users and items, propagated over their graph.

Letters: B users, U users of the table, I items with padding as item 0, N nodes (users, then items), E edges, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from rec.nn.graph import Sparse, adjacency, bipartite, drawn_edges, mean_of_layers, moved, product
from rec.nn.mapped import MappedGraph
from rec.nn.negatives import MappedUnseen, Unseen
from rec.nn.pairs import InteractionBatch
from rec.nn.sampled import drawn_rows, sampled_layers
from rec.systems.lightgcn.config import LightGCNConfig


@dataclass(frozen=True, slots=True)
class LightGCNScores:
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
            item_ID = torch.cat([item_ID, self.project(self.feature_IM.to(self.project.weight.dtype))], 1)
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
            item_XD = torch.cat([item_XD, self.project(self.feature_IM[item_X].to(self.project.weight.dtype))], 1)
        return item_XD

    def catalogue(self) -> Tensor:
        """Return the vectors of all nodes in evaluation, kept until training goes on."""
        if self.frozen is not None:
            return self.frozen
        if self.cached is None or self.training:
            self.cached = self.nodes()
        return self.cached

    def with_others(self, batch: InteractionBatch) -> tuple[Tensor, Tensor]:
        """Return users and the items that they like, (B,) each, without users who have every item."""
        user_B, liked_B = batch.user_B[batch.target_row_P], batch.target_P
        kept_B = self.unseen.with_some(user_B)
        return (user_B, liked_B) if kept_B is None else (user_B[kept_B], liked_B[kept_B])

    def forward(self, batch: InteractionBatch) -> LightGCNScores:
        """Return the scores of liked items and of one other item for each."""
        user_B, liked_B = self.with_others(batch)
        other_B = self.unseen.draw(user_B)
        node_QD = self.at(torch.cat([user_B, self.num_users + liked_B, self.num_users + other_B]))
        user_BD, liked_BD, other_BD = node_QD.split([len(user_B)] * 3)
        positive_B, negative_B = (user_BD * liked_BD).sum(1), (user_BD * other_BD).sum(1)
        rows = {"user": self.user(user_B), "liked": self.items_before(liked_B), "other": self.items_before(other_B)}
        return LightGCNScores(positive_B, negative_B, {name: row_BD.square().sum() for name, row_BD in rows.items()})
