"""MAGNET: a recommender on two views of a graph, whose experts weigh behaviour, picture and text by role.

Our implementation of MAGNET as its abstract describes it (Dai, Fang, Cai 2026, arXiv 2602.20723): its equations are not
public. Every choice is a key or is told where it is made; no table of the paper is claimed to be reproduced.

Letters: B users, P pairs, I items with padding as item 0, A streams, E experts, K items of an answer, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rec.batch import Columns
from rec.evaluation.task import Measured
from rec.nn.modality import or_none
from rec.nn.pairs import InteractionBatch
from rec.sections import Section
from rec.systems import attribution
from rec.systems.api import Wanted
from rec.systems.capabilities import Explainer, Reporter, States
from rec.systems.lightgcn import GraphRecommender
from rec.systems.magnet.config import MagnetConfig
from rec.systems.magnet.model import MagnetModel, MagnetScores
from rec.terms import Term


class Magnet(
    GraphRecommender[MagnetModel],
    Explainer[InteractionBatch, MagnetModel],
    Reporter[InteractionBatch, MagnetModel],
):
    """Recommender on a graph of users and items with experts of modalities and roles."""

    Config = MagnetConfig
    config: MagnetConfig
    loss_terms: ClassVar[Mapping[str, str]] = {
        "bpr": "pairwise ranking of an item of the user above a drawn one",
        "embedding_l2": "squares of the vectors",
        "view_contrast_*": "contrast of two views of the same nodes",
        "coverage": "how unevenly experts are used, 1 is even",
        "confidence": "entropy of the router's decisions, a share of the most",
        "router_z": "size of the router's scores",
    }

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        names = list(dict.fromkeys((*config.content, *config.modalities)))
        graphs = [f"graph_{name}_{part}" for name in names for part in ("edge", "weight")]
        return (*cls.edge_names(config), *graphs, *(f"feature_{n}" for n in config.modalities))

    @classmethod
    def wanted_by(cls, config: Any, table: str) -> Wanted | None:
        """Return which key asks for a table: modalities for vectors and graphs, content for graphs beside them."""
        kind, _, rest = table.partition("_")
        if kind not in ("feature", "graph"):
            return None
        name = rest if kind == "feature" else rest.rpartition("_")[0]
        keys = ["model.modalities"] * (name in config.modalities)
        keys += ["model.content"] * (kind == "graph" and name in config.content)
        return Wanted(" and ".join(keys))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the streams."""
        return self.config.streams_of

    def model(self) -> MagnetModel:
        """Return a freshly initialised model."""
        module = MagnetModel(self.config, self.static)
        self.left_out = set(module.unseen.full_F.tolist())
        return module

    def loss(self, model: Callable[[InteractionBatch], Any], batch: InteractionBatch) -> dict[str, Term]:
        """Return the ranking loss, the contrast of views, and the routing terms of the present regime."""
        scored: MagnetScores = model(batch)
        config, mixed, pairs = self.config, scored.mixed, len(scored.positive_P)
        bpr_P = -nn.functional.logsigmoid(scored.positive_P - scored.negative_P)
        terms = {"bpr": Term(bpr_P.sum(), pairs)}
        if config.regularisation:
            terms["embedding_l2"] = Term(scored.squares, pairs, config.regularisation)
        for name, (total, count) in scored.contrast.items():
            terms[f"view_contrast_{name}"] = Term(total, count, config.contrast_weight)
        if config.mixture != "on" or not config.routing_terms:
            return terms
        # The ramp is 0 in the regime of coverage; the same on every rank.
        entropy = mixed.entropy_term(
            config.confidence_weight * scored.ramp / math.log(mixed.routing.probability_NE.shape[1])
        )
        terms["coverage"] = mixed.balance_term(config.coverage_weight * (1 - 0.9 * scored.ramp))
        terms["confidence"] = entropy
        if config.z_weight:
            terms["router_z"] = mixed.z_term(config.z_weight)
        return terms

    def within_batch(self) -> tuple[str, ...]:
        """Return the contrast of views, among the nodes of a batch."""
        return ("view_contrast_user", "view_contrast_item") if self.config.contrast_weight else ()

    def states(self, module: MagnetModel, batch: InteractionBatch) -> dict[str, Tensor]:
        """Return users' streams; of users who are not known, the mean of the items they come with."""
        stack_NAD = module.streams()
        state_BX = self.known_or_mean(stack_NAD.flatten(1), module.num_users, batch)
        return {"state_BAD": state_BX.view(len(batch), *stack_NAD.shape[1:])}

    def scores(self, module: MagnetModel, states: States, items: slice) -> Tensor:
        """Return users' scores of a range of items, float32 (B, W)."""
        return module.scores(states["state_BAD"], items).float()

    def item_vectors(self, module: MagnetModel) -> Tensor:
        """Return the items' behaviour streams: what proposes candidates, which the mixture then scores."""
        return module.streams()[module.num_users :, 0]

    def queries(self, module: MagnetModel, states: States) -> Tensor:
        """Return users' behaviour streams."""
        return states["state_BAD"][:, 0]

    def candidate_scores(self, module: MagnetModel, states: States, item_BC: Tensor) -> Tensor:
        """Return the full scores of some items for each user, (B, C)."""
        user_PAD = states["state_BAD"].repeat_interleave(item_BC.shape[1], 0)
        return module.pair_scores(user_PAD, item_BC.flatten()).view(item_BC.shape)

    def details(self, module: MagnetModel, states: States, example: int, items: Sequence[int]) -> dict[str, Any]:
        """Return each expert's share in the items' scores and, from it, how far each stream is relied on."""
        user_BAD = states["state_BAD"]
        item_K = torch.tensor(items, device=user_BAD.device)
        share_KE, reliance_KA = self.reliance(module, user_BAD[example].expand(len(item_K), -1, -1), item_K)
        return {"experts": share_KE.tolist(), "modalities": _told(module, reliance_KA, item_K)}

    def reliance(self, module: MagnetModel, user_PAD: Tensor, item_P: Tensor) -> tuple[Tensor, Tensor]:
        """Return experts' shares in pairs, (P, E), and the streams' shares that follow by their templates, (P, A)."""
        share_PE = module.mixture.shares(user_PAD, module.items().stack_IAD[item_P])
        experts, present_PA = module.mixture.experts, module.present(item_P)
        share_EA = experts.shares_EA if present_PA is None else experts.shares_of(present_PA)
        return share_PE, torch.matmul(share_PE[:, None], share_EA)[:, 0]

    def explain(self, module: MagnetModel, batch: InteractionBatch, items: Sequence[int]) -> list[dict[str, Any]]:
        """Return each user's score of an item as the base score and what each expert adds, and what experts changed.

        `rank` is the item's among all that the user has not in training, `base_rank` the one by the base score alone.
        """
        item_B, rows_B = torch.tensor(items), torch.arange(len(items))
        user_BAD, stack_IAD = self.states(module, batch)["state_BAD"], module.items().stack_IAD
        share_BE, reliance_BA = self.reliance(module, user_BAD, item_B)
        score_BE = module.mixture.experts.of_pairs(user_BAD, stack_IAD[item_B], module.present(item_B))
        base_BI = user_BAD[:, 0] @ stack_IAD[:, 0].T
        base_B = base_BI[rows_B, item_B] * float(self.config.base_residual)
        part_BP = torch.cat([base_B[:, None], self.config.mixture_weight * share_BE * score_BE], 1)
        ranks = []
        for score_BI in (module.scores(user_BAD).float(), base_BI):
            own_B = score_BI[rows_B, item_B]
            score_BI[:, 0] = -torch.inf
            score_BI[batch.history_row_M, batch.history_M] = -torch.inf
            ranks.append((1 + (score_BI > own_B[:, None]).sum(1)).tolist())
        names = ["base", *self.config.experts()]
        told = zip(part_BP.tolist(), share_BE.tolist(), _told(module, reliance_BA, item_B), *ranks, strict=True)
        return [
            {
                "score": sum(p),
                "parts": p,
                "names": names,
                "experts": e,
                "modalities": m,
                "rank": rank,
                "base_rank": base,
            }
            for p, e, m, rank, base in told
        ]

    def analyser(self, module: MagnetModel) -> Callable[[InteractionBatch], dict[str, Tensor]]:
        """Return a function that tells, per user, experts' shares and reliance on streams in the items to be found."""

        def tell(batch: InteractionBatch) -> dict[str, Tensor]:
            user_PAD = self.states(module, batch)["state_BAD"][batch.target_row_P]
            means = []
            for value_PX in self.reliance(module, user_PAD, batch.target_P):
                total_BX = value_PX.new_zeros(len(batch), value_PX.shape[1])
                count_B = torch.bincount(batch.target_row_P, minlength=len(batch)).clamp(min=1)
                means.append(total_BX.index_add(0, batch.target_row_P, value_PX) / count_B[:, None])
            told = {f"reliance/{name}": means[1][:, place] for place, name in enumerate(self.modalities)}
            return told | {"expert share": means[0]}

        return tell

    def sections(self, measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
        """Return what groups of users rely on, and which experts serve them."""
        return attribution.reliance_sections(
            measured, "share of each expert in the items to be found", experts=self.config.experts()
        )

    def catalogue(self, module: MagnetModel) -> dict[str, Tensor]:
        """Return the streams of all nodes."""
        return {"stream_NAD": module.streams()}

    def freeze(self, module: MagnetModel, catalogue: Mapping[str, Tensor]) -> None:
        """Let the module answer from a catalogue that was computed before."""
        module.frozen = catalogue["stream_NAD"]

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        columns, tables = super().sample(rows, rng)
        items = len(tables["item_count"]) - 1
        near = np.stack([np.repeat(np.arange(1, items + 1), 3), rng.integers(1, items + 1, 3 * items)], 1)
        image = rng.standard_normal((items + 1, 4)).astype(np.float32)
        image[3:6] = 0
        more = {"graph_image_edge": near.astype(np.int32), "graph_image_weight": np.ones(len(near), np.float32)}
        return columns, tables | more | {"feature_image": image}


def _told(module: MagnetModel, reliance_PA: Tensor, item_P: Tensor) -> list[list[float | None]]:
    """Return how far streams are relied on, None for those that an item does not have."""
    present_PA = module.present(item_P)
    each = [None] * len(item_P) if present_PA is None else list(present_PA > 0)
    return [or_none(shares, there) for shares, there in zip(reliance_PA.tolist(), each, strict=True)]
