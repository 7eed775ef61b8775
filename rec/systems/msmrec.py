"""MSMRec: SASRec whose items carry K text vectors, mixed by a gate that knows the user.

Letters: B users, N packed history rows, I items with padding as item 0, K modalities, D width, C candidates.
Source: the paper's equations 3 to 6; what we build where paper and published code differ is decided in the
specification's sections 2.3 and 6. With `gate = "none"` the system is SASRec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from rec.errors import ConfigError
from rec.keys import Spaces, Strict
from rec.meters import Mean, Meter, Rows
from rec.metrics.ranking import full_ranks, metric_names, of_ranks
from rec.moe import routing
from rec.moe.balance import assignments, balance, decision_entropy
from rec.moe.config import MixtureConfig
from rec.moe.layer import Mixed
from rec.moe.routing import Routing
from rec.nn import losses
from rec.nn.dropout import Dropout
from rec.nn.history import COLUMNS, HistoryBatch, collate, sample_histories
from rec.nn.modality import Compatibility, Fusion, Projector, Texts, choose_vectors, gate_per_user
from rec.nn.negatives import unseen
from rec.nn.packed import Layout, causal_mean, sequence_scores
from rec.nn.sequence import BlockForm, SequenceEncoder
from rec.seeds import derive
from rec.system import Columns, System, Term

TOP = 10


class MSMRecConfig(Strict):
    """Keys of `[model]`."""

    SPACES: ClassVar[Spaces] = {
        "gate": {
            "gate": {"choice": ["item", "user", "mean"]},
            "temperature": {"log": [0.05, 2.0], "when": {"gate": {"not": ["mean"]}}},
            "entropy_weight": {"uniform": [-0.01, 0.01], "when": {"gate": {"not": ["mean"]}}},
            "balance_weight": {"log": [1e-4, 1e-1], "when": {"gate": {"not": ["mean"]}}},
            "top_k": {"choice": [0, 1, 2], "when": {"gate": {"not": ["mean"]}}},
        },
        "model": {
            "width": {"choice": [32, 64, 128]},
            "blocks": {"int": [1, 3]},
            "dropout": {"uniform": [0.0, 0.5]},
        },
    }

    width: int = Field(64, ge=1)
    blocks: int = Field(2, ge=1)
    heads: int = Field(1, ge=1)
    feedforward: int = Field(0, ge=0)
    """Hidden width inside a block; 0 takes `width`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    max_length: int = Field(200, ge=1)
    """Most recent items of a history that the encoder sees."""
    block: BlockForm = "pre_norm"
    attend_padding: bool = False
    """Pads histories and lets padding take part in attention; only for checkpoints that were trained so."""
    loss: Literal["ce", "ss", "gbce", "bce"] = "ce"
    """Full cross-entropy, sampled softmax, generalised or plain binary cross-entropy."""
    negatives: int = Field(256, ge=1)
    """Unseen items per user that ss and gbce share over the user's steps; bce draws one per step."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of gBCE."""
    gate: Literal["item", "user", "published", "mean", "none"] = "item"
    """What weighs modalities: user against the item's texts (paper), user alone (causal), user alone as the published
    code computes it (one weight per history, later items included), equal weights, or no texts at all (SASRec)."""
    fusion: Fusion = "inner"
    """How the item gate compares user and text."""
    texts: Texts = "encoded"
    """The items' own texts or one of the controls."""
    projector_hidden: tuple[int, ...] = ()
    projector_shared: bool = True
    """One projector for all modalities, or one each."""
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0)
    """Modalities kept per row; 0 keeps all."""
    top_share: float = Field(0.0, ge=0, le=1)
    """Dynamic top-k: keeps the fewest modalities that reach this share; 0 is off."""
    strict_gate: bool = False
    """The gate at a step sees the items before it only, not the step's own."""
    input_mix: bool = True
    """Adds the mix to the encoder's input."""
    mix_scale: float = Field(0.0, ge=0)
    """Factor of the mix at the input; 0 takes the square root of the width, as ids have."""
    output_mix: Literal["none", "mean", "gate"] = "mean"
    """What is added to an item's vector in the score: nothing, its modalities' mean, or the gate's mix (equation 6)."""
    entropy_weight: float = 0.0
    """Weight of the gate's entropy in the loss; positive sharpens the gate."""
    balance_weight: float = Field(0.0, ge=0)
    """Weight of the balance of modalities in the loss."""
    feedforward_mixture: MixtureConfig = MixtureConfig()
    """Experts in the place of each block's feed-forward."""
    mask_seen: Literal["all", "input", "none"] = "all"
    """Which seen items evaluation leaves out: all, those of the encoder's input (as published), or none."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What one pass over histories gives."""

    state_ND: Tensor
    user_ND: Tensor
    """What the gate knows of the user at each row."""
    item_ID: Tensor
    """Items' vectors at the output, the mean of modalities included where `output_mix` is "mean"."""
    modality_IKD: Tensor | None
    routing: Routing | None
    """The gate at the input, N rows over K modalities."""
    mixed: list[Mixed]
    """What the encoder's mixture layers did."""


