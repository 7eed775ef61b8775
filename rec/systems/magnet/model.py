"""MAGNET's model: see rec.systems.magnet.

Letters: N nodes (U users, then I items with padding as item 0), P (user, item) pairs, A streams (behaviour and M
modalities), D width, E experts, B users of a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from rec.moe.layer import Mixed
from rec.nn.graph import Sparse, mean_of_layers, normalised, product, profiles, pseudo_edges
from rec.nn.mapped import MappedGraph, MappedJoint, MappedProfile
from rec.nn.pairs import InteractionBatch
from rec.nn.sampled import drawn_rows
from rec.systems.lightgcn import LightGCNModel
from rec.systems.magnet.config import MagnetConfig
from rec.systems.magnet.mixture import RoleMixture, unit

ALL = slice(None)
USERS_AT_ONCE, ITEMS_AT_ONCE = 128, 1024
"""Users and items whose scores, expert by expert, are in memory at once."""


@dataclass(frozen=True, slots=True)
class MagnetScores:
    """What one pass over a batch in training gives."""

    positive_P: Tensor
    negative_P: Tensor
    squares: Tensor
    """Half the squared norms of the pairs' table rows, added up."""
    mixed: Mixed
    contrast: dict[str, tuple[Tensor, int]]
    """Sum and count of the contrast between views, of users and of items."""
    ramp: float
    """How far specialisation has come."""


class ItemStreams(NamedTuple):
    """What scoring needs of all items."""

    stack_IAD: Tensor
    unit_IX: Tensor
    """Unit streams side by side, X = A D."""
    made_EID: Tensor
    """What each expert makes of them."""


class Whole:
    """Views and streams of nodes in training, from propagation over all of the graph once for a step."""

    def __init__(self, model: MagnetModel) -> None:
        self.model = model
        self.view_ND, self.stream_IX = model.views(), model.item_streams()
        matrix, transposed = model.drawn_profile
        self.profile_UX = product(matrix, self.stream_IX, transposed)

    def views(self, node_P: Tensor) -> tuple[Tensor, ...]:
        """Return nodes in the plain view, in the view with content edges, and fused, each (P, D)."""
        return tuple(view_ND.index_select(0, node_P) for view_ND in self.view_ND)

    def streams(self, item_P: Tensor) -> Tensor:
        """Return items' streams of all modalities, joined, (P, M D)."""
        return self.stream_IX.index_select(0, item_P)

    def profiles(self, user_P: Tensor) -> Tensor:
        """Return the means of the streams of users' items, (P, M D)."""
        return self.profile_UX.index_select(0, user_P)


class Sampled:
    """The same, estimated from drawn neighbours of the nodes asked for."""

    def __init__(self, model: MagnetModel) -> None:
        self.model, self.fanout = model, model.config.fanout

    def views(self, node_P: Tensor) -> tuple[Tensor, ...]:
        """Return nodes in the plain view, in the view with content edges, and fused, each (P, D)."""
        model = self.model
        node_X, place_P = node_P.unique(return_inverse=True)
        plain_XD = model.propagated(model.graph, node_X)
        if model.blend is None:
            content_XD = fused_XD = model.with_similar(model.similar, node_X, plain_XD)
        else:
            content_XD = model.propagated(model.joint_graph, node_X)
            fused_XD = model.blended(plain_XD, content_XD)
        return tuple(view_XD.index_select(0, place_P) for view_XD in (plain_XD, content_XD, fused_XD))

    def streams(self, item_P: Tensor) -> Tensor:
        """Return items' streams of all modalities, joined, (P, M D)."""
        model, parts = self.model, []
        item_X, place_P = item_P.unique(return_inverse=True)
        for place, graph in enumerate(model.graphs):
            near = drawn_rows(graph, item_X, self.fanout)
            parts.append(model.gathered(place, item_X, near.times(model.carried(place, near.node_Y))))
        return torch.cat(parts, 1).index_select(0, place_P)

    def profiles(self, user_P: Tensor) -> Tensor:
        """Return the means of the streams of users' items, (P, M D)."""
        near = drawn_rows(self.model.drawn_profile[0], user_P, self.fanout)
        return near.times(self.streams(near.node_Y))


