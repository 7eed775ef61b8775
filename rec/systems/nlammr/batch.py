"""Batches of visits, and how rows become them.

Letters: B visits, S sections, H earlier visits, D width of texts, T texts of a visit, L tokens, V medications, N codes
of all visits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.batch import Batch, Column, Columns, RaggedColumn
from rec.data.encoders import Tokens, text_encoder_from
from rec.data.stages.event_texts import SEPARATOR
from rec.errors import RequestError

SECTIONS = {"symptoms": "symptom", "diagnoses": "diagnosis", "procedures": "procedure"}
"""Sections in the order of their attention, and the entities whose titles they list."""
ALL, MEDICATIONS = "all", "medications"
IN_ORDER = ("diagnoses", "procedures", "symptoms")
"""Sections in the order in which they make one text."""
TEXTS = (ALL, *SECTIONS)
COLUMNS = (
    Column("patient", "int64", entity="patient", optional=True, place=True),
    Column("visit", "int64", optional=True, place=True),
    *(Column(name, "int64", (-1,), entity=entity, optional=True) for name, entity in SECTIONS.items()),
    *(Column(f"{entity}_text", "str", optional=True, asked_only=True) for entity in SECTIONS.values()),
    Column("earlier", "int64", (-1,), optional=True, place=True, along="earlier visit"),
    Column("earlier_medications", "int64", (-1, -1), entity="medication", optional=True, along="earlier visit"),
    Column("gap", "float32", (-1,), optional=True, along="earlier visit", least=0),
    Column("medications", "int64", (-1,), label=True, entity="medication"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitBatch(Batch):
    """Visits without what they were given, but for the label."""

    patient_B: Tensor
    """-1 where a patient is in no table."""
    query_BD: Tensor
    section_BSD: Tensor
    present_BS: Tensor
    earlier_BHD: Tensor
    earlier_BH: Tensor
    """Whether there is such an earlier visit."""
    gap_BH: Tensor
    token_BTL: Tensor
    """Token ids of all sections, each section and the medications of earlier visits, where texts are encoded here."""
    before_B: Tensor
    """How many earlier visits there are."""
    code_N: Tensor
    """Codes of all visits, numbered through the sections' entities, where codes count by themselves ..."""
    visit_N: Tensor
    """... and the visit of the batch that each is of."""
    previous_BV: Tensor
    label_BV: Tensor

    def __len__(self) -> int:
        """Return the number of visits."""
        return len(self.patient_B)


def code_count(tables: Mapping[str, np.ndarray]) -> int:
    """Return how many codes all sections' entities have."""
    return sum(len(json.loads(bytes(np.asarray(tables[f"{entity}_titles"])))) for entity in SECTIONS.values())


