"""Generated visits with planted truth: what a patient is given follows from conditions, a trait and the past.

A patient has chronic conditions, which are treated at every visit but written down at some alone, and may have a trait.
A visit adds acute conditions. Each condition is treated by the medication of its ring that is for the patient's trait
(`rec.data.generated.pharmacy`); which of a condition's two rings it is, a patient keeps for ever. So what was written
down and given before tells more than the visit itself. Of dangerous pairs doctors mostly leave one out. Where a trait
asks for a medication that is rare, patients of training hardly ever have the condition, others as often as any: what
is right stays the same, and only the molecule tells it. The first two thirds of the patients train, the next sixth
tests, the last validates. Letters: P patients, N visits, C conditions, V medications, K codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field as Key
from pydantic import model_validator

from rec.data.generated.pharmacy import (
    FORMS,
    MOST_CONDITIONS,
    SEVERITIES,
    SUPPORT,
    TRAITS,
    Pharmacy,
    pharmacy,
)
from rec.data.generated.shards import generate_once
from rec.data.runner import part_bounds
from rec.data.schema import Events, Field, RawData, Relation, Source, Workplace
from rec.seeds import generator
from rec.strict import Strict

CHRONIC, ACUTE = 5.0, 4.0
"""Conditions of a patient, and further ones of a visit, on average."""
SECOND = 0.2
"""Share of patients whose condition is treated by its second ring."""
SYMPTOMS_EACH, SYMPTOM = 3, 0.2
"""Symptoms of a condition, and how often each is felt."""
PROCEDURE = 0.3
"""How often what is done for a condition is done."""
CARE = 0.9
"""How often a procedure is followed by the supportive medication that goes with it."""
OTHER_CODES = ("family history of cancer", "tobacco use", "screening", "long-term use of insulin", "obesity", "fall")
OTHER = 0.12
"""How often each is written down."""
LEAK = 0.02
"""Of the conditions that would ask for a rare medication, those that patients of training keep."""
DAY_S = 86_400
MEAN_GAP_DAYS = 160
FIRST_DAY = 16_000
"""Days since 1970 on which the first visit is at the earliest."""
PATIENTS_AT_ONCE = 8_192
PROCEDURES = ("operation for", "examination of", "infusion for", "injection for", "monitoring of", "drainage for",
              "biopsy for", "dialysis for")  # fmt: skip
SYLLABLES = ("fever", "cough", "nausea", "pain", "rash", "fatigue", "tremor", "swelling", "dizziness", "itching",
             "weakness", "cramps", "numbness", "sweating", "palpitations")  # fmt: skip
PLACES = ("", "at night", "in the morning", "after meals", "on exertion", "in the legs", "in the chest", "of the head")
LICENCE = "CC0 1.0: generated, of nobody"


class VisitsConfig(Strict):
    """Generated visits of patients whose medications follow known rules."""

    visits: int = Key(15_000, ge=100, le=10_000_000)
    """Visits of all patients together."""
    visits_per_patient: float = Key(2.4, ge=1, le=20)
    """On average; at least one each."""
    medications: int = Key(112, ge=16, le=1_000)
    """Medications of the pharmacy."""
    conditions: int = Key(60, ge=4, le=MOST_CONDITIONS)
    """Conditions that patients may have."""
    traits: int = Key(4, ge=1, le=len(TRAITS))
    """Kinds of patients, those without a trait included; a ring has a medication for each."""
    rare: float = Key(0.12, ge=0, le=0.5)
    """Share of medications that are rare in training, at most one of a ring."""
    noise: float = Key(0.05, ge=0, le=0.5)
    """Share of medications that are forgotten, and of others that are given without a reason."""
    coded: float = Key(0.75, ge=0, le=1)
    """Share of the visits at which a chronic condition is written down."""
    without_symptoms: float = Key(0.15, ge=0, le=1)
    """Share of visits of which no symptom is known."""
    seed: int = 0
    """Of all that is drawn."""
    shards: int = Key(8, ge=1)
    """Parts that tasks write apart."""

    @model_validator(mode="after")
    def _there_are_two_rings(self) -> Self:
        if self.medications < (least := len(SUPPORT) + 2 * self.traits):
            raise ValueError(f"medications: {self.medications}, expected at least {least} for {self.traits} traits")
        return self

    @property
    def num_patients(self) -> int:
        """How many patients are generated."""
        return max(round(self.visits / self.visits_per_patient), 6)

    def truth(self) -> Pharmacy:
        """Return what is true of conditions and medications."""
        return pharmacy(self.medications, self.conditions, self.traits, self.rare, self.seed)


class PlantedVisits(Source):
    """Patients, visits, medications, molecules."""

    Config = VisitsConfig
    config: VisitsConfig

    def open(self, place: Workplace) -> RawData:
        """Generate the visits, shard by shard; those of a job that was stopped are kept."""
        config, storage = self.config, place.storage
        generate_once(place, config, shard_tables, "visits")
        parts = []
        for name in storage.list("visits"):
            with storage.open(f"visits/{name}") as file:
                parts.append(pq.read_table(file))
        truth = config.truth()
        return RawData(
            records=Events(
                table=pa.concat_tables(parts),
                subject=Field("patient", "patient"),
                fields=(
                    Field("visit"), Field("diagnoses", "diagnosis"), Field("procedures", "procedure"),
                    Field("symptoms", "symptom"), Field("medications", "medication"),
                ),
                time="time", part="part", name="generated visits",
                texts={
                    "diagnoses": ("diagnoses",), "procedures": ("procedures",), "symptoms": ("symptoms",),
                    "medications": ("medications",), "all": ("diagnoses", "procedures", "symptoms"),
                },
            ),
            entities=entities(truth, config), relations=relations(truth), arrays=planted(truth),
            synthetic=True, generated=True, licence=LICENCE,
        )  # fmt: skip


def entities(truth: Pharmacy, config: VisitsConfig) -> dict[str, pa.Table]:
    """Return the members that visits name, and molecules."""
    code, title = codes(truth, config)
    symptom = symptoms(config)
    return {
        "diagnosis": pa.table({"id": code, "title": title}),
        "procedure": pa.table({"id": _numbered("P", config.conditions), "title": procedures(truth)}),
        "symptom": pa.table({"id": symptom, "title": symptom}),
        "medication": pa.table(
            {
                "id": list(truth.id),
                "title": list(truth.name),
                "text": pa.array(truth.description, pa.string()),
                "rare": truth.rare_V,
            }
        ),
        "molecule": pa.table(dict(zip(("id", "smiles"), zip(*_molecules(truth), strict=True), strict=True))),
    }


def relations(truth: Pharmacy) -> dict[str, Relation]:
    """Return the molecules of medications, and which medications are dangerous together."""
    number = {smiles: name for name, smiles in _molecules(truth)}
    made_of = [(truth.id[v], number[smiles]) for v, some in enumerate(truth.smiles) for smiles in some]
    danger = [(truth.id[a], truth.id[b], severity) for a, b, severity in truth.danger]
    return {
        "medication_molecule": Relation(
            table=_table(("medication", "molecule"), made_of),
            left=Field("medication", "medication"),
            right=Field("molecule", "molecule"),
        ),
        "interaction": Relation(
            table=_table(("medication", "other", "severity"), danger),
            left=Field("medication", "medication"),
            right=Field("other", "medication"),
            value="severity",
        ),
    }


def planted(truth: Pharmacy) -> dict[str, np.ndarray]:
    """Return the truth as tables of the data set: ring and trait of each medication, what is rare, what it treats."""
    return {
        "truth_ring": truth.ring_V.astype(np.int32),
        "truth_trait": truth.group_V.astype(np.int32),
        "truth_rare": truth.rare_V,
        "truth_treats": truth.treats_VC,
    }


def codes(truth: Pharmacy, config: VisitsConfig) -> tuple[list[str], list[str]]:
    """Return ids and titles of diagnoses: each condition in several forms, traits, and what tells nothing."""
    title = [form.format(name) for name in truth.condition for form in FORMS]
    code = [
        f"{chr(65 + c % 26)}{c // 26:02d}.{form}" for c in range(len(truth.condition)) for form in range(len(FORMS))
    ]
    code += _numbered("Z", config.traits - 1) + _numbered("Y", len(OTHER_CODES))
    return code, [*title, *TRAITS[1 : config.traits], *OTHER_CODES]


def procedures(truth: Pharmacy) -> list[str]:
    """Return titles of what is done for each condition."""
    return [f"{PROCEDURES[c % len(PROCEDURES)]} {name}" for c, name in enumerate(truth.condition)]


def symptoms(config: VisitsConfig) -> list[str]:
    """Return the symptoms that conditions share."""
    every = [f"{what} {where}".strip() for where in PLACES for what in SYLLABLES]
    return every[: max(config.conditions, SYMPTOMS_EACH)]


def shard_tables(config: VisitsConfig, shard: int) -> dict[str, pa.Table]:
    """Return one shard's visits."""
    truth = config.truth()
    first, last = part_bounds(config.num_patients, config.shards, shard)
    count_P = _visit_counts(config)
    begin_P = np.concatenate([[0], np.cumsum(count_P)])
    rng = generator(config.seed, "visits", shard)
    parts = []
    for start in range(first, last, PATIENTS_AT_ONCE):
        patient_P = np.arange(start, min(start + PATIENTS_AT_ONCE, last))
        people = _people(config, truth, patient_P, count_P[patient_P], rng)
        parts.append(_visits(config, truth, people, int(begin_P[start]), rng))
    return {"visits": pa.concat_tables(parts)} if parts else {}


