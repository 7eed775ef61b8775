"""A set predictor as someone outside the package would write it: which medications a visit is given.

Each medication is a molecule with a fingerprint. A visit's codes say which properties are needed; molecules that have
them are given, unless a better one interacts. Letters: B visits to answer, V molecules, C codes, F bits, D width.

TOML and data below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field as Key
from torch import Tensor, nn

from rec.batch import Batch, Column, Columns
from rec.data.schema import Events, Field, RawData, Source, Workplace
from rec.data.views.view import SPLITS, Making, View
from rec.evaluation.tasks.sets import Sets
from rec.evaluation.tasks.sets.filters import Filter, filtered
from rec.seeds import generator
from rec.strict import Strict
from rec.systems.api import System
from rec.systems.capabilities import SetPredictor
from rec.terms import Term

TOML = """
system = "tests.guests.sets_guest:Prescriber"
out = "run"

[model]
width = 24

[data]
root = "data"
source = "tests.guests.sets_guest:Cohort"
split = { protocol = "given" }
shard_rows = 64

[train]
batch_size = 32
epochs = 12
learning_rate = 0.02

[evaluate]
bootstrap = 200

[tune]
trials = 2
scheduler = "none"

[tune.space]
"model.width" = { choice = [8, 24] }

[expect]
jaccard_patient = 0.55
"""
LICENCE = "CC0 1.0, generated"
PATIENTS, CODES, MOLECULES, BITS, MOST_VISITS = 260, 30, 24, 12, 4


class CohortConfig(Strict):
    """The keys of `[data.read]`."""

    patients: int = Key(PATIENTS, ge=1)
    seed: int = 0


class Cohort(Source):
    """Generated patients: the first 70 % train, then 15 % validate, the rest test."""

    Config = CohortConfig
    config: CohortConfig

    def open(self, place: Workplace) -> RawData:
        return cohort(self.config.patients, self.config.seed)


def cohort(patients: int, seed: int) -> RawData:
    """Return generated visits and what is known of molecules."""
    rng = generator(seed, "prescriptions")
    fingerprint_VF = (rng.random((MOLECULES, BITS)) < 0.35).astype(np.float32)
    need_CF = (rng.random((CODES, BITS)) < 0.15).astype(np.float32)
    drawn_VV = np.triu(rng.random((MOLECULES, MOLECULES)) < 0.08, 1)
    interaction_VV = drawn_VV | drawn_VV.T
    rows: list[dict[str, Any]] = []
    for patient in range(patients):
        part = 0 if patient < 0.7 * patients else 1 if patient < 0.85 * patients else 2
        chronic = rng.choice(CODES, 2, replace=False)
        visits: list[list[int]] = []
        given: list[int] = []
        for _ in range(int(rng.integers(1, MOST_VISITS + 1))):
            visits.append(sorted({*chronic.tolist(), *rng.choice(CODES, 2, replace=False).tolist()}))
            given = prescription(visits[-1], need_CF, fingerprint_VF, interaction_VV)
            row = {"patient": f"patient {patient}", "codes": [f"code {code}" for code in visits[-1]]}
            rows.append({**row, "given": [f"molecule {molecule}" for molecule in given], "part": part})
    text = pa.list_(pa.string())
    schema = pa.schema([("patient", pa.string()), ("codes", text), ("given", text), ("part", pa.int8())])
    kinds = {"patient": patients, "code": CODES, "molecule": MOLECULES}
    return RawData(
        records=Events(
            table=pa.Table.from_pylist(rows, schema=schema),
            subject=Field("patient", "patient"),
            fields=(Field("codes", "code"), Field("given", "molecule")),
            part="part",
            name="generated visits",
        ),
        entities={name: pa.table({"id": [f"{name} {i}" for i in range(count)]}) for name, count in kinds.items()},
        arrays={"fingerprint": fingerprint_VF, "interaction": interaction_VV},
        synthetic=True,
        licence=LICENCE,
    )


class VisitRows(View):
    """Rows: a visit with the patient's codes so far, this visit's last, what was given the time before and is now."""

    name = "visits"

    def make(self, making: Making) -> None:
        rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        patient, visits, given = -1, [], []
        for event in making.records().to_pylist():
            if event["patient"] != patient:
                patient, visits, given = event["patient"], [], []
            visits.append(event["codes"])
            before, given = given, event["given"]
            row = {"patient": patient, "visits": list(visits), "previous": before, "given": given}
            rows[SPLITS[event["part"]]].append(row)
        number = pa.list_(pa.int64())
        schema = pa.schema(
            [("patient", pa.int64()), ("visits", pa.list_(number)), ("previous", number), ("given", number)]
        )
        for split, found in rows.items():
            making.rows(split, pa.Table.from_pylist(found, schema=schema), making.shard_rows)


def prescription(
    codes: list[int], need_CF: np.ndarray, fingerprint_VF: np.ndarray, interaction_VV: np.ndarray
) -> list[int]:
    """Return the molecules that fit best what a visit needs, without those that interact with a better one."""
    fit_V = fingerprint_VF @ need_CF[codes].sum(0) / np.sqrt(1 + fingerprint_VF.sum(1))
    kept: list[int] = []
    for molecule in np.argsort(-fit_V, kind="stable")[:5].tolist():
        if fit_V[molecule] > 0 and not interaction_VV[molecule, kept].any():
            kept.append(molecule)
    return sorted(kept)


class Config(Strict):
    """The keys of `[model]`."""

    width: int = Key(24, ge=1)
    """Numbers of a vector."""
    filter: Filter = "none"
    """What takes interacting molecules out of a set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits(Batch):
    """Some visits, each with those before it."""

    patient_B: Tensor
    code_N: Tensor
    """The codes of the visits to answer, one after the other ..."""
    owner_N: Tensor
    """... and whose they are."""
    earlier_M: Tensor
    earlier_owner_M: Tensor
    earlier_visit_M: Tensor
    """Which of the patient's earlier visits has each code, the oldest is 0."""
    earlier_B: Tensor
    previous_BV: Tensor
    given_BV: Tensor

    def __len__(self) -> int:
        return len(self.patient_B)


