"""NLA-MMR: medication sets for visits, from clinical text and molecules that meet in one space.

Letters: B visits, V medications, S sections, H earlier visits, C joint width.
Source: Tan et al. 2024 (NLA-MMR, CIKM; arXiv 2501.07166), and where the paper is silent its published code, with the
departures that `docs/medication.md` lists. Research software: no medical device, no advice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.batch import Columns
from rec.errors import ConfigError
from rec.evaluation.tasks.sets import Sets
from rec.evaluation.tasks.sets.filters import filtered
from rec.evaluation.tasks.sets.metrics import THRESHOLD
from rec.moe.config import LOSS_TERMS
from rec.nn.encoders import TokenForm, trained_parts
from rec.nn.sets import (
    bce,
    interacting_pairs,
    interaction_counts,
    interaction_loss,
    interaction_matrix,
    interaction_severities,
    margin,
)
from rec.systems.api import Phase, System, Wanted
from rec.systems.capabilities import SetPredictor
from rec.systems.nlammr.batch import COLUMNS, MEDICATIONS, SECTIONS, TEXTS, Collator, VisitBatch
from rec.systems.nlammr.config import NLAMMRConfig
from rec.systems.nlammr.losses import accuracy_share
from rec.systems.nlammr.model import NLAMMRModel, NLAMMRScores
from rec.systems.nlammr.samples import sample
from rec.terms import Term

STRUCTURE = (
    "molecule_atoms", "molecule_atom_owner", "molecule_bonds", "molecule_bond_features", "medication_molecule_pairs",
)  # fmt: skip


class NLAMMR(System[VisitBatch, NLAMMRModel], SetPredictor[VisitBatch, NLAMMRModel]):
    """Medication recommender on text and structure."""

    Config = NLAMMRConfig
    config: NLAMMRConfig
    columns = COLUMNS
    view = "visits"
    tasks = (Sets(),)
    entity = "medication"
    notice = "Research software, not a medical device; no advice on any patient's treatment."
    loss_terms = LOSS_TERMS | {
        "bce": "binary cross-entropy of every medication",
        "margin": "how little given medications stand above the others",
        "ddi": "expected interactions among what is given",
        "ddi_rate": "share of pairs given together that interact, not in the loss",
    }

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        names = [*cls.record_tables(config), "medication_text_present"]
        names += [f"{entity}_titles" for entity in (*SECTIONS.values(), "medication")]
        if config.train_plm == "frozen":
            names += ["text_encoder", *(["medication_text"] if config.ablate != "text" else [])]
        else:
            names += ["medication_tokens", "tokenizer"]
        names += ["medication_share"] if config.codes else []
        names += STRUCTURE if config.ablate != "structure" else ()
        return tuple(names)

    @classmethod
    def record_tables(cls, config: Any) -> tuple[str, ...]:
        """Return the texts of visits: those of requests are encoded when they come."""
        form = "text" if config.train_plm == "frozen" else "tokens"
        present = [f"text_{name}_present" for name in TEXTS]
        return (*present, *(f"{form}_{name}" for name in (*TEXTS, MEDICATIONS)))

    @classmethod
    def further_tables(cls, config: Any) -> tuple[str, ...]:
        """Return what is known of interactions, where anything is."""
        return ("interaction_pairs", "interaction_values", "interaction_together")

    @classmethod
    def wanted_by(cls, config: Any, table: str) -> Wanted | None:
        """Return which key asks for a table."""
        if table in STRUCTURE:
            return Wanted("model.ablate", "model.ablate=structure")
        if table == "medication_text":
            return Wanted("model.ablate", "model.ablate=text")
        if table == "medication_share":
            return Wanted("model.codes", "model.codes=false")
        if "tokens" in table or table == "tokenizer":
            return Wanted("model.train_plm", "model.train_plm=frozen")
        return None

    @cached_property
    def collator(self) -> Collator:
        """What makes batches."""
        return Collator(
            self.static, self.config.history, tokens=self.config.train_plm != "frozen", codes=self.config.codes
        )

    def model(self) -> NLAMMRModel:
        """Return a freshly initialised model."""
        form = None
        if self.config.train_plm != "frozen":
            tokens = self.collator.encoder
            form = TokenForm(tokens.tokenizer.get_vocab_size(), tokens.max_tokens, tokens.pad)
        return NLAMMRModel(self.config, self.static, self.seed, form)

    def phases(self) -> tuple[Phase, ...]:
        """Return one stretch of training, in which frozen weights of an encoder under LoRA do not move."""
        if self.config.train_plm != "lora":
            return (Phase(),)
        return (
            Phase(trains=("patients.*", "medications.*", "codes.*", *trained_parts("text", self.config.lora.lora))),
        )

    def start_epoch(self, module: NLAMMRModel, epoch: int) -> None:
        """Encode what describes medications anew where the text encoder is trained."""
        module.refresh_texts(epoch)

    def collate(self, rows: Columns) -> VisitBatch:
        """Return the batch of these rows; texts of visits in no table are made of titles and of what is written.

        Raises:
            RequestError: a row names a visit that is not there.
        """
        return self.collator(rows)

    def loss(self, model: Callable[[VisitBatch], Any], batch: VisitBatch) -> dict[str, Term]:
        """Return cross entropy and margin, interactions where they count, and what keeps routers in order."""
        scored: NLAMMRScores = model(batch)
        config, label_BV = self.config, batch.label_BV
        score_BV, scale = scored.score_BV, self._accuracy
        probability_BV = score_BV.sigmoid()
        terms = {
            "bce": Term(bce(score_BV, label_BV).sum(), label_BV.numel(), config.alpha, scale=scale),
            "margin": Term(margin(probability_BV, label_BV).sum(), len(batch), 1 - config.alpha, scale=scale),
        }
        if config.ddi_weight:
            interaction_VV = self.interaction_VV.to(score_BV.device)
            expected = interaction_loss(probability_BV, interaction_VV).sum()
            rest = None if scale is None else lambda values: 1 - scale(values)
            terms["ddi"] = Term(expected, len(batch), config.ddi_weight, scale=rest)
            if config.ddi_target:
                interacting_B, pairs_B = interacting_pairs(probability_BV >= THRESHOLD, interaction_VV)
                terms["ddi_rate"] = Term(interacting_B.sum(), pairs_B.sum(), 0.0)
        return terms | (config.mixture.terms(scored.mixed) if scored.mixed else {})

    @property
    def _accuracy(self) -> Callable[[Mapping[str, float]], float] | None:
        """The share of accuracy in the loss, given the terms of the global batch; None where it is all."""
        target = self.config.ddi_target
        if not (self.config.ddi_weight and target):
            return None
        return lambda values: accuracy_share(values.get("ddi_rate", 0.0), target)

    def probabilities(self, module: NLAMMRModel, batch: VisitBatch) -> Tensor:
        """Return the probability of every medication, float32 (B, V)."""
        scored: NLAMMRScores = module(batch)
        return scored.score_BV.sigmoid()

    def labels(self, batch: VisitBatch) -> Tensor:
        """Return which medications were given, (B, V) bool."""
        return batch.label_BV

    def subjects(self, batch: VisitBatch) -> Tensor:
        """Return each visit's patient, (B,)."""
        return batch.patient_B

    def previous(self, batch: VisitBatch) -> Tensor:
        """Return what the visit before was given, (B, V) bool."""
        return batch.previous_BV

    def earlier(self, batch: VisitBatch) -> Tensor:
        """Return how many earlier visits there are, int64 (B,)."""
        return batch.before_B

    @cached_property
    def interaction_VV(self) -> Tensor:
        """1 where two medications interact.

        Raises:
            ConfigError: the data set does not tell, and a key asks for it.
        """
        interaction_VV = self.interactions()
        if interaction_VV is None:
            raise ConfigError("model.ddi_weight: the data set tells no interactions; set it to 0")
        return torch.from_numpy(interaction_VV.astype(np.float32))

    @cached_property
    def _interaction_VV(self) -> np.ndarray | None:
        found_VV = interaction_matrix(self.static, len(self.static["medication_text_present"]))
        if found_VV is not None:
            np.fill_diagonal(found_VV, False)
        return found_VV

    def interactions(self) -> np.ndarray | None:
        """Return which medications interact, (V, V) bool; None where the data set does not tell."""
        return self._interaction_VV

    def severities(self) -> dict[tuple[int, int], str]:
        """Return how bad interactions are, in words, by their two medications, the smaller first."""
        return interaction_severities(self.static)

    def chosen(self, score_BV: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
        """Return which medications are given, bool (B, V), without the less probable one of an interacting pair."""
        how = self.config.ddi_filter
        if how == "none":
            return super().chosen(score_BV, threshold)
        certain = self.config.ddi_certain
        return filtered(
            score_BV,
            threshold,
            self.interactions(),
            how,
            self._allowed_VV,
            certain=certain if certain < 1 else None,
        )

    @cached_property
    def _allowed_VV(self) -> np.ndarray | None:
        """Return which interacting medications training gave together often enough, (V, V) bool.

        Raises:
            ConfigError: the data set does not tell.
        """
        if not self.config.ddi_common:
            return None
        count_VV = interaction_counts(self.static, len(self.static["medication_text_present"]))
        if count_VV is None:
            raise ConfigError(
                "model.ddi_common: the data set does not tell how often interacting medications were given together; "
                "set it to 0, or prepare it anew"
            )
        return count_VV >= self.config.ddi_common

    def embeddings(self, module: NLAMMRModel, batch: VisitBatch) -> tuple[Tensor, Tensor]:
        """Return visits, (B, C), and medications, (V, C), in the space where they meet."""
        return module.patients(module.texts(batch)).vector_BC, module.catalogue()

    def reasons(self, module: NLAMMRModel, batch: VisitBatch) -> list[dict[str, Any]]:
        """Return the weights of sections and of earlier visits for each visit, and which sections are missing.

        A section that is missing is a vector of zeros, of which nothing comes whatever its weight: the others' weights
        are told as shares of theirs. An earlier visit is told by its place among the patient's, from 0.
        """
        patients = module.patients(module.texts(batch))
        found = []
        for row, (section_S, earlier_H) in enumerate(
            zip(patients.section_BS.tolist(), patients.earlier_BH.tolist(), strict=True)
        ):
            there, before = int(batch.earlier_BH[row].sum()), int(batch.before_B[row])
            present_S = batch.present_BS[row].tolist()
            weight = {name: w for name, w, is_there in zip(SECTIONS, section_S, present_S, strict=True) if is_there}
            total = sum(weight.values()) or 1.0
            found.append(
                {
                    "sections": {name: w / total for name, w in weight.items()},
                    "earlier": [{"visit": before - there + slot, "weight": earlier_H[slot]} for slot in range(there)],
                    "missing": [name for name in SECTIONS if name not in weight],
                }
            )
        return found

    def catalogue(self, module: NLAMMRModel) -> dict[str, Tensor]:
        """Return all medications in the joint space."""
        return {"medication_VC": module.catalogue()}

    def freeze(self, module: NLAMMRModel, catalogue: Mapping[str, Tensor]) -> None:
        """Let the module answer from medications that were encoded before."""
        module.frozen = catalogue["medication_VC"]

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        return sample(rows, rng)