def _visit_counts(config: VisitsConfig) -> np.ndarray:
    """Return the visits of every patient, which add up to all: one each, the others as they fall."""
    rng = generator(config.seed, "visits of patients")
    weight = rng.gamma(0.7, size=config.num_patients)
    more = rng.multinomial(max(config.visits - config.num_patients, 0), weight / weight.sum())
    return np.asarray(1 + more)


@dataclass(frozen=True, slots=True)
class People:
    """Some patients."""

    patient_P: np.ndarray
    count_P: np.ndarray
    """Visits of each."""
    part_P: np.ndarray
    trait_P: np.ndarray
    chronic_PC: np.ndarray
    medication_PC: np.ndarray
    """What would treat each condition."""
    never_PC: np.ndarray
    """Conditions that they do not get."""


def _people(
    config: VisitsConfig, truth: Pharmacy, patient_P: np.ndarray, count_P: np.ndarray, rng: np.random.Generator
) -> People:
    people, conditions = len(patient_P), len(truth.condition)
    share_P = patient_P / config.num_patients
    part_P = np.where(share_P < 2 / 3, 0, np.where(share_P < 5 / 6, 2, 1)).astype(np.int8)
    chance_T = np.full(config.traits, 0.6 / max(config.traits - 1, 1))
    chance_T[0] = 0.4 if config.traits > 1 else 1
    trait_P = rng.choice(config.traits, people, p=chance_T)
    chosen_PC = (rng.random((people, conditions), np.float32) < SECOND).astype(np.int8)
    ring_PC = np.take_along_axis(truth.ring_C2.T, chosen_PC, 0) if people else np.zeros((0, conditions), int)
    medication_PC = truth.medication_RT[ring_PC, trait_P[:, None]]
    leaks_PC = rng.random((people, conditions), np.float32) < LEAK
    never_PC = truth.rare_V[medication_PC] & (part_P == 0)[:, None] & ~leaks_PC
    chronic_PC = (rng.random((people, conditions), np.float32) < CHRONIC / conditions) & ~never_PC
    return People(patient_P, count_P, part_P, trait_P, chronic_PC, medication_PC, never_PC)