class Model(nn.Module):
    """Item table, positions, gate and encoder."""

    def __init__(self, config: MSMRecConfig, num_items: int, vectors_IKM: Tensor | None, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.item = nn.Embedding(num_items + 1, width, padding_idx=0)
        self.position = nn.Embedding(config.max_length + 1, width, padding_idx=0)
        for table in (self.item, self.position):
            nn.init.normal_(table.weight, std=0.02)
            with torch.no_grad():
                table.weight[0] = 0
        self.encoder = SequenceEncoder(
            width=width,
            blocks=config.blocks,
            heads=config.heads,
            feedforward=config.feedforward or width,
            dropout=config.dropout,
            form=config.block,
            mixture=config.feedforward_mixture,
            seed=seed,
        )
        self.dropout = Dropout(config.dropout)
        if vectors_IKM is not None:
            modalities = vectors_IKM.shape[1]
            self.projector = Projector(
                vectors_IKM, width=width, hidden=config.projector_hidden, shared=config.projector_shared
            )
            self.compatibility = Compatibility(config.fusion, width, modalities)
            if config.gate in ("user", "published"):
                self.modality = nn.Parameter(torch.randn(modalities, width) * 0.02)

    def forward(self, batch: HistoryBatch) -> Encoded:
        """Return states and gate for every row of the batch."""
        config, where = self.config, batch.where
        id_ND = self.item(batch.item_N)
        x_ND = id_ND * config.width**0.5 + self.position(batch.position_N)
        item_ID = self.item.weight
        if config.gate == "none":
            state_ND, mixed = self.encoder(self.dropout(x_ND), where)
            return Encoded(state_ND, id_ND, item_ID, None, None, mixed)
        modality_IKD = self.projector() * (torch.arange(len(item_ID), device=item_ID.device) > 0)[:, None, None]
        user_ND = self._user(id_ND, x_ND, where)
        modality_NKD = modality_IKD[batch.item_N]
        chosen = self.route(user_ND, modality_NKD)
        x_ND = self.dropout(x_ND)
        if config.input_mix:
            mix_ND = torch.einsum("nk,nkd->nd", chosen.dense().to(x_ND.dtype), modality_NKD)
            x_ND = x_ND + mix_ND * (config.mix_scale or config.width**0.5)
        if config.output_mix == "mean":
            item_ID = item_ID + modality_IKD.mean(1)
        state_ND, mixed = self.encoder(x_ND, where)
        return Encoded(state_ND, user_ND, item_ID, modality_IKD, chosen, mixed)

    def _user(self, id_ND: Tensor, x_ND: Tensor, where: Layout) -> Tensor:
        """Return what the gate knows of the user at each row."""
        if self.config.gate == "published":
            # Mean over max_length positions, empty ones included, of the scaled ids with positions.
            total_BD = torch.zeros(len(where.length_B), x_ND.shape[1], dtype=x_ND.dtype, device=x_ND.device)
            total_BD = total_BD.index_add(0, where.sequence_N, x_ND) / self.config.max_length
            return total_BD[where.sequence_N]
        user_ND = causal_mean(id_ND, where)
        if self.config.strict_gate:
            user_ND = torch.roll(user_ND, 1, 0) * (where.position_N > 0)[:, None]
        return user_ND

    def gate_scores(self, user_ND: Tensor, modality_NKD: Tensor) -> Tensor:
        """Return the gate's scores before the softmax, (N, K)."""
        kind = self.config.gate
        if kind == "mean":
            return torch.zeros(modality_NKD.shape[:2], device=user_ND.device)
        if kind == "item":
            return self.compatibility(user_ND, modality_NKD)
        return user_ND @ self.modality.T

    def route(self, user_ND: Tensor, modality_NKD: Tensor) -> Routing:
        """Return the modalities that each row uses."""
        return self.cut(routing.softmax(self.gate_scores(user_ND, modality_NKD), self.config.temperature))

    def cut(self, probability_NK: Tensor) -> Routing:
        """Return the routing for given probabilities, with top-k as configured."""
        if self.config.top_share:
            return routing.keep_share(probability_NK, self.config.top_share)
        if self.config.top_k and self.config.top_k < probability_NK.shape[1]:
            return routing.keep_top_k(probability_NK, self.config.top_k)
        return routing.keep_all(probability_NK)

    def scores(self, state_ND: Tensor, user_ND: Tensor, encoded: Encoded) -> Tensor:
        """Return every row's score of every item, (N, I); no item vector per user is made."""
        score_NI = state_ND @ encoded.item_ID.T
        if self.config.output_mix != "gate" or encoded.modality_IKD is None:
            return score_NI
        items, modalities, _ = encoded.modality_IKD.shape
        flat = encoded.modality_IKD.reshape(items * modalities, -1)
        weight_NIK = self._weights(user_ND, flat, (len(state_ND), items, modalities), matmul)
        return score_NI + (weight_NIK * (state_ND @ flat.T).view(weight_NIK.shape)).sum(-1)

    def pair_scores(self, item_N: Tensor, encoded: Encoded) -> Tensor:
        """Return each row's score of one item of its own, (N,)."""
        score_N = (encoded.state_ND * encoded.item_ID[item_N]).sum(-1)
        if self.config.output_mix != "gate" or encoded.modality_IKD is None:
            return score_N
        modality_NKD = encoded.modality_IKD[item_N]
        weight_NK = self.route(encoded.user_ND, modality_NKD).dense()
        return score_N + (weight_NK * torch.einsum("nd,nkd->nk", encoded.state_ND, modality_NKD)).sum(-1)

    def candidate_scores(self, item_BC: Tensor, encoded: Encoded, where: Layout) -> Tensor:
        """Return each row's scores of candidates that the rows of a user share, (N, C)."""
        score_NC = sequence_scores(encoded.state_ND, encoded.item_ID[item_BC], where)
        if self.config.output_mix != "gate" or encoded.modality_IKD is None:
            return score_NC
        users, count = item_BC.shape
        flat = encoded.modality_IKD[item_BC].reshape(users, -1, encoded.state_ND.shape[1])
        shape = (*score_NC.shape, flat.shape[1] // count)
        weight_NCK = self._weights(encoded.user_ND, flat, shape, lambda x, y: sequence_scores(x, y, where))
        return score_NC + (weight_NCK * sequence_scores(encoded.state_ND, flat, where).view(shape)).sum(-1)

    def _weights(
        self, user_ND: Tensor, flat: Tensor, shape: tuple[int, ...], product: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Return the gate's weights for many items per row, `shape` = (N, items, K)."""
        if self.config.gate == "item":
            score = product(self.compatibility.user(user_ND), flat).view(shape)
            score = score if self.config.fusion == "inner" else score + self.compatibility.bias_K
        else:
            score = self.gate_scores(user_ND, user_ND.new_zeros(shape[0], shape[2], 1))[:, None].expand(shape)
        probability = routing.softmax(score, self.config.temperature)
        return self.cut(probability.reshape(-1, shape[2])).dense().view(shape)


def matmul(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    """Return all inner products, (N, M)."""
    return x_ND @ y_MD.T


class MSMRec(System[HistoryBatch]):
    """Sequential recommender with a mixture over K semantic modalities per item."""

    Config = MSMRecConfig
    columns = COLUMNS
    config: MSMRecConfig

    def __init__(self, config: MSMRecConfig, tables: Mapping[str, np.ndarray], seed: int = 0) -> None:
        super().__init__(config, tables, seed)
        self.num_items = len(tables["item_count"]) - 1
        text = tables.get(self.text_table(config))
        self.num_modalities = 0 if text is None or config.gate == "none" else text.shape[1]
        if config.top_k > max(self.num_modalities, 1):
            raise ConfigError(f"model.top_k: at most the {self.num_modalities} modalities, got {config.top_k}")

    @staticmethod
    def text_table(config: MSMRecConfig) -> str:
        """Return the name of the table of frozen vectors that this config reads."""
        return "text_concatenated" if config.texts == "concatenated" else "text"

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        return ("item_count",) if config.gate == "none" else ("item_count", cls.text_table(config))

    def model(self) -> nn.Module:
        """Return a freshly initialised model."""
        vectors = None
        if self.config.gate != "none":
            vectors = choose_vectors(dict(self.static), self.config.texts, derive(self.seed, "texts"))
        return Model(self.config, self.num_items, vectors, self.seed)

    def collate(self, rows: Columns) -> HistoryBatch:
        """Return the batch for these rows."""
        return collate(rows, max_length=self.config.max_length, attend_padding=self.config.attend_padding)

    def loss(self, model: Callable[[HistoryBatch], Any], batch: HistoryBatch) -> dict[str, Term]:
        """Return the next-item loss over every row and, where weighted, what keeps the gate sharp or even."""
        encoded: Encoded = model(batch)
        module: Any = getattr(model, "module", model)
        target_N = batch.next_item_N
        if self.config.attend_padding:
            raise ConfigError("model.attend_padding: is for evaluating published checkpoints, not for training")
        terms: dict[str, Term] = {}
        terms[self.config.loss] = Term(self._next_item(module, encoded, batch, target_N), len(target_N))
        if encoded.routing is not None and self.config.entropy_weight:
            total = decision_entropy(encoded.routing.probability_NE)
            terms["gate_entropy"] = Term(total, len(target_N), self.config.entropy_weight)
        if encoded.routing is not None and self.config.balance_weight:
            total_over_ranks = getattr(model, "sum_over_ranks", lambda value: value)
            count_K = total_over_ranks(assignments(encoded.routing))
            terms["balance"] = Term(balance(encoded.routing, count_K), len(target_N), self.config.balance_weight)
        return terms | self.config.feedforward_mixture.terms(encoded.mixed)

    def _next_item(self, module: Model, encoded: Encoded, batch: HistoryBatch, target_N: Tensor) -> Tensor:
        config = self.config
        if config.loss == "ce":
            if config.output_mix != "gate" or encoded.modality_IKD is None:
                return losses.full_cross_entropy(encoded.state_ND, encoded.item_ID, target_N)

            def chunk(state: Tensor, user: Tensor, target: Tensor) -> Tensor:
                score = module.scores(state, user, encoded).float()[:, 1:]
                return nn.functional.cross_entropy(score, target - 1, reduction="sum")

            return losses.chunked_sum(chunk, encoded.state_ND, encoded.user_ND, target_N)
        positive_N = module.pair_scores(target_N, encoded)
        where = batch.where
        users = torch.arange(len(batch), device=target_N.device)
        # What a user will see next is no negative either.
        seen_user = torch.cat([batch.seen_user_M, users])
        seen_item = torch.cat([batch.seen_item_M, batch.target_B])
        if config.loss == "bce":
            negative_N = unseen(where.sequence_N, seen_user, seen_item, self.num_items, 1)[:, 0]
            return losses.binary_cross_entropy(positive_N, module.pair_scores(negative_N, encoded)[:, None])
        negative_BC = unseen(users, seen_user, seen_item, self.num_items, config.negatives)
        negative_NC = module.candidate_scores(negative_BC, encoded, where)
        if config.loss == "ss":
            return losses.cross_entropy(positive_N, negative_NC)
        return losses.gbce(positive_N, negative_NC, self.num_items, config.calibration)

    def meters(self) -> dict[str, Meter]:
        """Return the ranking metrics, the gate's use of each modality and its entropy, and a row per user."""
        names = metric_names()
        if self.num_modalities:
            names += ["gate/entropy", *(f"gate/{k}" for k in range(self.num_modalities))]
        meters: dict[str, Meter] = {name: Mean() for name in names}
        return meters | {"rows": Rows()}

    def measure(self, module: nn.Module, batch: HistoryBatch, meters: Mapping[str, Meter]) -> None:
        """Rank each user's target among all items that the user has not seen."""
        assert isinstance(module, Model)
        encoded, last = module(batch), batch.where.last_B
        score_BI = module.scores(encoded.state_ND[last], encoded.user_ND[last], encoded).float()
        seen = self._masked(batch)
        rank_B = full_ranks(score_BI, batch.target_B, *seen)
        rows = {"user": batch.user_B, "target": batch.target_B, "rank": rank_B}
        rows["history"] = torch.bincount(batch.seen_user_M, minlength=len(batch))
        rows["top"] = score_BI.topk(min(TOP, self.num_items), dim=1).indices
        values = of_ranks(rank_B)
        if encoded.routing is not None:
            rows |= gate_per_user(encoded.routing, batch.where)
            rows["length"] = batch.where.length_B
            values["gate/entropy"] = -torch.special.xlogy(rows["gate"], rows["gate"]).sum(1)
            values |= {f"gate/{k}": rows["gate"][:, k] for k in range(self.num_modalities)}
        for name, value in values.items():
            meter = meters[name]
            assert isinstance(meter, Mean)
            meter.add(value)
        record = meters["rows"]
        assert isinstance(record, Rows)
        record.add(rows)

    def _masked(self, batch: HistoryBatch) -> tuple[Tensor, Tensor]:
        """Return the (user, item) pairs that evaluation leaves out."""
        if self.config.mask_seen == "all":
            return batch.seen_user_M, batch.seen_item_M
        if self.config.mask_seen == "input":
            return batch.where.sequence_N, batch.item_N
        return batch.seen_user_M[:0], batch.seen_item_M[:0]

    def predict(self, module: nn.Module, batch: HistoryBatch) -> list[dict[str, Any]]:
        """Return each user's best unseen items with scores and the weight of each modality behind them."""
        assert isinstance(module, Model)
        encoded, last = module(batch), batch.where.last_B
        user_BD = encoded.user_ND[last]
        score_BI = module.scores(encoded.state_ND[last], user_BD, encoded).float()
        score_BI[batch.seen_user_M, batch.seen_item_M] = -torch.inf
        score_BI[:, 0] = -torch.inf
        best = score_BI.topk(min(TOP, self.num_items), dim=1)
        answers = []
        for b, (items, scores) in enumerate(zip(best.indices, best.values, strict=True)):
            kept = scores.isfinite()
            answer: dict[str, Any] = {"items": items[kept].tolist(), "scores": scores[kept].tolist()}
            if encoded.modality_IKD is not None:
                users = user_BD[b].expand(int(kept.sum()), -1)
                answer["modalities"] = module.route(users, encoded.modality_IKD[items[kept]]).dense().tolist()
            answers.append(answer)
        return answers

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        num_items, modalities, size = 30, 3, 5
        columns, count = sample_histories(rows, rng, num_items)
        text = rng.standard_normal((num_items + 1, modalities, size)).astype(np.float32)
        return columns, {"item_count": count, "text": text, "text_concatenated": text.mean(1, keepdims=True)}
