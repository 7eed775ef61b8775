"""MAGNET's model: see rec.systems.magnet.

Letters: N nodes (U users, then I items with padding as item 0), P (user, item) pairs, A streams (behaviour and M
modalities), D width, E experts, B users of a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.moe.balance import assignments
from rec.moe.dispatch import order_by_expert
from rec.moe.experts import Experts
from rec.moe.layer import Mixed, MixtureOfExperts
from rec.moe.routing import Routing, keep_all, keep_top_k
from rec.nn.graph import bipartite, drawn_edges, mean_of_layers, normalised, product, profiles
from rec.nn.interactions import InteractionBatch
from rec.systems.lightgcn import Model as GraphModel
from rec.systems.magnet_keys import MagnetConfig, TriggerConfig

FIXED = 1_000_000_000
"""Entropies are kept as whole numbers of this part, so that a model in bfloat16 loses none."""
SLOPE = 0.2


class Trigger(nn.Module):
    """Turns from coverage to specialisation, once; its state is part of every checkpoint.

    The same on every rank, as it sees the counts of the global batch alone.
    """

    state: Tensor

    def __init__(self, config: TriggerConfig, experts: int) -> None:
        super().__init__()
        self.config, self.experts = config, experts
        # Steps, steps in a row above the threshold, step of the switch and smoothed entropy (both -1 at first).
        self.register_buffer("state", torch.tensor([0, 0, -1, -1]))

    @property
    def ramp(self) -> float:
        """How far specialisation has come, in [0, 1]."""
        steps, _, switched, _ = self.state.tolist()
        return 0.0 if switched < 0 else min(1.0, (steps - switched) / self.config.ramp)

    @property
    def entropy(self) -> float:
        """The smoothed entropy of use, in [0, 1]; 0 before the first step."""
        return max(0, int(self.state[3])) / FIXED

    @property
    def switched(self) -> int:
        """The step of the switch, -1 before it."""
        return int(self.state[2])

    def observe(self, count_E: Tensor) -> None:
        """Take in one optimiser step's assignments."""
        config = self.config
        steps, row, switched, smoothed = self.state.tolist()
        share_E = (count_E / count_E.sum().clamp(min=1)).double()
        entropy = float(-torch.special.xlogy(share_E, share_E).sum()) / math.log(self.experts)
        now = entropy if smoothed < 0 else config.smoothing * smoothed / FIXED + (1 - config.smoothing) * entropy
        steps += 1
        if switched < 0:
            row = row + 1 if steps > config.warmup and now > config.threshold else 0
            due = row >= config.window if config.kind == "entropy" else steps >= config.step
            switched = steps if due else -1
        self.state.copy_(torch.tensor([steps, row, switched, round(now * FIXED)]))


class RoleExperts(Experts):
    """Experts that weigh streams by a template of their role, with a layer of their own where that is asked for."""

    template_EA: Tensor

    def __init__(self, config: MagnetConfig) -> None:
        super().__init__()
        streams = len(config.streams_of)
        template = []
        for anchor in range(streams):
            for share in (config.roles.dominant, config.roles.balanced, config.roles.complementary):
                row = torch.full((streams,), (1 - share) / (streams - 1))
                row[anchor] = share
                template.append(row)
        self.num_experts = len(template)
        self.register_buffer("template_EA", torch.stack(template), persistent=False)
        self.free_EA = nn.Parameter(self.template_EA.log()) if config.templates == "free" else None
        width = config.width
        self.weight_EXD = None
        if config.expert == "mlp":
            self.weight_EXD = nn.Parameter(torch.randn(self.num_experts, streams * width, width) * 0.05)

    @property
    def shares_EA(self) -> Tensor:
        """Each expert's share of every stream."""
        return self.template_EA if self.free_EA is None else self.free_EA.softmax(1)

    def shares_of(self, present_NA: Tensor) -> Tensor:
        """Return each expert's shares where what is missing gives its own to what is there, (N, E, A)."""
        share_NEA = self.shares_EA * present_NA[:, None]
        return share_NEA / share_NEA.sum(2, keepdim=True)

    def of_nodes(self, stack_NAD: Tensor, present_NA: Tensor | None = None) -> Tensor:
        """Return what every expert makes of nodes, (E, N, D); None stands for nodes that miss nothing."""
        share_EA = self.shares_EA
        if present_NA is None:
            weighed_ENAD = share_EA[:, None, :, None] * stack_NAD
        else:
            weighed_ENAD = self.shares_of(present_NA).transpose(0, 1)[..., None] * stack_NAD
        y_END = weighed_ENAD.sum(2)
        if self.weight_EXD is not None:
            y_END = y_END + nn.functional.leaky_relu(torch.bmm(weighed_ENAD.flatten(2), self.weight_EXD), SLOPE)
        return y_END

    def of_pairs(self, user_PAD: Tensor, item_PAD: Tensor, present_PA: Tensor | None) -> Tensor:
        """Return every expert's score of pairs, <f(user), f(item)>, (P, E)."""
        if self.weight_EXD is not None:
            return (self.of_nodes(user_PAD) * self.of_nodes(item_PAD, present_PA)).sum(2).T
        share_EA = self.shares_EA
        gram_PAA = torch.bmm(user_PAD, item_PAD.transpose(1, 2))
        seen_PEA = torch.matmul(share_EA, gram_PAA)
        if present_PA is None:
            return (seen_PEA * share_EA).sum(2)
        return (seen_PEA * self.shares_of(present_PA)).sum(2)