def _visits(config: VisitsConfig, truth: Pharmacy, of: People, first: int, rng: np.random.Generator) -> pa.Table:
    """Return the visits of some patients, numbered from `first`."""
    place_N = np.repeat(np.arange(len(of.patient_P)), of.count_P)
    visits, conditions = len(place_N), len(truth.condition)
    chronic_NC = of.chronic_PC[place_N]
    acute_NC = (rng.random((visits, conditions), np.float32) < ACUTE / conditions) & ~of.never_PC[place_N] & ~chronic_NC
    healthy = np.flatnonzero(~(chronic_NC | acute_NC).any(1))
    acute_NC[healthy, rng.integers(0, conditions, len(healthy))] = True
    acute_NC &= ~of.never_PC[place_N]
    done_NC = (chronic_NC | acute_NC) & (rng.random((visits, conditions), np.float32) < PROCEDURE)
    given_NV = _given(config, truth, of.medication_PC[place_N], chronic_NC | acute_NC, done_NC, rng)
    written_NC = acute_NC | (chronic_NC & (rng.random((visits, conditions), np.float32) < config.coded))
    code, title = codes(truth, config)
    number_N = np.arange(first, first + visits)
    columns: dict[str, Any] = {
        "patient": _ids("p", of.patient_P[place_N]),
        "visit": _ids("v", number_N),
        "time": _times(of, place_N, rng),
        "diagnoses": _lists(_codes(config, len(title), written_NC, of.trait_P[place_N], rng), code),
        "procedures": _lists(done_NC, _numbered("P", conditions)),
        "symptoms": _lists(_symptoms(config, chronic_NC | acute_NC, rng), symptoms(config)),
        "medications": _lists(given_NV, list(truth.id)),
        "part": pa.array(of.part_P[place_N]),
    }
    return pa.table(columns)


