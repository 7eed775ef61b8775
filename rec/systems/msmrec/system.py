"""MSMRec: SASRec whose items carry K text vectors, mixed by a gate that knows the user.

Letters: B users, N packed history rows, I items with padding as item 0, K modalities, D width, C candidates.
Source: the paper's equations 3 to 6; what we build where paper and published code differ is decided in the
specification's sections 2.3 and 6. With `gate = "none"` the system is SASRec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.batch import Columns
from rec.errors import ConfigError
from rec.evaluation.records import Records
from rec.evaluation.task import Measured, Profiled
from rec.evaluation.tasks.ranking import Ranking
from rec.evaluation.tasks.ranking.answers import recommend_batch
from rec.moe.balance import assignments, balance, decision_entropy
from rec.moe.config import LOSS_TERMS
from rec.moe.ranks import Later
from rec.nn import losses
from rec.nn.history import COLUMNS, HistoryBatch, collate, sample_histories
from rec.nn.modality import choose_vectors, concentration, gate_per_user, or_none
from rec.nn.negatives import Popular, unseen
from rec.sections import Section
from rec.seeds import derive
from rec.systems.api import System, Wanted
from rec.systems.capabilities import Explainer, Ranker, RankingExamples, Reporter, States
from rec.systems.msmrec import report
from rec.systems.msmrec.config import MSMRecConfig
from rec.systems.msmrec.knowledge import ITEM, TABLES, TOLD, USER
from rec.systems.msmrec.model import CatalogueVectors, EncodedHistories, MSMRecModel
from rec.systems.msmrec.profile import profile
from rec.terms import Term


class MSMRec(
    System[HistoryBatch, MSMRecModel],
    Ranker[HistoryBatch, MSMRecModel],
    Explainer[HistoryBatch, MSMRecModel],
    Reporter[HistoryBatch, MSMRecModel],
):
    """Sequential recommender with a mixture over K semantic modalities per item."""

    Config = MSMRecConfig
    columns = COLUMNS
    view = "sequences"
    tasks = (Ranking(groups_by="popular_share", cold_count=10),)
    loss_terms = LOSS_TERMS | {
        "ce": "cross-entropy of the next item among all",
        "ss": "sampled softmax of the next item against drawn ones",
        "gbce": "binary cross-entropy of the next item against drawn ones, corrected for the drawing",
        "bce": "binary cross-entropy of the next item against drawn ones",
        "sampled": "cross-entropy of the next item against items drawn by popularity, corrected for it",
        "gate_entropy": "how undecided the gate is",
        "balance": "how unevenly modalities are used, 1 is even",
        "knowledge_balance": "how unevenly the experts of knowledge are used, 1 is even",
    }
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
        texts = () if config.gate == "none" else (cls.text_table(config),)
        return ("item_count", *texts, *TABLES[config.knowledge.towers])

    @classmethod
    def wanted_by(cls, config: Any, table: str) -> Wanted | None:
        """Return which key asks for a table."""
        if table in (ITEM, USER, TOLD):
            return Wanted("model.knowledge.towers", "model.knowledge.towers=none")
        return Wanted("model.gate", "model.gate=none") if table == cls.text_table(config) else None

    def model(self) -> MSMRecModel:
        """Return a freshly initialised model."""
        vectors = None
        if self.config.gate != "none":
            vectors = choose_vectors(dict(self.static), self.config.texts, derive(self.seed, "texts"))
        names = TABLES[self.config.knowledge.towers]
        knowledge = {name: torch.from_numpy(np.asarray(self.static[name])) for name in names}
        return MSMRecModel(self.config, self.num_items, vectors, self.seed, knowledge)

    def collate(self, rows: Columns) -> HistoryBatch:
        """Return the batch for these rows."""
        batch = collate(rows, max_length=self.config.max_length, attend_padding=self.config.attend_padding)
        if "user" not in rows and self.config.knowledge.towers in ("user", "both"):  # nobody of whom there is a text
            batch = replace(batch, user_B=torch.full_like(batch.user_B, -1))
        return batch

    def lengths(self, rows: Columns) -> np.ndarray:
        """Return how many items of each history are read."""
        return np.minimum([len(history) for history in rows["history"]], self.config.max_length)

    def loss(self, model: Callable[[HistoryBatch], Any], batch: HistoryBatch) -> dict[str, Term]:
        """Return the next-item loss over every row and, where weighted, what keeps the gate sharp or even."""
        module: Any = getattr(model, "module", model)
        target_N = batch.next_item_N
        if self.config.attend_padding:
            raise ConfigError("model.attend_padding: is for evaluating published checkpoints, not for training")
        if module.picks:  # what is drawn decides whose vectors the pass needs
            drawn = self._draw(batch)
            wanted = torch.cat([target_N, drawn[0].flatten()])
            encoded: EncodedHistories = model(replace(batch, wanted_X=wanted))
        else:
            encoded = model(batch)
            drawn = self._draw(batch)
        terms: dict[str, Term] = {}
        terms[self.config.loss] = Term(*self._next_item(module, encoded, batch, target_N, drawn))
        if encoded.routing is not None and self.config.entropy_weight:
            total = decision_entropy(encoded.routing.probability_NE)
            terms["gate_entropy"] = Term(total, len(target_N), self.config.entropy_weight)
        if encoded.routing is not None and self.config.balance_weight:
            total_over_ranks = getattr(model, "sum_over_ranks", lambda value: value)
            own_K = assignments(encoded.routing) * float(module.whole.counting)
            count_K = module.whole.of(Later(value=total_over_ranks(own_K)))()
            terms["balance"] = Term(balance(encoded.routing, count_K), len(target_N), self.config.balance_weight)
        if encoded.known is not None:
            terms |= module.knowledge.terms(encoded.known)
        return terms | self.config.feedforward_mixture.terms(encoded.mixed)

    def _draw(self, batch: HistoryBatch) -> tuple[Tensor, Tensor]:
        """Return the items that stand against targets, as the loss wants them, and how often each is expected."""
        config, where = self.config, batch.where
        device = batch.item_N.device
        nothing = torch.zeros(0, dtype=torch.int64, device=device)
        if config.loss == "ce":
            return nothing, nothing
        if config.loss == "sampled":
            return self._popular.draw(config.negatives, device)
        users = torch.arange(len(batch), device=device)
        # What a user will see next is no negative either.
        seen_user = torch.cat([batch.seen_user_M, users])
        seen_item = torch.cat([batch.seen_item_M, batch.target_B])
        asking, count = (where.sequence_N, 1) if config.loss == "bce" else (users, config.negatives)
        return unseen(asking, seen_user, seen_item, self.num_items, count), nothing

    @cached_property
    def _popular(self) -> Popular:
        return Popular(torch.from_numpy(np.array(self.static["item_count"])), self.config.negatives_power)

    def _next_item(
        self,
        module: MSMRecModel,
        encoded: EncodedHistories,
        batch: HistoryBatch,
        target_N: Tensor,
        drawn: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, int]:
        """Return the loss as a sum over rows, and how many rows it is of."""
        config = self.config
        if config.loss == "ce":
            if module.has_products:
                query_NX = module.queries(encoded.state_ND, encoded.user_ND)
                return losses.full_cross_entropy(query_NX, module.vectors(encoded), target_N), len(target_N)
            assert encoded.modality_IKD is not None, "without texts there are products"

            def chunk(state: Tensor, user: Tensor, target: Tensor) -> Tensor:
                score = module.scores(state, user, encoded).float()[:, 1:]
                return nn.functional.cross_entropy(score, target - 1, reduction="sum")

            numbers = encoded.modality_IKD.shape[0] * (2 if module.of_users else encoded.modality_IKD.shape[1])
            rows = encoded.state_ND, encoded.user_ND, target_N
            return losses.chunked_sum(chunk, *rows, numbers=numbers), len(target_N)
        positive_N = module.pair_scores(target_N, encoded)
        where = batch.where
        if config.loss == "sampled":
            return self._sampled(module, encoded, positive_N, target_N, drawn), len(target_N)
        if config.loss == "bce":
            drawn_NC = drawn[0]
            negative_NC, some_N = module.pair_scores(drawn_NC[:, 0], encoded)[:, None], drawn_NC[:, 0] > 0
        else:
            drawn_BC = drawn[0]
            negative_NC, some_N = module.candidate_scores(drawn_BC, encoded, where), drawn_BC[where.sequence_N, 0] > 0
        if not bool(some_N.all()):  # users who have everything
            self.left_out |= set(batch.user_B[where.sequence_N[~some_N]].tolist())
            positive_N, negative_NC = positive_N[some_N], negative_NC[some_N]
        if config.loss == "bce":
            return losses.binary_cross_entropy(positive_N, negative_NC), len(positive_N)
        if config.loss == "ss":
            return losses.cross_entropy(positive_N, negative_NC), len(positive_N)
        return losses.gbce(positive_N, negative_NC, self.num_items, config.calibration), len(positive_N)

    def _sampled(
        self,
        module: MSMRecModel,
        encoded: EncodedHistories,
        positive_N: Tensor,
        target_N: Tensor,
        drawn: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Return the loss over items that all rows share, a chunk of rows at a time."""
        drawn_C, expected_C = drawn
        place_C, modality_IKD = encoded.places(drawn_C), encoded.modality_IKD
        gated = self.config.output_mix == "gate" and modality_IKD is not None
        few = CatalogueVectors(
            encoded.item_ID[place_C], modality_IKD[place_C] if gated and modality_IKD is not None else None
        )

        def chunk(state: Tensor, user: Tensor, positive: Tensor, target: Tensor) -> Tensor:
            return losses.sampled_softmax(
                module.scores(state, user, few, drawn_C), positive, expected_C, target, drawn_C
            )

        numbers = len(drawn_C) * (self.num_modalities if gated else 1)
        return losses.chunked_sum(chunk, encoded.state_ND, encoded.user_ND, positive_N, target_N, numbers=numbers)

    def examples(self, batch: HistoryBatch) -> RankingExamples:
        """Return users, their next items, and what each has seen; the config says what of it is left out."""
        seen = batch.seen_user_M, batch.seen_item_M
        left_out = {"all": seen, "input": (batch.where.sequence_N, batch.item_N)}
        nothing = seen[0][:0], seen[1][:0]
        return RankingExamples(
            subject_B=batch.user_B,
            target=(batch.target_row_P, batch.target_P),
            left_out=left_out.get(self.config.mask_seen, nothing),
            known=seen,
        )

    def states(self, module: MSMRecModel, batch: HistoryBatch) -> dict[str, Tensor]:
        """Return each user's state after the last item, and what the gate knows of the user then."""
        return _last(module(batch), batch)

    def observed(self, module: MSMRecModel, batch: HistoryBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the states, and the gate's mean weights over each history and parts of it."""
        encoded = module(batch)
        if encoded.routing is None:
            return _last(encoded, batch), {}
        weights = gate_per_user(told_weights(module, encoded.routing.dense(), batch.item_N), batch.where)
        probability_NK = told_weights(module, encoded.routing.probability_NE, batch.item_N)
        return _last(encoded, batch), weights | concentration(probability_NK, batch.where)

    def scores(self, module: MSMRecModel, states: States, items: slice) -> Tensor:
        """Return the scores of a range of items for users in these states."""
        return module.scores(states["state_BD"], states["user_BD"], module.part(items), items).float()

    def details(self, module: MSMRecModel, states: States, example: int, items: Sequence[int]) -> dict[str, Any]:
        """Return the modalities' weights behind each item, None for texts that it does not have."""
        if not self.num_modalities:
            return {}
        user_D = states["user_BD"][example]
        index_C = torch.tensor(items, device=user_D.device)
        modality_CKD = _texts(module, index_C)
        users = user_D.expand(len(modality_CKD), -1)
        return {"modalities": _weights(module, users, modality_CKD, index_C)[1]}

    def item_vectors(self, module: MSMRecModel) -> Tensor | None:
        """Return the items' vectors at the output."""
        return module.vectors(module.frozen or module.catalogue()) if self._indexed(module) else None

    def _indexed(self, module: MSMRecModel) -> bool:
        """Return whether scores are products with all items' vectors; where a pass picks, texts' are not kept."""
        return module.has_products and not (module.gated_out and module.picks)

    def queries(self, module: MSMRecModel, states: States) -> Tensor:
        """Return what the items' vectors are multiplied by: each user's state after the last item, (B, D) or wider.

        Raises:
            ConfigError: scores are no inner products.
        """
        if not self._indexed(module):
            raise ConfigError(
                "serve.index: scores of model.output_mix = 'gate' are inner products only where a gate looks at users "
                "alone, all items have all texts, and the vectors of texts are kept; use exact"
            )
        return module.queries(states["state_BD"], states["user_BD"])

    def catalogue(self, module: MSMRecModel) -> dict[str, Tensor]:
        """Return the items' vectors and, where there are texts, each modality's."""
        item_ID, modality_IKD = module.catalogue()
        if module.picks and self.config.gate == "none":  # the weights themselves
            return {}
        return {"item_ID": item_ID} | ({} if modality_IKD is None else {"modality_IKD": modality_IKD})

    def freeze(self, module: MSMRecModel, catalogue: Mapping[str, Tensor]) -> None:
        """Let the module answer from a catalogue that was computed before."""
        if "item_ID" in catalogue:
            module.frozen = CatalogueVectors(catalogue["item_ID"], catalogue.get("modality_IKD"))

    def explain(self, module: MSMRecModel, batch: HistoryBatch, items: Sequence[int]) -> list[dict[str, Any]]:
        """Return each user's score of an item as parts of its id and of each modality, and the modalities' weights.

        Parts and weights of texts that an item does not have are 0 and None.
        """
        encoded, last = module(batch), batch.where.last_B
        item_B = torch.tensor(items)
        state_BD, user_BD = encoded.state_ND[last], encoded.user_ND[last]
        part_BP = (state_BD * module.item(item_B)).sum(-1, keepdim=True)
        if encoded.modality_IKD is None:
            return [{"score": sum(parts), "parts": parts} for parts in part_BP.tolist()]
        modality_BKD = _texts(module, item_B)
        weight_BK, told = _weights(module, user_BD, modality_BKD, item_B)
        present_BK = module.present(item_B)
        there_BK = torch.ones_like(weight_BK) if present_BK is None else present_BK.to(weight_BK.dtype)
        share_BK = {"mean": there_BK / there_BK.sum(1, keepdim=True).clamp(min=1), "gate": weight_BK}
        shares = share_BK.get(self.config.output_mix, torch.zeros_like(weight_BK))
        part_BP = torch.cat([part_BP, shares * torch.einsum("bd,bkd->bk", state_BD, modality_BKD)], 1)
        rows = zip(part_BP.tolist(), told, strict=True)
        return [{"score": sum(parts), "parts": parts, "modalities": weights} for parts, weights in rows]

    def statistics(self, records: Records) -> dict[str, float]:
        """Return the gate's mean use of each modality and the mean entropy of users' weights."""
        return report.gate_statistics(records)

    def enrich(self, measured: Measured) -> list[str]:
        """Add the gate's weights per group and over time, and how well they tell planted preferences."""
        return report.enrich(measured)

    def sections(self, measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
        """Return figures of the gate's weights."""
        return report.sections(measured, history)

    def profile(self, profiled: Profiled) -> list[Section]:
        """Return a user's weights, the items behind them, and how they move over the history."""
        module: Any = profiled.module
        encoded, batch = module(profiled.batch), profiled.batch
        if encoded.routing is None:
            return []
        weight_NK = told_weights(module, encoded.routing.dense(), batch.item_N)
        answer = recommend_batch(self, module, batch)[0]
        return profile(profiled, weight_NK.double().cpu().numpy(), batch.item_N.cpu().numpy(), answer)

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        num_items, modalities, size = 30, 3, 5
        columns, count = sample_histories(rows, rng, num_items)
        text = rng.standard_normal((num_items + 1, modalities, size)).astype(np.float32)
        tables = {"item_count": count, "text": text, "text_concatenated": text.mean(1, keepdims=True)}
        tables[ITEM] = rng.standard_normal((num_items + 1, size)).astype(np.float32)
        tables[USER] = rng.standard_normal((rows, size)).astype(np.float32)
        tables[TOLD] = rng.integers(0, 6, rows).astype(np.int32)
        tables[ITEM][0] = 0
        return columns, tables


def told_weights(module: MSMRecModel, weight_NK: Tensor, item_N: Tensor) -> Tensor:
    """Return a gate's weights as they are told: none of texts that an item does not have."""
    present_NK = module.present(item_N)
    return weight_NK if present_NK is None else weight_NK * present_NK


def _weights(
    module: MSMRecModel, user_BD: Tensor, modality_BKD: Tensor, item_B: Tensor
) -> tuple[Tensor, list[list[float | None]]]:
    """Return the gate's weights, (B, K), and as they are told: None for texts that an item does not have."""
    present_BK = module.present(item_B)
    weight_BK = module.route(user_BD, modality_BKD, present_BK).dense()
    each = [None] * len(weight_BK) if present_BK is None else list(present_BK)
    return weight_BK, [or_none(shares, there) for shares, there in zip(weight_BK.tolist(), each, strict=True)]


def _texts(module: MSMRecModel, item_C: Tensor) -> Tensor:
    """Return the vectors of some items' texts, (C, K, D)."""
    if module.picks:
        item_U, place_C = item_C.unique(return_inverse=True)
        modality_UKD = module.picked(item_U)[1].modality_IKD
    else:
        modality_UKD, place_C = (module.frozen or module.catalogue()).modality_IKD, item_C
    assert modality_UKD is not None
    return modality_UKD[place_C]


def _last(encoded: EncodedHistories, batch: HistoryBatch) -> dict[str, Tensor]:
    last = batch.where.last_B
    return {"state_BD": encoded.state_ND[last], "user_BD": encoded.user_ND[last]}
