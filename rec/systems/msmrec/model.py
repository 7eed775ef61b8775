"""MSMRec's model: see rec.systems.msmrec.

Letters: B users, N packed history rows, I items with padding as item 0, K modalities, D width, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rec.moe import routing
from rec.moe.layer import Mixed
from rec.moe.routing import Routing
from rec.moe.step import StepCounts
from rec.nn.agreement import Agreement
from rec.nn.dropout import Dropout
from rec.nn.history import HistoryBatch
from rec.nn.modality import Compatibility, Projector, present_only
from rec.nn.packed import Layout, causal_mean, sequence_scores
from rec.nn.sequence import SequenceEncoder
from rec.nn.sharded import ShardedEmbedding
from rec.seeds import derive
from rec.systems.msmrec.config import MSMRecConfig
from rec.systems.msmrec.knowledge import AdaptedVectors, KnowledgeAdaptor

ALL = slice(None)
FEW_ITEMS = 1 << 17
"""Items up to which sampled losses, too, compute the vectors of all in every step."""
LEAST_WEIGHT = 1e-30
"""Weights below it are taken for it, so that an item that has nothing else has a weight to share out."""
ITEMS_AT_ONCE = 1 << 16
"""Items whose vectors are computed at once where those of all are asked for."""


class CatalogueVectors(NamedTuple):
    """The items' vectors."""

    item_ID: Tensor
    """At the output, the mean of modalities included where `output_mix` is "mean"."""
    modality_IKD: Tensor | None


@dataclass(frozen=True, slots=True)
class EncodedHistories:
    """What one pass over histories gives."""

    state_ND: Tensor
    user_ND: Tensor
    """What the gate knows of the user at each row."""
    item_ID: Tensor
    modality_IKD: Tensor | None
    routing: Routing | None
    """The gate at the input, N rows over K modalities."""
    mixed: list[Mixed]
    """What the encoder's mixture layers did."""
    item_U: Tensor | None = None
    """Which items `item_ID` and `modality_IKD` are of, rising, where they are not of all."""
    known: AdaptedVectors | None = None
    """What texts of items and users have added."""

    def places(self, item: Tensor) -> Tensor:
        """Return where items stand in `item_ID` and `modality_IKD`."""
        return item if self.item_U is None else torch.searchsorted(self.item_U, item)


def encoder_of(config: MSMRecConfig, seed: int) -> SequenceEncoder:
    """Return the encoder of histories that a config describes."""
    return SequenceEncoder(
        width=config.width,
        blocks=config.blocks,
        heads=config.heads,
        feedforward=config.feedforward or config.width,
        dropout=config.dropout,
        form=config.block,
        max_length=config.max_length,
        mixture=config.feedforward_mixture,
        checkpointing=config.checkpointing,
        seed=seed,
    )