def _given(
    config: VisitsConfig,
    truth: Pharmacy,
    medication_NC: np.ndarray,
    active_NC: np.ndarray,
    done_NC: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return what each visit is given, bool (N, V)."""
    visits, medications = len(active_NC), len(truth.id)
    given_NV = np.zeros((visits, medications), bool)
    row, column = np.nonzero(active_NC)
    kept = rng.random(len(row)) >= config.noise
    given_NV[row[kept], medication_NC[row, column][kept]] = True
    given_NV |= rng.random((visits, medications), np.float32) < truth.share_V
    row, column = np.nonzero(done_NC)
    cared = rng.random(len(row)) < CARE
    given_NV[row[cared], truth.support_C[column[cared]]] = True
    common = np.flatnonzero(~truth.rare_V)
    others = rng.poisson(config.noise * given_NV.sum(1))
    given_NV[np.repeat(np.arange(visits), others), rng.choice(common, int(others.sum()))] = True
    for first, second, severity in truth.danger:
        both = np.flatnonzero(given_NV[:, first] & given_NV[:, second])
        careful = both[rng.random(len(both)) < SEVERITIES[severity]]
        given_NV[careful, np.where(rng.random(len(careful)) < 0.5, first, second)] = False
    given_NV[~given_NV.any(1), truth.name.index(SUPPORT[0][0])] = True
    return given_NV


def _codes(
    config: VisitsConfig, count: int, written_NC: np.ndarray, trait_N: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return what is written down at each visit, bool (N, K): something always is."""
    visits, conditions = written_NC.shape
    written_NK = np.zeros((visits, count), bool)
    row, column = np.nonzero(written_NC)
    written_NK[row, column * len(FORMS) + rng.integers(0, len(FORMS), len(row))] = True
    first = conditions * len(FORMS)
    told = np.flatnonzero(trait_N > 0)
    written_NK[told, first + trait_N[told] - 1] = True
    others = rng.random((visits, len(OTHER_CODES)), np.float32) < OTHER
    others[:, 0] |= ~(written_NK.any(1) | others.any(1))
    written_NK[:, first + config.traits - 1 :] = others
    return written_NK


def _symptoms(config: VisitsConfig, active_NC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the symptoms of each visit, bool; some conditions share them."""
    count = len(symptoms(config))
    felt = np.zeros((len(active_NC), count), bool)
    row, column = np.nonzero(active_NC)
    for place in range(SYMPTOMS_EACH):
        there = rng.random(len(row)) < SYMPTOM
        felt[row[there], (column[there] * (2 * place + 1) + 11 * place) % count] = True
    felt[rng.random(len(felt)) < config.without_symptoms] = False
    return felt


def _times(of: People, place_N: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """Return when visits are, in seconds: a patient's in order."""
    gap_N = rng.exponential(MEAN_GAP_DAYS, len(place_N)) + 1
    start_N = np.repeat(np.cumsum(of.count_P) - of.count_P, of.count_P)
    since_N = np.cumsum(gap_N)
    since_N -= since_N[start_N] if len(start_N) else 0
    day_P = FIRST_DAY + rng.integers(0, 1_000, len(of.patient_P))
    return pa.array(((day_P[place_N] + since_N) * DAY_S).astype(np.int64))


def _lists(chosen: np.ndarray, names: list[str]) -> pa.Array:
    """Return the names of the columns that are true, a list per row."""
    row, column = np.nonzero(chosen)
    offset = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(chosen)))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offset), pa.array(names, pa.string()).take(pa.array(column)))


def _ids(letter: str, number: np.ndarray) -> pa.Array:
    return pa.array(np.char.add(letter, number.astype(str)), pa.string())


def _numbered(letter: str, count: int) -> list[str]:
    return [f"{letter}{number + 1:03d}" for number in range(count)]


def _molecules(truth: Pharmacy) -> list[tuple[str, str]]:
    """Return every molecule once: id and SMILES."""
    every = dict.fromkeys(smiles for some in truth.smiles for smiles in some)
    return [(f"m{number + 1:04d}", smiles) for number, smiles in enumerate(every)]


def _table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> pa.Table:
    return pa.table({name: pa.array([row[n] for row in rows], pa.string()) for n, name in enumerate(names)})
