"""KAR's hybrid-expert adaptor: what is written of items and users, as vectors of the model's width.

Letters: N packed history rows, B users, U users or items with a text, X rows of both towers, I items with padding as
item 0, M width of the frozen vectors, D model width.

Source: Xi et al. 2023 (arXiv 2306.10933), section 3.3: a gate per tower, a softmax over experts that both towers share
and experts of its own, weighs two-layer networks. Where we depart: experts start by adding nothing, so that the model
starts without knowledge and a gain is the knowledge's; and a user's vector is added from the step on by which the user
has seen all items that its text names (`from_start` adds it at every step, where in training the text tells what is
to be predicted).
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from rec.moe.experts import FeedForwardExperts, without_output
from rec.moe.layer import Mixed, MixtureOfExperts
from rec.moe.routers import TowerRouter
from rec.nn.history import HistoryBatch
from rec.seeds import derive
from rec.strict import Needs, Strict, alike
from rec.terms import Term

ITEM, USER = "knowledge_item", "knowledge_user"
"""Tables of the frozen vectors of texts."""
TOLD = "knowledge_told"
"""Table of how many of a user's first items the text names."""
TABLES = {"none": (), "item": (ITEM,), "user": (USER, TOLD), "both": (ITEM, USER, TOLD)}
TOWERS = 2


class KnowledgeAdaptorConfig(Strict):
    """Keys of `[model.knowledge]`: what texts of items and users add to a sequential model (KAR)."""

    NEEDS: ClassVar[Needs] = {
        **alike(("shared", "specific", "hidden", "per_row"), {"towers": {"not": ["none"]}}),
        "from_start": {"towers": ["user", "both"]},
        "balance_weight": {"towers": {"not": ["none"]}, "per_row": {"not": [0]}},
    }

    towers: Literal["none", "item", "user", "both"] = "none"
    """Whose texts are read: an item's vector joins that of its id at the input, a user's the state at the output."""
    shared: int = Field(2, ge=0)
    """Experts that both towers pass ..."""
    specific: int = Field(5, ge=1)
    """... and of each tower alone."""
    hidden: int = Field(128, ge=1)
    """Hidden width of an expert."""
    per_row: int = Field(0, ge=0)
    """Experts of each text; 0 takes all, as published."""
    balance_weight: float = Field(0.0, ge=0)
    """Weight of the balance of experts in the loss, each tower's judged by itself."""
    from_start: bool = False
    """Adds a user's vector at every step, though in training its text then names items that are to be predicted."""


class AdaptedVectors(NamedTuple):
    """What the adaptor gives for a batch."""

    item_ND: Tensor | None
    """Joins the vectors of ids."""
    user_ND: Tensor | None
    """Joins the states."""
    mixed: Mixed
    tower_X: Tensor


class KnowledgeAdaptor(nn.Module):
    """The adaptor and the frozen vectors that it reads."""

    def __init__(
        self, config: KnowledgeAdaptorConfig, width: int, tables: dict[str, Tensor], *, max_length: int, seed: int
    ) -> None:
        super().__init__()
        self.config, self.max_length = config, max_length
        for name in (ITEM, USER, TOLD):
            self.register_buffer(name, tables.get(name), persistent=False)
        size = next(table.shape[1] for name, table in tables.items() if name != TOLD)
        own, count = config.shared + config.specific, config.shared + TOWERS * config.specific
        experts = FeedForwardExperts(size, config.hidden, count, out=width, seed=derive(seed, "knowledge"))
        experts.start(without_output)
        router = TowerRouter(size, TOWERS, config.shared, config.specific, config.per_row or own)
        self.layer = MixtureOfExperts(router, experts)
        # Rows are of items and users, so no row tells which experts an example of evaluation is sent to.
        self.layer.owner_N = torch.zeros(0, dtype=torch.int64)

    def forward(self, batch: HistoryBatch) -> AdaptedVectors:
        """Return what texts add to each row: one pass through the experts for both towers."""
        item_IM, user_UM = getattr(self, ITEM), getattr(self, USER)
        part, tower = [], []
        item_place_N = None
        if item_IM is not None and self.training:  # row by row, so that no count depends on how a step is cut
            part.append(item_IM[batch.item_N])
        elif item_IM is not None:  # an item's text is read once, however often the item comes
            item_U, item_place_N = batch.item_N.unique(return_inverse=True)
            part.append(item_IM[item_U])
        if user_UM is not None:
            part.append(user_UM[batch.user_B.clamp(min=0)] * (batch.user_B >= 0)[:, None])
        kinds = [kind for kind, table in enumerate((item_IM, user_UM)) if table is not None]
        for kind, rows in zip(kinds, part, strict=True):
            tower.append(torch.full((len(rows),), kind, device=rows.device))
        text_XM, tower_X = torch.cat(part), torch.cat(tower)
        mixed: Mixed = self.layer(text_XM.to(next(self.layer.experts.parameters()).dtype), tower_X)
        found = mixed.y_ND * (text_XM != 0).any(1, keepdim=True)
        each = dict(zip(kinds, found.split([len(rows) for rows in part]), strict=True))
        item_ND = each.get(0)
        if item_ND is not None and item_place_N is not None:
            item_ND = item_ND[item_place_N]
        user_ND = None if user_UM is None else each[1][batch.where.sequence_N] * self.seen_all(batch)[:, None]
        return AdaptedVectors(item_ND, user_ND, mixed, tower_X)

    def seen_all(self, batch: HistoryBatch) -> Tensor:
        """Return the rows by which a user has seen all items that the text names, (N,) bool; all where asked for."""
        if self.config.from_start:
            return torch.ones_like(batch.item_N, dtype=torch.bool)
        seen_B = torch.bincount(batch.seen_user_M, minlength=len(batch))
        # Positions are counted from the end; what a history had before them is no row.
        count_N = seen_B[batch.where.sequence_N] - (self.max_length - batch.position_N)
        told_B = getattr(self, TOLD)[batch.user_B.clamp(min=0)]
        return count_N >= told_B[batch.where.sequence_N]

    def terms(self, known: AdaptedVectors) -> dict[str, Term]:
        """Return the loss term that keeps each tower's experts in even use; its weight makes even use count 1."""
        config = self.config
        if not config.balance_weight:
            return {}
        weight = config.balance_weight * (config.shared + config.specific) / self.layer.num_experts
        return {"knowledge_balance": self.layer.gate_balance_term(known.mixed, known.tower_X, TOWERS, weight)}