class MagnetModel(LightGCNModel):
    """Views, streams and the mixture over one table of users and items."""

    GRAPHS = (
        *LightGCNModel.GRAPHS, "content_edges", "likely", "similar", "graphs", "profile", "drawn_profile", "vectors",
        "present_IA", "joint", "drawn_joint",
    )  # fmt: skip
    config: MagnetConfig

    def __init__(self, config: MagnetConfig, tables: Mapping[str, np.ndarray]) -> None:
        super().__init__(config, tables)
        assert self.whole is not None
        edges = self._edges(config.content, tables)
        self.content_edges = edges
        self.similar = normalised(*edges, self.num_items + 1)
        nodes = self.num_items + 1
        self.graphs = [normalised(*self._edges({name: 1.0}, tables), nodes) for name in config.modalities]
        self.profile: tuple[Sparse, Sparse | None] = (
            profiles(self.user_E, self.item_E, self.num_users, nodes)
            if self.mapped is None
            else (MappedProfile(self.mapped), None)
        )
        self.drawn_profile = self.profile
        self.vectors = [torch.from_numpy(np.array(tables[f"feature_{name}"])) for name in config.modalities]
        there = [vector_IM.abs().amax(1) > 0 for vector_IM in self.vectors]
        present_IA = torch.stack([torch.ones_like(there[0]), *there], 1).float()
        self.present_IA = None if bool(present_IA[1:].all()) else present_IA
        self.lift = nn.ModuleList(nn.Linear(v.shape[1], config.width) for v in self.vectors)
        self.blend = nn.Parameter(torch.zeros(())) if config.view == "joint" else None
        self.likely = self._likely()
        self.joint: Sparse | None = None
        if config.view == "joint":
            every_E = torch.arange(len(self.user_E))
            self.joint = self._joined(every_E) if self.mapped is None else self._joined_files(self.mapped)
        self.drawn_joint = self.joint
        self.mixture = RoleMixture(config)
        self.made: tuple[Tensor, ItemStreams] | None = None

    def _contents(self, tables: Mapping[str, np.ndarray]) -> list[tuple[Tensor, Tensor]]:
        return []  # content comes in by the view

    def _edges(self, weights: Mapping[str, float], tables: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the edges of similar items in both directions: neighbours of either side, no item its own."""
        rows, columns, values = [], [], []
        for name, weight in weights.items():
            edge_E2 = torch.from_numpy(np.asarray(tables[f"graph_{name}_edge"])).long()
            edge_E2 = edge_E2[edge_E2[:, 0] != edge_E2[:, 1]]
            rows += [edge_E2[:, 0], edge_E2[:, 1]]
            columns += [edge_E2[:, 1], edge_E2[:, 0]]
            values += [torch.full((2 * len(edge_E2),), weight / 2)]
        return torch.cat(rows), torch.cat(columns), torch.cat(values)

    def _likely(self) -> tuple[Tensor, Tensor]:
        """Return pseudo edges between users and items that are like theirs, as nodes; none where they do not count."""
        nothing = torch.zeros(0, dtype=torch.int64)
        if self.config.view != "joint" or not self.config.pseudo or not self.config.pseudo_weight:
            return nothing, nothing
        items = self.num_items + 1
        row, column, weight = (part.numpy() for part in self.content_edges)
        similar = scipy.sparse.csr_array((weight, (row, column)), shape=(items, items))
        found = pseudo_edges(self.user_E.numpy(), self.item_E.numpy(), similar, self.num_users, self.config.pseudo)
        user, item = (torch.from_numpy(part.astype(np.int64)) for part in found)
        return user, item + self.num_users

    def _joined(self, kept_E: Tensor) -> Tensor:
        """Return the normalised graph of some interactions and of all content edges, weighted by gamma."""
        user_E, item_E = self.user_E[kept_E], self.item_E[kept_E] + self.num_users
        row, column, weight = self.content_edges
        ones_E = torch.ones(len(user_E), device=user_E.device)
        likely, other = self.likely
        likely_E = torch.full((len(likely),), self.config.pseudo_weight, device=user_E.device)
        rows = torch.cat([user_E, item_E, likely, other, row + self.num_users])
        columns = torch.cat([item_E, user_E, other, likely, column + self.num_users])
        values = torch.cat([ones_E, ones_E, likely_E, likely_E, self.config.gamma * weight])
        return normalised(rows, columns, values, self.num_users + self.num_items + 1)

    def _joined_files(self, graph: MappedGraph) -> MappedJoint:
        """Return the same of interactions that stay in files."""
        row, column, weight = self.content_edges
        return MappedJoint(graph, row + self.num_users, column + self.num_users, self.config.gamma * weight)

    def keep(self, kept_E: Tensor) -> None:
        """Propagate over some of the interactions in training, and make profiles of them."""
        super().keep(kept_E)
        self.drawn_profile = profiles(self.user_E[kept_E], self.item_E[kept_E], self.num_users, self.num_items + 1)
        if self.joint is not None:
            self.drawn_joint = self._joined(kept_E)

    def keep_mapped(self, drawn: MappedGraph) -> None:
        """Propagate over some of the interactions in training, and make profiles of them."""
        super().keep_mapped(drawn)
        self.drawn_profile = MappedProfile(drawn), None
        if self.joint is not None:
            self.drawn_joint = self._joined_files(drawn)

    def views(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return nodes in the plain view, in the view with content edges, and fused, each (N, D)."""
        table_ND = torch.cat([self.user.weight, self.item.weight])
        assert self.graph is not None
        plain_ND = mean_of_layers(self.graph, table_ND, self.config.layers)
        if self.blend is None:
            added_ID = plain_ND[self.num_users :] + product(self.similar, self.item.weight)
            content_ND = torch.cat([plain_ND[: self.num_users], added_ID])
            return plain_ND, content_ND, content_ND
        content_ND = mean_of_layers(self.joint_graph, table_ND, self.config.layers)
        return plain_ND, content_ND, self.blended(plain_ND, content_ND)

    @property
    def joint_graph(self) -> Sparse:
        """The graph of interactions and content edges: the epoch's in training, the whole one in evaluation."""
        joint = self.drawn_joint if self.training and self.drawn is not None else self.joint
        assert joint is not None
        return joint

    def blended(self, plain_ND: Tensor, content_ND: Tensor) -> Tensor:
        """Return the fused vectors of nodes, (N, D)."""
        assert self.blend is not None
        beta = self.blend.sigmoid()
        return (1 - beta) * plain_ND + beta * content_ND

    def carried(self, place: int, item_X: Tensor) -> Tensor:
        """Return what a modality's graph carries from items, (X, D)."""
        vector_XM = self.vectors[place].index_select(0, item_X).to(self.item.weight.dtype)
        lifted_XD: Tensor = self.lift[place](vector_XM)
        if self.config.streams == "gate":
            return self.item.weight.index_select(0, item_X) * lifted_XD.sigmoid()
        return 0.3 * unit(lifted_XD)

    def gathered(self, place: int, item_X: Tensor, near_XD: Tensor) -> Tensor:
        """Return items' stream of a modality from what their neighbours carry, (X, D)."""
        return near_XD if self.config.streams == "gate" else (self.carried(place, item_X) + near_XD) / 2

    def item_streams(self) -> Tensor:
        """Return the streams of all modalities of all items, joined, (I, M D)."""
        items = torch.arange(self.num_items + 1, device=self.item.weight.device)
        parts = []
        for place, graph in enumerate(self.graphs):
            parts.append(self.gathered(place, items, product(graph, self.carried(place, items))))
        return torch.cat(parts, 1)

    def streams(self) -> Tensor:
        """Return all streams of all nodes in evaluation, (N, A, D), kept until training goes on."""
        if self.frozen is not None:
            return self.frozen
        if self.cached is None or self.training:
            fused_ND, stream_IX = self.views()[2], self.item_streams()
            stream_NX = torch.cat([product(self.profile[0], stream_IX, self.profile[1]), stream_IX])
            self.cached = torch.cat([fused_ND, stream_NX], 1).view(len(fused_ND), -1, self.config.width)
        return self.cached

    def items(self) -> ItemStreams:
        """Return what scoring needs of all items, kept for as long as their streams are."""
        stream_NAD = self.streams()
        if self.made is None or self.made[0] is not stream_NAD:
            stack_IAD = stream_NAD[self.num_users :]
            made_EID = self.mixture.experts.of_nodes(stack_IAD, self.present_IA)
            self.made = stream_NAD, ItemStreams(stack_IAD, unit(stack_IAD).flatten(1), made_EID)
        return self.made[1]

    def present(self, item_P: Tensor) -> Tensor | None:
        """Return which streams items have, (P, A); None where all have all."""
        return None if self.present_IA is None else self.present_IA[item_P]

    def forward(self, batch: InteractionBatch) -> MagnetScores:  # type: ignore[override]
        """Return the scores of liked items and of one other item for each."""
        user_P, liked_P = self.with_others(batch)
        other_P = self.unseen.draw(user_P)
        seen = Sampled(self) if self.config.fanout else Whole(self)
        item_Q = torch.cat([liked_P, other_P])
        fused_XD = seen.views(torch.cat([user_P, self.num_users + item_Q]))[2]
        user_PX = torch.cat([fused_XD[: len(user_P)], seen.profiles(user_P)], 1)
        item_QX = torch.cat([fused_XD[len(user_P) :], seen.streams(item_Q)], 1)
        shape = -1, len(self.config.streams_of), self.config.width
        user_QAD, item_QAD = user_PX.view(shape).repeat(2, 1, 1), item_QX.view(shape)
        mixed: Mixed = self.mixture(user_QAD, item_QAD, self.present(item_Q))
        score_Q = mixed.y_ND[:, 0]
        if self.config.base_residual:
            score_Q = score_Q + (user_QAD[:, 0] * item_QAD[:, 0]).sum(1)
        squares = sum(table.square().sum() for table in (self.user(user_P), self.item(liked_P), self.item(other_P)))
        contrast = {}
        if self.config.contrast_weight:
            for name, ids in (("user", user_P), ("item", self.num_users + item_Q)):
                contrast[name] = self._contrast(seen, ids)
        positive_P, negative_P = score_Q.split([len(liked_P)] * 2)
        return MagnetScores(positive_P, negative_P, squares / 2, mixed, contrast, self.mixture.trigger.ramp)

    def _contrast(self, seen: Whole | Sampled, ids: Tensor) -> tuple[Tensor, int]:
        """Return this worker's part of the contrast among the nodes of the global batch, and its number of nodes.

        Workers share the nodes out among them, so that the parts add up to the loss of the joined batch.
        """
        mixture, counting = self.mixture, int(self.mixture.counting)
        ids, _ = mixture.ranks.join(ids[: counting * len(ids)])
        sharing, place = mixture.ranks.join(torch.zeros(counting, device=ids.device))
        union = ids.unique()
        if most := self.config.contrast_nodes:  # the same ones on all workers, other ones at the next step
            apart = max(1, -(-len(union) // most))
            union = union[mixture.trigger.steps % apart :: apart]
        plain_XD, content_XD = (unit(view_XD) for view_XD in seen.views(union)[:2])
        own_Y = torch.arange(counting * len(union), device=union.device)[place :: max(1, len(sharing))]
        logit_YX = plain_XD[own_Y] @ content_XD.T / self.config.temperature
        return nn.functional.cross_entropy(logit_YX, own_Y, reduction="sum"), len(own_Y)

    def pair_scores(self, user_PAD: Tensor, item_P: Tensor) -> Tensor:
        """Return the scores of (user, item) pairs in evaluation, float32 (P,)."""
        item_PAD = self.items().stack_IAD[item_P]
        mixed: Mixed = self.mixture(user_PAD, item_PAD, self.present(item_P))
        base_P = (user_PAD[:, 0] * item_PAD[:, 0]).sum(1) * float(self.config.base_residual)
        return (mixed.y_ND[:, 0] + base_P).float()

    def scores(self, user_BAD: Tensor, inside: slice = ALL) -> Tensor:
        """Return every user's score of a range of items, (B, W), in blocks of users and items that stay in cache."""
        stack_IAD, item_IX, item_EID = self.items()
        items = ItemStreams(stack_IAD[inside], item_IX[inside], item_EID[:, inside])
        parts = []
        for block_BAD in user_BAD.split(USERS_AT_ONCE):
            cut = [part.split(ITEMS_AT_ONCE, axis) for part, axis in zip(items, (0, 0, 1), strict=True)]
            blocks = zip(*cut, strict=True)
            parts.append(torch.cat([self._block(block_BAD, ItemStreams(*block)) for block in blocks], 1))
        return torch.cat(parts)

    def _block(self, user_BAD: Tensor, items: ItemStreams) -> Tensor:
        """Return some users' scores of some items by two products per expert; the k best experts of pairs are kept."""
        config, mixture = self.config, self.mixture
        stack_IAD, item_IX, item_EID = items
        router, experts = mixture.router, mixture.experts
        user_EBD = experts.of_nodes(user_BAD)
        base_BI = user_BAD[:, 0] @ stack_IAD[:, 0].T * float(config.base_residual)
        if config.mixture == "off":
            return base_BI + config.mixture_weight * torch.bmm(user_EBD, item_EID.transpose(1, 2)).mean(0)
        user_BX = unit(user_BAD).flatten(1)
        best = [(torch.full_like(base_BI, -torch.inf), torch.zeros_like(base_BI)) for _ in range(config.per_pair)]
        shared = config.mixture_weight * config.shared / mixture.num_experts
        for expert in range(mixture.num_experts):
            score_BI = user_EBD[expert] @ item_EID[expert].T
            if shared:
                base_BI.add_(score_BI, alpha=shared)
            weighed_BX = router.kappa * router.weight_EX[expert] * user_BX
            logit_BI = torch.addmm(router.bias_E[expert], weighed_BX, item_IX.T)
            for place, (value_BI, held_BI) in enumerate(best):
                better_BI = logit_BI > value_BI
                best[place] = torch.maximum(value_BI, logit_BI), torch.where(better_BI, score_BI, held_BI)
                if place + 1 < config.per_pair:  # what was pushed out may be the next best
                    logit_BI = torch.minimum(value_BI, logit_BI)
                    score_BI = torch.where(better_BI, held_BI, score_BI)
        weights = [(value_BI - best[0][0]).exp() for value_BI, _ in best]
        total_BI = sum(weight_BI * held_BI for weight_BI, (_, held_BI) in zip(weights, best, strict=True))
        return base_BI + config.mixture_weight * (1 - config.shared) * total_BI / sum(weights)