class MSMRecModel(nn.Module):
    """Item table, positions, gate and encoder."""

    def __init__(
        self,
        config: MSMRecConfig,
        num_items: int,
        vectors_IKM: Tensor | None,
        seed: int = 0,
        knowledge: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.frozen: CatalogueVectors | None = None
        width = config.width
        self.num_items = num_items
        self.position = nn.Embedding(config.max_length + 1, width, padding_idx=0)
        self.item: nn.Embedding | ShardedEmbedding
        tables = [self.position]
        if config.item_table == "sharded":
            self.item = ShardedEmbedding(num_items + 1, width, seed=derive(seed, "items"), rate=config.table_rate)
        else:
            self.item = nn.Embedding(num_items + 1, width, padding_idx=0)
            tables = [self.item, self.position]
        for table in tables:
            nn.init.normal_(table.weight, std=0.02)
            with torch.no_grad():
                table.weight[0] = 0
        self.encoder = encoder_of(config, seed)
        self.dropout, self.whole = Dropout(config.dropout), StepCounts()
        self.present_IK: Tensor | None
        """Which texts items have; None where all have all."""
        self.register_buffer("present_IK", None, persistent=False)
        if vectors_IKM is not None:
            modalities = vectors_IKM.shape[1]
            there_IK = (vectors_IKM != 0).any(2)
            self.present_IK = None if bool(there_IK[1:].all()) else there_IK
            self.projector = Projector(
                vectors_IKM, width=width, hidden=config.projector_hidden, shared=config.projector_shared
            )
            self.compatibility = Compatibility(config.fusion, width, modalities)
            if config.gate in ("user", "published"):
                self.modality = nn.Parameter(torch.randn(modalities, width) * 0.02)
            if config.gate == "agreement":
                self.agreement = Agreement(vectors_IKM, config.gate_window, seed)
            if config.gate == "random":
                self.random_KD: Tensor
                self.register_buffer("random_KD", torch.randn(modalities, width))
        self.knowledge: KnowledgeAdaptor | None = None
        if knowledge:  # last, so that with a seed the other weights start as without it
            self.knowledge = KnowledgeAdaptor(
                config.knowledge, width, dict(knowledge), max_length=config.max_length, seed=seed
            )

    @property
    def picks(self) -> bool:
        """Whether a pass computes the vectors of the items that it needs alone."""
        return self.config.item_table == "sharded" or (self.config.loss != "ce" and self.num_items > FEW_ITEMS)

    def catalogue(self) -> CatalogueVectors:
        """Return the items' vectors, which depend on the weights alone.

        Where passes pick items, those of single texts are computed when they are asked for and are no part of it.
        """
        if not self.picks:
            return self.with_texts(self.item.weight, ALL)
        starts = range(0, self.num_items + 1, ITEMS_AT_ONCE)
        return CatalogueVectors(torch.cat([self.part(slice(s, s + ITEMS_AT_ONCE)).item_ID for s in starts]), None)

    def part(self, items: slice) -> CatalogueVectors:
        """Return the vectors of a range of items, those of texts where scores need them."""
        if not self.picks:
            item_ID, modality_IKD = self.frozen or self.catalogue()
            return CatalogueVectors(item_ID[items], None if modality_IKD is None else modality_IKD[items])
        if self.frozen is not None and self.config.output_mix != "gate":
            return CatalogueVectors(self.frozen.item_ID[items], None)
        start, end, _ = items.indices(self.num_items + 1)
        items = slice(start, end)
        rows = self.item.range(items) if isinstance(self.item, ShardedEmbedding) else self.item.weight[items]
        return self.with_texts(rows.to(self.position.weight.dtype), items)

    def picked(self, item_U: Tensor) -> tuple[Tensor, CatalogueVectors]:
        """Return the vectors of some items' ids, which rise, and their vectors with those of texts."""
        id_UD = self.item.vectors(item_U) if isinstance(self.item, ShardedEmbedding) else self.item(item_U)
        id_UD = id_UD.to(self.position.weight.dtype)
        return id_UD, self.with_texts(id_UD, item_U)

    def with_texts(self, item_ID: Tensor, items: slice | Tensor) -> CatalogueVectors:
        """Return the vectors of items from those of their ids."""
        if self.config.gate == "none":
            return CatalogueVectors(item_ID, None)
        if isinstance(items, slice):
            number_I = torch.arange(*items.indices(self.num_items + 1), device=item_ID.device)
        else:
            number_I = items
        modality_IKD = self.projector(items) * (number_I > 0)[:, None, None]
        present_IK = self.present(items)
        if present_IK is not None:
            modality_IKD = modality_IKD * present_IK[..., None]
        if self.config.output_mix == "mean":
            item_ID = item_ID + self.mean_of(modality_IKD, present_IK)
        return CatalogueVectors(item_ID, modality_IKD)

    def mean_of(self, modality_IKD: Tensor, present_IK: Tensor | None) -> Tensor:
        """Return the mean over the texts that each item has, (I, D)."""
        if present_IK is None:
            return modality_IKD.mean(1)
        return modality_IKD.sum(1) / present_IK.sum(1, keepdim=True).clamp(min=1)

    def present(self, index: Tensor | slice) -> Tensor | None:
        """Return which texts some items have, (..., K); None where all have all."""
        return None if self.present_IK is None else self.present_IK[index]

    def forward(self, batch: HistoryBatch) -> EncodedHistories:
        """Return states and gate for every row of the batch."""
        config, where = self.config, batch.where
        place_N, item_U = batch.item_N, None
        if self.picks:
            further = () if batch.wanted_X is None else (batch.wanted_X,)
            item_U, place = torch.cat([batch.item_N, *further]).unique(return_inverse=True)
            id_UD, (item_ID, modality_IKD) = self.picked(item_U)
            place_N = place[: len(batch.item_N)]
            id_ND = nn.functional.embedding(place_N, id_UD)
        else:
            id_ND = self.item(batch.item_N)
            item_ID, modality_IKD = self.frozen or self.catalogue()
        known = None if self.knowledge is None else self.knowledge(batch)
        input_ND = id_ND if known is None or known.item_ND is None else id_ND + known.item_ND
        x_ND = input_ND * config.width**0.5 + self.position(batch.position_N)
        if modality_IKD is None:
            state_ND, mixed = self.encoder(self.dropout(x_ND), where)
            return EncodedHistories(_joined(state_ND, known), id_ND, item_ID, None, None, mixed, item_U, known)
        user_ND = self._user(batch.item_N, id_ND, x_ND, where)
        modality_NKD = modality_IKD[place_N]
        chosen = self.route(user_ND, modality_NKD, self.present(batch.item_N))
        x_ND = self.dropout(x_ND)
        if config.input_mix:
            mix_ND = torch.einsum("nk,nkd->nd", chosen.dense().to(x_ND.dtype), modality_NKD)
            x_ND = x_ND + mix_ND * (config.mix_scale or config.width**0.5)
        state_ND, mixed = self.encoder(x_ND, where)
        return EncodedHistories(_joined(state_ND, known), user_ND, item_ID, modality_IKD, chosen, mixed, item_U, known)

    def _user(self, item_N: Tensor, id_ND: Tensor, x_ND: Tensor, where: Layout) -> Tensor:
        """Return what the gate knows of the user at each row."""
        if self.config.gate == "agreement":
            return self._past(self.agreement.known(self.projector.vectors_IKM, item_N, where), where)
        if self.config.gate == "published":
            # Mean over max_length positions, empty ones included, of the scaled ids with positions.
            total_BD = torch.zeros(len(where.length_B), x_ND.shape[1], dtype=x_ND.dtype, device=x_ND.device)
            total_BD = total_BD.index_add(0, where.sequence_N, x_ND) / self.config.max_length
            return total_BD[where.sequence_N]
        return self._past(causal_mean(id_ND, where), where)

    def _past(self, user_ND: Tensor, where: Layout) -> Tensor:
        """Return what was known before each row's own item, where the gate is to be strict."""
        return torch.roll(user_ND, 1, 0) * (where.position_N > 0)[:, None] if self.config.strict_gate else user_ND

    def gate_scores(self, user_ND: Tensor, modality_NKD: Tensor) -> Tensor:
        """Return the gate's scores before the softmax, (N, K)."""
        kind = self.config.gate
        if kind == "mean":
            return torch.zeros(modality_NKD.shape[:2], device=user_ND.device)
        if kind == "item":
            return self.compatibility(user_ND, modality_NKD)
        if kind == "agreement":
            return self.agreement(user_ND)
        if kind == "random":  # scores of variance 1 over directions, whatever a user's length
            return nn.functional.normalize(user_ND.float(), dim=1) @ self.random_KD.float().T
        return user_ND @ self.modality.T

    def route(self, user_ND: Tensor, modality_NKD: Tensor, present_NK: Tensor | None) -> Routing:
        """Return the modalities that each row uses: of those that its item has, where it has any."""
        score_NK = present_only(self.gate_scores(user_ND, modality_NKD), present_NK)
        return self.cut(routing.softmax(score_NK, self.config.temperature))

    def cut(self, probability_NK: Tensor) -> Routing:
        """Return the routing for given probabilities, with top-k as configured."""
        if self.config.top_share:
            return routing.keep_share(probability_NK, self.config.top_share)
        if self.config.top_k and self.config.top_k < probability_NK.shape[1]:
            return routing.keep_top_k(probability_NK, self.config.top_k)
        return routing.keep_all(probability_NK)

    @property
    def of_users(self) -> bool:
        """Whether a user's weights are those of all items, but that what an item lacks goes to what it has."""
        cuts = self.present_IK is not None and (self.config.top_k or self.config.top_share)
        return self.config.gate != "item" and not cuts

    @property
    def gated_out(self) -> bool:
        """Whether the gate weighs texts in scores."""
        return self.config.output_mix == "gate" and self.config.gate != "none"

    @property
    def has_products(self) -> bool:
        """Whether scores are inner products: of texts too, where a user's weights are the same for all items."""
        return not self.gated_out or (self.of_users and self.present_IK is None)

    def queries(self, state_ND: Tensor, user_ND: Tensor) -> Tensor:
        """Return what items are multiplied by, (N, D) or (N, (1 + K) D), where scores are products with `vectors`."""
        if not self.gated_out:
            return state_ND
        weight_NK = self.cut(self._probability(user_ND)).dense()
        return torch.cat([state_ND, _weighed(state_ND, weight_NK)], 1)

    def vectors(self, encoded: EncodedHistories | CatalogueVectors) -> Tensor:
        """Return the items' vectors, (I, D) or (I, (1 + K) D), where scores are products with them."""
        if not self.gated_out:
            return encoded.item_ID
        assert encoded.modality_IKD is not None, "an index is refused where texts' vectors are not kept"
        return torch.cat([encoded.item_ID, encoded.modality_IKD.flatten(1)], 1)

    def _probability(self, user_ND: Tensor) -> Tensor:
        """Return the weights of a gate that looks at users alone, before what items lack and top-k, (N, K)."""
        modalities = self.projector.vectors_IKM.shape[1]
        score_NK = self.gate_scores(user_ND, user_ND.new_zeros(len(user_ND), modalities, 1))
        return routing.softmax(score_NK, self.config.temperature)

    def _of_texts(self, state_ND: Tensor, user_ND: Tensor, modality_IKD: Tensor, present_IK: Tensor | None) -> Tensor:
        """Return the texts' part of scores where an item's weights are a user's, over those of what it has, (N, I).

        Two products: absent texts are zeros, so that the first leaves them out, and the second is what is left.
        """
        probability_NK = self._probability(user_ND)
        if present_IK is None:
            return _weighed(state_ND, self.cut(probability_NK).dense()) @ modality_IKD.flatten(1).T
        weight_NK = probability_NK.clamp(min=LEAST_WEIGHT)
        left_NI = weight_NK @ present_IK.to(weight_NK.dtype).T
        left_NI = torch.where(left_NI > 0, left_NI, 1.0)  # of items without any
        return (_weighed(state_ND, weight_NK) @ modality_IKD.flatten(1).T) / left_NI.to(state_ND.dtype)

    def scores(
        self,
        state_ND: Tensor,
        user_ND: Tensor,
        encoded: EncodedHistories | CatalogueVectors,
        items: slice | Tensor = ALL,
    ) -> Tensor:
        """Return every row's score of every item of `encoded`, (N, I); no item vector per user is made.

        `items` tells which items these are.
        """
        score_NI = state_ND @ encoded.item_ID.T
        modality_IKD = encoded.modality_IKD
        if self.config.output_mix != "gate" or modality_IKD is None:
            return score_NI
        present_IK = self.present(items)
        if self.of_users:
            return score_NI + self._of_texts(state_ND, user_ND, modality_IKD, present_IK)
        count, modalities, _ = modality_IKD.shape
        flat = modality_IKD.reshape(count * modalities, -1)
        weight_NIK = self._weights(user_ND, flat, (len(state_ND), count, modalities), matmul, present_IK)
        return score_NI + (weight_NIK * (state_ND @ flat.T).view(weight_NIK.shape)).sum(-1)

    def pair_scores(self, item_N: Tensor, encoded: EncodedHistories) -> Tensor:
        """Return each row's score of one item of its own, (N,)."""
        place_N = encoded.places(item_N)
        score_N = (encoded.state_ND * encoded.item_ID[place_N]).sum(-1)
        if self.config.output_mix != "gate" or encoded.modality_IKD is None:
            return score_N
        modality_NKD = encoded.modality_IKD[place_N]
        weight_NK = self.route(encoded.user_ND, modality_NKD, self.present(item_N)).dense()
        return score_N + (weight_NK * torch.einsum("nd,nkd->nk", encoded.state_ND, modality_NKD)).sum(-1)

    def candidate_scores(self, item_BC: Tensor, encoded: EncodedHistories, where: Layout) -> Tensor:
        """Return each row's scores of candidates that the rows of a user share, (N, C)."""
        place_BC = encoded.places(item_BC)
        score_NC = sequence_scores(encoded.state_ND, encoded.item_ID[place_BC], where)
        if self.config.output_mix != "gate" or encoded.modality_IKD is None:
            return score_NC
        users, count = item_BC.shape
        flat = encoded.modality_IKD[place_BC].reshape(users, -1, encoded.state_ND.shape[1])
        shape = (*score_NC.shape, flat.shape[1] // count)
        present_BCK = self.present(item_BC)
        present_NCK = None if present_BCK is None else present_BCK[where.sequence_N]
        weight_NCK = self._weights(encoded.user_ND, flat, shape, lambda x, y: sequence_scores(x, y, where), present_NCK)
        return score_NC + (weight_NCK * sequence_scores(encoded.state_ND, flat, where).view(shape)).sum(-1)

    def _weights(
        self,
        user_ND: Tensor,
        flat: Tensor,
        shape: tuple[int, ...],
        product: Callable[[Tensor, Tensor], Tensor],
        present: Tensor | None,
    ) -> Tensor:
        """Return the gate's weights for many items per row, `shape` = (N, items, K)."""
        if self.config.gate == "item":
            score = product(self.compatibility.user(user_ND), flat).view(shape)
            score = score if self.config.fusion == "inner" else score + self.compatibility.bias_K
        else:
            score = self.gate_scores(user_ND, user_ND.new_zeros(shape[0], shape[2], 1))[:, None].expand(shape)
        probability = routing.softmax(present_only(score, present), self.config.temperature)
        return self.cut(probability.reshape(-1, shape[2])).dense().view(shape)


def _weighed(state_ND: Tensor, weight_NK: Tensor) -> Tensor:
    """Return states weighed for each text, (N, K D)."""
    return (weight_NK[..., None].to(state_ND.dtype) * state_ND[:, None]).flatten(1)


def _joined(state_ND: Tensor, known: AdaptedVectors | None) -> Tensor:
    return state_ND if known is None or known.user_ND is None else state_ND + known.user_ND


def matmul(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    """Return all inner products, (N, M)."""
    return x_ND @ y_MD.T