class Collator:
    """Makes batches of rows; texts of visits that are in no table are written from titles and encoded here."""

    def __init__(self, tables: Mapping[str, np.ndarray], history: int, *, tokens: bool, codes: bool = False) -> None:
        self.tables, self.history, self.tokens, self.codes = tables, history, tokens, codes
        prefix = "tokens" if tokens else "text"
        self.of = {name: tables[f"{prefix}_{name}"] for name in (*TEXTS, MEDICATIONS)}
        self.visits, self.medications = len(self.of[ALL]), len(self.titles["medication"])

    @cached_property
    def titles(self) -> dict[str, list[str]]:
        """What members are called, by entity."""
        entities = (*SECTIONS.values(), "medication")
        return {name: json.loads(bytes(np.asarray(self.tables[f"{name}_titles"]))) for name in entities}

    @cached_property
    def encoder(self) -> Any:
        """What makes vectors, or token ids, of texts as was done with the data."""
        if self.tokens:
            return Tokens(bytes(np.asarray(self.tables["tokenizer"])).decode(), self.of[ALL].shape[1])
        return text_encoder_from(self.tables["text_encoder"])

    def __call__(self, rows: Columns) -> VisitBatch:
        """Return the batch of rows of the view `visits`, or of requests.

        Raises:
            RequestError: a row names a visit that is not there.
        """
        patient_B, visit_B = (np.array(rows[name], np.int64) for name in ("patient", "visit"))
        self._check(visit_B)
        value_BTX, present_BT = self._sections(rows, visit_B)
        earlier_BHX, earlier_BH, gap_BH, before_B = self._earlier(rows)
        vectors = torch.from_numpy(np.concatenate([value_BTX, earlier_BHX], 1))
        # What is not used has no width.
        nothing = vectors[:, :, :0]
        token_BTL, text_BTD = (vectors, nothing.float()) if self.tokens else (nothing, vectors)
        sections = len(SECTIONS)
        code_N, visit_N = self._codes(rows)
        return VisitBatch(
            patient_B=torch.from_numpy(patient_B),
            query_BD=text_BTD[:, 0],
            section_BSD=text_BTD[:, 1 : 1 + sections],
            present_BS=torch.from_numpy(present_BT[:, 1:]),
            earlier_BHD=text_BTD[:, 1 + sections :],
            earlier_BH=torch.from_numpy(earlier_BH),
            gap_BH=torch.from_numpy(gap_BH),
            token_BTL=token_BTL,
            before_B=torch.from_numpy(before_B),
            code_N=code_N,
            visit_N=visit_N,
            previous_BV=self._sets(RaggedColumn.nested(rows["earlier_medications"]).last()),
            label_BV=self._sets(RaggedColumn.of(rows["medications"])),
        )

    def _check(self, visit_B: np.ndarray) -> None:
        if len(wrong := visit_B[visit_B >= self.visits]):
            raise RequestError(f"visit {int(wrong[0])}: there are {self.visits}; leave it out for a new one")

    def _sections(self, rows: Columns, visit_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the texts of all sections and of each, (B, T, X), and which are there, (B, T)."""
        known, new = np.flatnonzero(visit_B >= 0), np.flatnonzero(visit_B < 0)
        table = self.of[ALL]
        value_BTX = np.zeros((len(visit_B), len(TEXTS), table.shape[1]), table.dtype)
        present_BT = np.zeros((len(visit_B), len(TEXTS)), bool)
        for place, name in enumerate(TEXTS):
            value_BTX[known, place] = self.of[name][visit_B[known]]
            present_BT[known, place] = self.tables[f"text_{name}_present"][visit_B[known]]
        if len(new):
            written = [self._written(rows, row) for row in new.tolist()]
            texts = [text for row in written for text in row]
            value_BTX[new] = self._encoded(texts).reshape(len(new), len(TEXTS), -1)
            present_BT[new] = [[bool(text) for text in row] for row in written]
        return value_BTX, present_BT

    def _written(self, rows: Columns, row: int) -> list[str]:
        """Return the texts of a visit that is in no table, all sections as one first."""
        parts: dict[str, list[str]] = {}
        for name, entity in SECTIONS.items():
            parts[name] = [self.titles[entity][int(code)] for code in rows[name][row]]
            free = rows.get(f"{entity}_text")
            if free is not None and (text := str(free[row] or "").strip()):
                parts[name].append(text)
        parts[ALL] = [text for name in IN_ORDER for text in parts[name]]
        return [SEPARATOR.join(parts[name]) for name in TEXTS]

    def _encoded(self, texts: list[str]) -> np.ndarray:
        values = np.asarray(self.encoder.encode(texts))
        if self.tokens:
            values = values.copy()
            values[[not text for text in texts]] = self.encoder.pad
        return values

    def _earlier(self, rows: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return medications of the last visits as text, which visits there are, days since, and how many in all.

        An earlier visit that is in no table is told by what was given then.
        """
        size = len(rows["visit"])
        table = self.of[MEDICATIONS]
        pad = self.encoder.pad if self.tokens else 0
        value_BHX = np.full((size, self.history, table.shape[1]), pad, table.dtype)
        there_BH, gap_BH = np.zeros((size, self.history), bool), np.zeros((size, self.history), np.float32)
        place, gap = RaggedColumn.of(rows["earlier"]), RaggedColumn.of(rows["gap"])
        given = RaggedColumn.nested(rows["earlier_medications"])
        self._check(np.asarray(place.flat, np.int64))
        before_B = np.maximum(place.lengths, given.lengths)
        kept_B = np.minimum(before_B, self.history)
        row_N = np.repeat(np.arange(size), kept_B)
        slot_N = np.arange(len(row_N)) - np.repeat(np.cumsum(kept_B) - kept_B, kept_B)
        number_N = slot_N + (before_B - kept_B)[row_N]
        there_BH[row_N, slot_N] = True
        gap_BH[row_N, slot_N] = _numbers(gap, row_N, number_N, 0)
        place_N = _numbers(place, row_N, number_N, -1)
        known = place_N >= 0
        value_BHX[row_N[known], slot_N[known]] = table[place_N[known]]
        new = np.flatnonzero(~known & (number_N < given.lengths[row_N]))
        if len(new):
            titles = self.titles["medication"]
            texts = [SEPARATOR.join(titles[int(c)] for c in given[row_N[n]][number_N[n]]) for n in new]
            value_BHX[row_N[new], slot_N[new]] = self._encoded(texts)
        return value_BHX, there_BH, gap_BH, before_B

    def _codes(self, rows: Columns) -> tuple[Tensor, Tensor]:
        """Return the codes of all visits, (N,), and whose they are, (N,); none where codes do not count."""
        code, visit, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for name, entity in SECTIONS.items() if self.codes else ():
            codes = RaggedColumn.of(rows[name])
            code.append(np.asarray(codes.flat, np.int64) + first)
            visit.append(codes.owners)
            first += len(self.titles[entity])
        return torch.from_numpy(np.concatenate(code)), torch.from_numpy(np.concatenate(visit))

    def _sets(self, codes: RaggedColumn) -> Tensor:
        set_BV = np.zeros((len(codes), self.medications), bool)
        set_BV[codes.owners, np.asarray(codes.flat, np.int64)] = True
        return torch.from_numpy(set_BV)


def _numbers(column: RaggedColumn, row_N: np.ndarray, number_N: np.ndarray, nothing: int) -> np.ndarray:
    """Return the value of some rows at some places, `nothing` where a row is not so long."""
    there = number_N < column.lengths[row_N]
    values = np.asarray(column.flat)
    found = np.full(len(row_N), nothing, values.dtype)
    found[there] = values[(column.offset[:-1] - column.offset[0])[row_N[there]] + number_N[there]]
    return found
