"""What of HealthMoE's ranking rests on which modality, which expert and which picture.

Letters: B users, I items with padding as item 0, D widths of the projections of a side, K items of a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rec.data.images import SPOILED, swapped
from rec.evaluation.tasks.ranking.ranks import hide, of_ranks, ranked, ranks
from rec.nn.pairs import PairsBatch
from rec.seeds import generator
from rec.systems.capabilities import RankingExamples
from rec.systems.healthmoe.model import HealthMoEModel, ItemScoring

if TYPE_CHECKING:
    from rec.systems.healthmoe import HealthMoE

TOP, OVERLAP = 10, 5


class Analysis:
    """Tells, per user, what each modality and every expert is worth.

    without/NAME     ndcg@10 where a modality is missing for all
    reliance/NAME    how far scores move then, as a share of their own spread: 0 where it does not matter
    spoiled/NAME     ndcg@10 with spoiled pictures     overlap/NAME  share of the best 5 that stays
    expert share     mean share of each expert in the best 10
    """

    def __init__(self, system: HealthMoE, module: HealthMoEModel) -> None:
        self.system, self.module, self.plain = system, module, module.item_scoring(module.catalogue())
        items = [name for name in system.modalities if name.startswith("item ")]
        self.without = {name: module.item_scoring(module.catalogue([name])) for name in items}
        self.spoiled: dict[str, ItemScoring] = {}
        if "item image" in items:
            tables = system.static
            if "item_pixels" in tables:
                for name, spoil in SPOILED.items():
                    pixels = np.stack([spoil(np.asarray(one)) for one in tables["item_pixels"]])
                    self.spoiled[name] = module.item_scoring(module.catalogue(pixels=torch.from_numpy(pixels)))
            present_I = np.asarray(tables["item_present"])[:, 1]
            source_I = swapped(np.asarray(tables["item_class"]), present_I, generator(system.seed, "swapped"))
            swapped_ID = module.catalogue(source=torch.from_numpy(source_I))
            self.spoiled["another item of the class"] = module.item_scoring(swapped_ID)

    def __call__(self, batch: PairsBatch) -> dict[str, Tensor]:
        """Return one value per user and name, (B,) or (B, E)."""
        system, module, hidden_BI = self.system, self.module, self.system.hidden(batch)
        examples = system.examples(batch)
        user_BD = module.states(batch, self.plain.item_ID)
        score_BI = module.scores_of(user_BD, self.plain)
        found: dict[str, Tensor] = {}
        for name in system.modalities:
            items = self.without.get(name, self.plain)
            left_out = [name] if name.startswith("user ") else []
            other_BI = module.scores_of(module.states(batch, items.item_ID, left_out), items)
            found[f"without/{name}"] = _ndcg(other_BI, examples)
            found[f"reliance/{name}"] = _moved(score_BI, other_BI, hidden_BI)
        top_B5 = _best(score_BI, hidden_BI, OVERLAP)
        for name, items in self.spoiled.items():
            other_BI = module.scores_of(module.states(batch, items.item_ID), items)
            found[f"spoiled/{name}"] = _ndcg(other_BI, examples)
            same_B55 = top_B5[:, :, None] == _best(other_BI, hidden_BI, OVERLAP)[:, None]
            found[f"overlap/{name}"] = same_B55.any(2).double().mean(1)
        if system.config.mixture.experts:
            top_BK = _best(score_BI, hidden_BI, min(TOP, module.num_items))
            found["expert share"] = system.gates(module, user_BD, self.plain.item_ID, top_BK).mean(1)
        return found


def _ndcg(score_BI: Tensor, examples: RankingExamples) -> Tensor:
    """Return each user's ndcg@10, float64 (B,)."""
    score_BI = hide(score_BI.clone(), examples.left_out, examples.target, examples.forbidden_BI)
    rank_P = ranks(score_BI, examples.target, examples.subject_B)
    ranked_B = ranked(score_BI)
    values = of_ranks(
        rank_P.numpy(force=True), examples.target[0].numpy(force=True), ranked_B.numpy(force=True), (TOP,)
    )
    return torch.from_numpy(values[f"ndcg@{TOP}"]).to(score_BI.device)


def _best(score_BI: Tensor, hidden_BI: Tensor, count: int) -> Tensor:
    return score_BI.masked_fill(hidden_BI, -torch.inf).topk(count, dim=1).indices


def _moved(score_BI: Tensor, other_BI: Tensor, hidden_BI: Tensor) -> Tensor:
    """Return the deviation over a user's items of what changed, relative to that of the scores, (B,)."""
    kept_BI = ~hidden_BI & score_BI.isfinite() & other_BI.isfinite()
    count_B1 = kept_BI.sum(1, keepdim=True).clamp(min=1)

    def deviation(value_BI: Tensor) -> Tensor:
        value_BI = torch.where(kept_BI, value_BI, 0).double()
        centred_BI = torch.where(kept_BI, value_BI - value_BI.sum(1, keepdim=True) / count_B1, 0)
        return (centred_BI.square().sum(1) / count_B1[:, 0]).sqrt()

    return deviation(other_BI - score_BI) / deviation(score_BI).clamp(min=1e-12)