class PrescriberModel(nn.Module):
    """What codes need, matched with what fingerprints offer."""

    def __init__(self, width: int, fingerprint_VF: Tensor) -> None:
        super().__init__()
        self.fingerprint_VF: Tensor
        self.register_buffer("fingerprint_VF", fingerprint_VF)
        self.now, self.before = nn.Embedding(CODES, width), nn.Embedding(CODES, width)
        self.mix = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.offer = nn.Linear(fingerprint_VF.shape[1], width)
        self.own = nn.Embedding(len(fingerprint_VF), width)
        self.bias_V = nn.Parameter(torch.full((len(fingerprint_VF),), -1.5))

    def needs(self, batch: Visits) -> Tensor:
        """Return what each visit needs, (B, D)."""
        width = self.now.embedding_dim
        now_BD = self.bias_V.new_zeros(len(batch), width).index_add(0, batch.owner_N, self.now(batch.code_N))
        before_BD = self.bias_V.new_zeros(len(batch), width)
        before_BD = before_BD.index_add(0, batch.earlier_owner_M, self.before(batch.earlier_M))
        need_BD: Tensor = self.mix(torch.cat([now_BD, before_BD], 1)) + now_BD
        return need_BD

    def molecules(self) -> Tensor:
        """Return what each molecule offers, (V, D)."""
        offered_VD: Tensor = self.offer(self.fingerprint_VF) + self.own.weight
        return offered_VD

    def forward(self, batch: Visits) -> Tensor:
        """Return the score of every molecule for every visit, (B, V)."""
        return self.needs(batch) @ self.molecules().T / self.now.embedding_dim**0.5 + self.bias_V


