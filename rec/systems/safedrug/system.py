"""Baselines on codes: which medications a visit is given, from its codes and those of earlier visits.

Letters: B visits to answer, V medications.
Source: SafeDrug (Yang et al., 2021), of which `kind = "recurrent"` is the patient side with its losses. It is not the
published model: the molecule side is left out, whose message passing network the published code never trains, and with
it the mask of substructures; a linear layer stands in its place. The weight of accuracy against interactions is
max(0, 1 + (target - rate) / slack); the published min(0, ...) is never positive. A step takes a batch of visits with a
rate each, where the published code takes one visit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rec.batch import Column, Columns
from rec.errors import ConfigError
from rec.evaluation.tasks.sets import Sets
from rec.json_text import json_text
from rec.nn.sets import (
    bce,
    interaction_loss,
    interaction_matrix,
    interaction_rate,
    interaction_severities,
    margin,
)
from rec.systems.api import System
from rec.systems.capabilities import SetPredictor
from rec.systems.safedrug.batch import MEDICATIONS, CodesBatch, collated
from rec.systems.safedrug.config import CodeBaselineConfig
from rec.systems.safedrug.model import LogisticModel, RecurrentModel
from rec.terms import Term

CODES = {"diagnoses": "diagnosis", "procedures": "procedure", "symptoms": "symptom"}
LISTS = {**CODES, MEDICATIONS: "medication"}
"""The lists of a visit, and what they are of."""
THRESHOLD = 0.5

Model = RecurrentModel | LogisticModel


class CodeBaseline(System[CodesBatch, Model], SetPredictor[CodesBatch, Model]):
    """Predicts the medications of a visit from codes: logistic regression, or SafeDrug without molecules."""

    Config = CodeBaselineConfig
    config: CodeBaselineConfig
    columns = (
        Column("patient", "int64", entity="patient", optional=True, place=True),
        *(Column(name, "int64", (-1,), entity=entity, optional=True) for name, entity in CODES.items()),
        *(
            Column(f"earlier_{name}", "int64", (-1, -1), entity=entity, optional=True, along="earlier visit")
            for name, entity in LISTS.items()
        ),
        Column(MEDICATIONS, "int64", (-1,), label=True, entity="medication"),
    )
    view = "visits"
    tasks = (Sets(threshold=THRESHOLD),)
    entity = "medication"
    notice = "Research software, no medical device: predictions are no advice."
    loss_terms: ClassVar[Mapping[str, str]] = {
        "bce": "binary cross-entropy of every medication",
        "margin": "how little given medications stand above the others",
        "ddi": "expected interactions among what is given",
    }

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        return tuple(f"{LISTS[field]}_titles" for field in (*config.fields, MEDICATIONS))

    @classmethod
    def further_tables(cls, config: Any) -> tuple[str, ...]:
        """Return what is known of interactions, where anything is."""
        return ("interaction_pairs", "interaction_values")

    def __init__(self, config: CodeBaselineConfig, tables: Any, seed: int = 0) -> None:
        super().__init__(config, tables, seed)
        self.sizes = {
            field: len(json.loads(np.asarray(tables[f"{LISTS[field]}_titles"]).tobytes()))
            for field in (*config.fields, MEDICATIONS)
        }
        self.interaction_VV = interaction_matrix(tables, self.sizes[MEDICATIONS])

    def model(self) -> Model:
        """Return a freshly initialised model.

        Raises:
            ConfigError: the data set tells no interactions, and a key asks for them.
        """
        config = self.config
        if config.kind == "recurrent" and config.ddi_weight and self.interaction_VV is None:
            raise ConfigError("model.ddi_weight: the data set tells no interactions; set it to 0")
        read = (*config.fields, MEDICATIONS) if config.history == "medications" else config.fields
        codes, medications = sum(self.sizes[field] for field in read), self.sizes[MEDICATIONS]
        if config.kind == "logistic":
            return LogisticModel(codes=codes, medications=medications)
        return RecurrentModel(
            codes=codes,
            fields=len(read),
            medications=medications,
            width=config.width,
            dropout=config.dropout,
            recurrent=config.history != "none",
        )

    def collate(self, rows: Columns) -> CodesBatch:
        """Return the batch of these rows."""
        return collated(rows, self.config.fields, self.sizes, self.config.history)

    def loss(self, model: Callable[[CodesBatch], Any], batch: CodesBatch) -> dict[str, Term]:
        """Return cross entropy, margin, and interactions among what is predicted; logistic has the first alone."""
        score_BV, config = model(batch).float(), self.config
        bce_B, labels = bce(score_BV, batch.given_BV), len(batch) * score_BV.shape[1]
        if config.kind == "logistic":
            return {"bce": Term(bce_B.sum(), labels)}
        probability_BV, accuracy_B = score_BV.sigmoid(), torch.ones_like(bce_B)
        margin_B = margin(probability_BV, batch.given_BV)
        terms = {}
        if config.ddi_weight and self.interaction_VV is not None:
            interaction_VV = torch.from_numpy(self.interaction_VV).to(score_BV.device)
            rate_B = interaction_rate(score_BV.detach() >= 0, interaction_VV)
            accuracy_B = (1 + (config.ddi_target - rate_B) / config.ddi_slack).clamp(0, 1)
            together_B = 2 * interaction_loss(probability_BV, interaction_VV)
            terms["ddi"] = Term(((1 - accuracy_B) * together_B).sum(), len(batch), config.ddi_weight)
        terms["bce"] = Term((accuracy_B * bce_B).sum(), labels, 1 - config.margin_weight)
        terms["margin"] = Term((accuracy_B * margin_B).sum(), len(batch), config.margin_weight)
        return terms

    def probabilities(self, module: Model, batch: CodesBatch) -> Tensor:
        """Return the probability of every medication, (B, V)."""
        probability_BV: Tensor = module(batch).float().sigmoid()
        return probability_BV

    def labels(self, batch: CodesBatch) -> Tensor:
        """Return what is given, (B, V) bool."""
        return batch.given_BV

    def subjects(self, batch: CodesBatch) -> Tensor:
        """Return each visit's patient, (B,)."""
        return batch.patient_B

    def interactions(self) -> np.ndarray | None:
        """Return which medications interact, (V, V) bool."""
        return self.interaction_VV

    def severities(self) -> dict[tuple[int, int], str]:
        """Return how bad interactions are, in words, by their two medications, the smaller first."""
        return interaction_severities(self.static)

    def previous(self, batch: CodesBatch) -> Tensor:
        """Return what the visit before was given, (B, V) bool."""
        return batch.previous_BV

    def earlier(self, batch: CodesBatch) -> Tensor:
        """Return how many earlier visits each patient has, (B,)."""
        return batch.earlier_B

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        sizes = {"diagnoses": 9, "procedures": 5, "symptoms": 4, MEDICATIONS: 12}

        def some(field: str, most: int) -> np.ndarray:
            return rng.choice(sizes[field], int(rng.integers(0, most + 1)), replace=False).astype(np.int64)

        columns: dict[str, Any] = {"patient": np.arange(rows, dtype=np.int64) // 2}
        for field in sizes:
            columns[field] = [some(field, 4) for _ in range(rows)]
            columns[f"earlier_{field}"] = [[some(field, 3) for _ in range(row % 4)] for row in range(rows)]
        pair_P2 = np.argwhere(np.triu(rng.random((12, 12)) < 0.3, 1))
        tables = {
            f"{LISTS[field]}_titles": np.frombuffer(json_text([str(i) for i in range(size)]).encode(), np.uint8)
            for field, size in sizes.items()
        }
        words = np.frombuffer(json_text(["severe", *[""] * (len(pair_P2) - 1)]).encode(), np.uint8)
        return columns, {**tables, "interaction_pairs": pair_P2, "interaction_values": words}