class PairRouter(nn.Module):
    """Scores experts by the streams in which user and item agree: kappa sum_a <u_a * w_ea, i_a> + b_e, unit vectors."""

    def __init__(self, config: MagnetConfig, experts: int) -> None:
        super().__init__()
        self.kappa = config.kappa
        self.weight_EX = nn.Parameter(torch.randn(experts, len(config.streams_of) * config.width) * 0.1)
        self.bias_E = nn.Parameter(torch.zeros(experts))

    def forward(self, user_PAD: Tensor, item_PAD: Tensor) -> Tensor:
        """Return the scores of all experts, float32 (P, E)."""
        meet_PX = (unit(user_PAD) * unit(item_PAD)).flatten(1)
        return self.kappa * meet_PX.float() @ self.weight_EX.float().T + self.bias_E.float()


class RoleMixture(MixtureOfExperts):
    """The mixture over pairs: all experts' scores, of which the router's best count.

    Experts are so small that all are computed for all pairs: no dispatch.
    """

    router: PairRouter
    experts: RoleExperts

    def __init__(self, config: MagnetConfig) -> None:
        experts = RoleExperts(config)
        super().__init__(PairRouter(config, experts.num_experts), experts)
        self.config = config
        trigger = config.trigger
        if not config.routing_terms:
            trigger = trigger.model_copy(update={"kind": "fixed_step"})
        self.trigger = Trigger(trigger, experts.num_experts)

    def forward(self, user_PAD: Tensor, item_PAD: Tensor, present_PA: Tensor | None) -> Mixed:  # type: ignore[override]
        """Return the mixed scores of pairs, (P, 1), with their routing."""
        score_PE = self.experts.of_pairs(user_PAD, item_PAD, present_PA)
        routing = self.route(user_PAD, item_PAD)
        y_P = (score_PE.gather(1, routing.expert_NK) * routing.weight_NK).sum(1)
        if not self.training:
            order = order_by_expert(routing, self.num_experts)
            return Mixed(y_P[:, None], routing, order, order.count_E.double())
        seen = self.ranks.sum(self.usage.observe(routing, assignments(routing)) * float(self.counting))
        self.usage.add(seen, 0)
        order = order_by_expert(routing, self.num_experts)
        return Mixed(y_P[:, None], routing, order, seen[: self.num_experts])

    def route(self, user_PAD: Tensor, item_PAD: Tensor) -> Routing:
        """Return the routing of pairs."""
        logit_PE = self.router(user_PAD, item_PAD)
        if self.config.mixture == "off":
            return keep_all(torch.full_like(logit_PE, 1 / self.num_experts) + 0 * logit_PE)
        if self.training and self.config.noise:
            sigma = self.config.noise * (1 - self.trigger.ramp)
            logit_PE = logit_PE + sigma * torch.randn_like(logit_PE)
        return replace(keep_top_k(logit_PE.softmax(1), self.config.per_pair), score_NE=logit_PE)

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the trigger see what the last step used."""
        self.trigger.observe(self.usage.last_E)


@dataclass(frozen=True, slots=True)
class Scored:
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


class Model(GraphModel):
    """Views, streams and the mixture over one table of users and items."""

    GRAPHS = (
        *GraphModel.GRAPHS, "content_edges", "similar", "graphs", "profile", "drawn_profile", "vectors", "present_IA",
        "joint", "drawn_joint",
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
        self.profile = profiles(self.user_E, self.item_E, self.num_users, self.num_items + 1)
        self.drawn_profile = self.profile
        self.vectors = [torch.from_numpy(np.array(tables[f"feature_{name}"])) for name in config.modalities]
        there = [vector_IM.abs().amax(1) > 0 for vector_IM in self.vectors]
        present_IA = torch.stack([torch.ones_like(there[0]), *there], 1).float()
        self.present_IA = None if bool(present_IA[1:].all()) else present_IA
        self.lift = nn.ModuleList(nn.Linear(v.shape[1], config.width) for v in self.vectors)
        self.blend = nn.Parameter(torch.zeros(())) if config.view == "joint" else None
        self.joint = self._joined(torch.arange(len(self.user_E))) if config.view == "joint" else None
        self.drawn_joint = self.joint
        self.mixture = RoleMixture(config)
        self.made: tuple[Tensor | None, Tensor | None, Tensor] | None = None

    def _content(self, name: str, tables: Mapping[str, np.ndarray]) -> Any:
        return None

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

    def _joined(self, kept_E: Tensor) -> Tensor:
        """Return the normalised graph of some interactions and of all content edges, weighted by gamma."""
        user_E, item_E = self.user_E[kept_E], self.item_E[kept_E] + self.num_users
        row, column, weight = self.content_edges
        ones_E = torch.ones(len(user_E), device=user_E.device)
        rows = torch.cat([user_E, item_E, row + self.num_users])
        columns = torch.cat([item_E, user_E, column + self.num_users])
        values = torch.cat([ones_E, ones_E, self.config.gamma * weight])
        return normalised(rows, columns, values, self.num_users + self.num_items + 1)

    def draw(self, seed: int) -> None:
        """Draw the interactions that the coming epoch propagates over, and profiles are made of."""
        if not self.config.edge_dropout:
            return
        generator = torch.Generator().manual_seed(seed)
        kept_E = drawn_edges(self.user_E, self.item_E, 1 - self.config.edge_dropout, generator)
        user_E, item_E, items = self.user_E[kept_E], self.item_E[kept_E], self.num_items + 1
        self.drawn = bipartite(user_E, item_E, self.num_users, items)
        self.drawn_profile = profiles(user_E, item_E, self.num_users, items)
        if self.joint is not None:
            self.drawn_joint = self._joined(kept_E)

    def views(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return nodes in the plain view, in the view with content edges, and fused, each (N, D)."""
        table_ND = torch.cat([self.user.weight, self.item.weight])
        dropped = self.training and self.drawn is not None
        graph = self.drawn if dropped else self.whole
        assert graph is not None
        plain_ND = mean_of_layers(graph, table_ND, self.config.layers)
        if self.blend is None:
            added_ID = plain_ND[self.num_users :] + product(self.similar, self.item.weight)
            content_ND = torch.cat([plain_ND[: self.num_users], added_ID])
            return plain_ND, content_ND, content_ND
        joint = self.drawn_joint if dropped else self.joint
        assert joint is not None
        content_ND = mean_of_layers(joint, table_ND, self.config.layers)
        beta = self.blend.sigmoid()
        return plain_ND, content_ND, (1 - beta) * plain_ND + beta * content_ND

    def stack(self, fused_ND: Tensor) -> Tensor:
        """Return all streams of all nodes, (N, A, D)."""
        parts = []
        for vector_IM, lift, graph in zip(self.vectors, self.lift, self.graphs, strict=True):
            own_ID = lift(vector_IM)
            if self.config.streams == "gate":
                parts.append(product(graph, self.item.weight * own_ID.sigmoid()))
            else:
                own_ID = 0.3 * unit(own_ID)
                parts.append((own_ID + product(graph, own_ID)) / 2)
        item_IX = torch.cat(parts, 1)
        matrix, transposed = self.drawn_profile if self.training else self.profile
        stream_NX = torch.cat([product(matrix, item_IX, transposed), item_IX])
        return torch.cat([fused_ND, stream_NX], 1).view(len(fused_ND), -1, self.config.width)

    def streams(self) -> Tensor:
        """Return all streams of all nodes in evaluation, (N, A, D), kept until training goes on."""
        if self.frozen is not None:
            return self.frozen
        if self.cached is None or self.training:
            self.cached = self.stack(self.views()[2])
        return self.cached

    def items(self) -> tuple[Tensor, Tensor]:
        """Return all items' streams, (I, A, D), and what the experts make of them, (E, I, D)."""
        stack_IAD = self.streams()[self.num_users :]
        if self.made is None or self.made[0] is not self.frozen or self.made[1] is not self.cached:
            self.made = self.frozen, self.cached, self.mixture.experts.of_nodes(stack_IAD, self.present_IA)
        return stack_IAD, self.made[2]

    def present(self, item_P: Tensor) -> Tensor | None:
        """Return which streams items have, (P, A); None where all have all."""
        return None if self.present_IA is None else self.present_IA[item_P]

    def forward(self, batch: InteractionBatch) -> Scored:  # type: ignore[override]
        """Return the scores of liked items and of one other item for each."""
        user_P, liked_P = batch.user_B[batch.target_row_P], batch.target_P
        other_P = self.unseen.draw(user_P)
        plain_ND, content_ND, fused_ND = self.views()
        stack_NAD = self.stack(fused_ND)
        item_Q = torch.cat([liked_P, other_P])
        user_QAD, item_QAD = stack_NAD[user_P].repeat(2, 1, 1), stack_NAD[self.num_users + item_Q]
        mixed: Mixed = self.mixture(user_QAD, item_QAD, self.present(item_Q))
        score_Q = mixed.y_ND[:, 0]
        if self.config.base_residual:
            score_Q = score_Q + (user_QAD[:, 0] * item_QAD[:, 0]).sum(1)
        squares = sum(table.square().sum() for table in (self.user(user_P), self.item(liked_P), self.item(other_P)))
        contrast = {}
        if self.config.contrast_weight:
            for name, ids in (("user", user_P), ("item", self.num_users + item_Q)):
                contrast[name] = self._contrast(plain_ND, content_ND, ids)
        positive_P, negative_P = score_Q.split(len(liked_P))
        return Scored(positive_P, negative_P, squares / 2, mixed, contrast, self.mixture.trigger.ramp)

    def _contrast(self, plain_ND: Tensor, content_ND: Tensor, ids: Tensor) -> tuple[Tensor, int]:
        """Return this worker's part of the contrast among the nodes of the global batch, and its number of nodes.

        Workers share the nodes out among them, so that the parts add up to the loss of the joined batch.
        """
        mixture, counting = self.mixture, int(self.mixture.counting)
        ids, _ = mixture.ranks.join(ids[: counting * len(ids)])
        sharing, place = mixture.ranks.join(torch.zeros(counting, device=ids.device))
        union = ids.unique()
        plain_XD, content_XD = unit(plain_ND[union]), unit(content_ND[union])
        own_Y = torch.arange(counting * len(union), device=union.device)[place :: max(1, len(sharing))]
        logit_YX = plain_XD[own_Y] @ content_XD.T / self.config.temperature
        return nn.functional.cross_entropy(logit_YX, own_Y, reduction="sum"), len(own_Y)

    def scores(self, user_BAD: Tensor, stack_IAD: Tensor, item_EID: Tensor) -> Tensor:
        """Return every user's score of every item by two products per expert, (B, I).

        `item_EID` is what the experts make of the items. The k best experts of each pair are kept while experts come
        one by one, so that a block of few users stays in cache.
        """
        config, mixture = self.config, self.mixture
        router, experts = mixture.router, mixture.experts
        user_EBD = experts.of_nodes(user_BAD)
        base_BI = user_BAD[:, 0] @ stack_IAD[:, 0].T * float(config.base_residual)
        if config.mixture == "off":
            return torch.bmm(user_EBD, item_EID.transpose(1, 2)).mean(0) + base_BI
        user_BX, item_IX = unit(user_BAD).flatten(1), unit(stack_IAD).flatten(1)
        best = [(torch.full_like(base_BI, -torch.inf), torch.zeros_like(base_BI)) for _ in range(config.per_pair)]
        for expert in range(mixture.num_experts):
            score_BI = user_EBD[expert] @ item_EID[expert].T
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
        return base_BI + total_BI / sum(weights)


def unit(x_ND: Tensor) -> Tensor:
    """Return vectors of length 1, and zeros where there is nothing."""
    return nn.functional.normalize(x_ND, dim=-1)