class Prescriber(System[Visits, PrescriberModel], SetPredictor[Visits, PrescriberModel]):
    """Predicts the medications of a visit from its codes, those of earlier visits, and the molecules' fingerprints."""

    Config = Config
    columns = (
        Column("patient", "int64", entity="patient", optional=True),
        Column("visits", "int64", (-1, -1), entity="code"),
        Column("previous", "int64", (-1,), entity="molecule", optional=True),
        Column("given", "int64", (-1,), label=True, entity="molecule"),
    )
    tables = ("fingerprint", "interaction")
    view = "tests.guests.sets_guest:VisitRows"
    tasks = (Sets(),)
    entity = "molecule"
    notice = "Generated data; no medical advice."

    def model(self) -> PrescriberModel:
        """Return a freshly initialised model."""
        return PrescriberModel(self.config.width, torch.from_numpy(np.array(self.static["fingerprint"])))

    def collate(self, rows: Columns) -> Visits:
        """Return the batch for these rows."""
        visits = [[np.asarray(codes, np.int64) for codes in row] for row in rows["visits"]]
        last = [row[-1] if len(row) else np.zeros(0, np.int64) for row in visits]
        earlier = [np.concatenate([np.zeros(0, np.int64), *row[:-1]]) for row in visits]
        number = [np.repeat(np.arange(len(row[:-1])), [len(codes) for codes in row[:-1]]) for row in visits]
        size = len(self.static["fingerprint"])
        code_N, owner_N = _flat(last)
        earlier_M, earlier_owner_M = _flat(earlier)
        return Visits(
            patient_B=torch.tensor(np.asarray(rows["patient"], np.int64)),
            code_N=code_N,
            owner_N=owner_N,
            earlier_M=earlier_M,
            earlier_owner_M=earlier_owner_M,
            earlier_visit_M=_flat(number)[0],
            earlier_B=torch.tensor([max(len(row) - 1, 0) for row in visits]),
            previous_BV=_sets(rows["previous"], size),
            given_BV=_sets(rows["given"], size),
        )

    def loss(self, model: Callable[[Visits], Any], batch: Visits) -> dict[str, Term]:
        """Return the cross entropy of every molecule, and a term that keeps interacting ones apart."""
        score_BV = model(batch)
        wanted_BV = batch.given_BV.to(score_BV.dtype)
        total = nn.functional.binary_cross_entropy_with_logits(score_BV, wanted_BV, reduction="sum")
        probability_BV = score_BV.sigmoid()
        interaction_VV = torch.from_numpy(np.array(self.static["interaction"])).to(score_BV)
        together = ((probability_BV @ interaction_VV) * probability_BV).sum()
        return {"given": Term(total, wanted_BV.numel()), "interacting": Term(together, len(batch), 0.005)}

    def probabilities(self, module: PrescriberModel, batch: Visits) -> Tensor:
        """Return the probability of every molecule, (B, V)."""
        return module(batch).sigmoid()

    def labels(self, batch: Visits) -> Tensor:
        """Return which molecules are given, (B, V) bool."""
        return batch.given_BV

    def subjects(self, batch: Visits) -> Tensor:
        """Return each visit's patient, (B,)."""
        return batch.patient_B

    def interactions(self) -> np.ndarray:
        """Return which molecules interact, (V, V)."""
        return np.asarray(self.static["interaction"])

    def previous(self, batch: Visits) -> Tensor:
        """Return what the visit before was given, (B, V) bool."""
        return batch.previous_BV

    def earlier(self, batch: Visits) -> Tensor:
        """Return how many earlier visits each patient has, (B,)."""
        return batch.earlier_B

    def severities(self) -> dict[tuple[int, int], str]:
        """Return how bad interactions are: major where the two molecules share many properties."""
        fingerprint_VF, interaction_VV = (np.asarray(self.static[name]) for name in self.tables)
        shared_VV = fingerprint_VF @ fingerprint_VF.T
        pairs = zip(*np.nonzero(np.triu(interaction_VV)), strict=True)
        return {(int(a), int(b)): "major" if shared_VV[a, b] >= 2 else "moderate" for a, b in pairs}

    def chosen(self, score_BV: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
        """Return the molecules that each visit is given, (B, V)."""
        return filtered(score_BV, threshold, self.interactions(), self.config.filter)

    def embeddings(self, module: PrescriberModel, batch: Visits) -> tuple[Tensor, Tensor]:
        """Return what visits need, (B, D), and what molecules offer, (V, D)."""
        return module.needs(batch), module.molecules()

    def reasons(self, module: PrescriberModel, batch: Visits) -> list[dict[str, Any]]:
        """Return how much of what goes in came from this visit, and from which of the earlier ones, by length."""
        found = []
        for row in range(len(batch)):
            own = float(module.now(batch.code_N[batch.owner_N == row]).sum(0).norm())
            mine_M = batch.earlier_owner_M == row
            weights = [
                float(module.before(batch.earlier_M[mine_M & (batch.earlier_visit_M == visit)]).sum(0).norm())
                for visit in range(int(batch.earlier_B[row]))
            ]
            total = (own + sum(weights)) or 1.0
            told = [{"visit": visit, "weight": weight / total} for visit, weight in enumerate(weights)]
            missing = [] if (batch.owner_N == row).any() else ["codes of this visit"]
            found.append({"sections": {"codes": own / total}, "earlier": told, "missing": missing})
        return found

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""

        def some(most: int, size: int) -> np.ndarray:
            return rng.choice(most, size, replace=False).astype(np.int64)

        columns = {
            "patient": np.arange(rows, dtype=np.int64),
            "visits": [[some(CODES, 3) for _ in range(1 + row % 3)] for row in range(rows)],
            "previous": [some(MOLECULES, row % 3) for row in range(rows)],
            "given": [some(MOLECULES, 1 + row % 4) for row in range(rows)],
        }
        drawn_VV = np.triu(rng.random((MOLECULES, MOLECULES)) < 0.2, 1)
        fingerprint_VF = (rng.random((MOLECULES, BITS)) < 0.4).astype(np.float32)
        return columns, {"fingerprint": fingerprint_VF, "interaction": drawn_VV | drawn_VV.T}


def _flat(parts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts])), torch.from_numpy(owner)


def _sets(parts: Any, size: int) -> Tensor:
    flat, owner = _flat([np.asarray(part, np.int64) for part in parts])
    set_BV = torch.zeros(len(parts), size, dtype=torch.bool)
    set_BV[owner, flat] = True
    return set_BV
