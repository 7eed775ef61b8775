"""Metrics of sets on the two demo cohorts: their own interaction rates and the popularity baseline."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from rec.evaluation.tasks.sets import Sets
from rec.evaluation.tasks.sets.baselines import COMMON
from rec.evaluation.tasks.sets.metrics import ddi_rate, interacting_pairs, per_visit, summary
from rec.evaluation.tasks.values import MetricValue
from tests.unit.evaluation.tasks.sets.test_task import Told, Visits

pytestmark = pytest.mark.data


class Cohort(NamedTuple):
    """The visits file of a cohort and the columns a visit must have."""

    file: str
    needed: tuple[str, str]


COHORTS = {
    "mimic": Cohort("mimic3_demo_visits.parquet", ("diag_codes", "proc_codes")),
    "eicu": Cohort("eicu_demo_visits.parquet", ("diag_texts", "treatment_texts_noleak")),
}


def interactions(medication: Path, codes: list[str]) -> np.ndarray:
    index = {code: number for number, code in enumerate(codes)}
    interaction_VV = np.zeros((len(codes), len(codes)), bool)
    for one, other in pd.read_csv(medication / "ddi" / "union_ddi_pairs_atc3.csv").itertuples(index=False):
        if one in index and other in index:
            interaction_VV[index[one], index[other]] = interaction_VV[index[other], index[one]] = True
    return interaction_VV


def multi_hot(sets: list[set[str]], codes: list[str]) -> np.ndarray:
    return np.array([[code in held for code in codes] for held in sets])


TRUE_RATES = [
    ("mimic", "all", 0.0766, 19_853, 106),
    ("mimic", "interactions", 0.0783, 19_424, 99),
    ("mimic", "molecules", 0.0780, 19_058, 94),
    ("eicu", "all", 0.0673, 192_539, 79),
    ("eicu", "interactions", 0.0872, 148_636, 70),
    ("eicu", "molecules", 0.0790, 142_701, 68),
]


@pytest.mark.parametrize(("cohort", "kept", "rate", "pairs", "num_codes"), TRUE_RATES)
def test_true_interaction_rate(
    medication: Path, cohort: str, kept: str, rate: float, pairs: int, num_codes: int
) -> None:
    visits = pd.read_parquet(medication / "derived" / COHORTS[cohort].file)
    held = [set(codes) for codes in visits.med_atc3]
    if kept == "interactions":
        vocabularies = medication.glob("ddi/*_med_vocab.json")
        allowed = set().union(*(pd.read_json(path, typ="series").tolist() for path in vocabularies))
        assert len(allowed) == 123
        held = [codes & allowed for codes in held]
    elif kept == "molecules":
        molecules = pd.read_json(medication / "molecules" / "safedrug_master_atc3_to_smiles.json", typ="series")
        held = [codes & set(molecules.index) for codes in held]
    codes = sorted(set().union(*held))
    assert len(codes) == num_codes
    value = ddi_rate(interacting_pairs(multi_hot(held, codes), interactions(medication, codes)).sum(0))
    assert value.count == pairs
    assert value.value == pytest.approx(rate, abs=5e-5)


def popularity(medication: Path, cohort: Cohort) -> tuple[dict[str, MetricValue], set[str], np.ndarray]:
    """Return the baseline's metrics on the test visits, the codes it predicts and the sizes of (train, test)."""
    visits = pd.read_parquet(medication / "derived" / cohort.file)
    catalogue = pd.read_parquet(medication / "derived" / "atc_drug_catalog.parquet")
    approved = catalogue[catalogue.smiles.notna() & catalogue.groups.fillna("").str.contains("approved")]
    visits["held"] = [set(codes) & set(approved.atc3) for codes in visits.med_atc3]
    visits = visits[[all(len(v) for v in row) for row in visits[["held", *cohort.needed]].to_numpy()]]
    patients = list(dict.fromkeys(visits.patient_id))
    random.Random(0).shuffle(patients)
    train_end = int(2 * len(patients) / 3)
    test_end = train_end + int((len(patients) - train_end) / 2)
    train = visits[visits.patient_id.isin(patients[:train_end])]
    test = visits[visits.patient_id.isin(patients[train_end:test_end])]

    codes = sorted(set().union(*visits.held))
    share_V = multi_hot(list(train.held), codes).mean(0)
    true_NV = multi_hot(list(test.held), codes)
    score_NV = np.broadcast_to(share_V, true_NV.shape)
    column = per_visit(true_NV, score_NV, interaction_VV=interactions(medication, codes))
    check_task(train, test, codes, interactions(medication, codes), summary(column, test.patient_id.to_numpy()))
    predicted = {code for code, share in zip(codes, share_V, strict=True) if share >= 0.5}
    return summary(column, test.patient_id.to_numpy()), predicted, np.array([len(train), len(test)])


def check_task(
    train: pd.DataFrame,
    test: pd.DataFrame,
    codes: list[str],
    interaction_VV: np.ndarray,
    wanted: dict[str, MetricValue],
) -> None:
    """Assert that the task's own popularity by the field's rule has these metrics."""

    def batches(split: str) -> Iterator[Visits]:
        found = train if split == "train" else test
        patient_N = pd.factorize(found.patient_id)[0]
        true_NV = multi_hot(list(found.held), codes)
        for rows in np.array_split(np.arange(len(found)), 3):
            nothing = torch.zeros(len(rows), len(codes), dtype=torch.bool)
            patient_B, true_BV = torch.from_numpy(patient_N[rows]), torch.from_numpy(true_NV[rows])
            yield Visits(patient_B=patient_B, score_BV=nothing.float(), true_BV=true_BV, previous_BV=nothing)

    found = Sets().baselines(Told(interaction_VV), None, "test", batches)[COMMON]  # type: ignore[arg-type]
    assert found == pytest.approx({name: value.value for name, value in wanted.items()})


BASELINE = {
    "mimic": {
        "patient": (0.3831, 0.5497, 0.7048),
        "visit": (0.3651, 0.5303, 0.6987),
        "truth": (0.0891, 19.57),
        "codes": "A01A A02B A06A A12B A12C B01A B05C C07A N02A N02B",
        "visits": (64, 28),
    },
    "eicu": {
        "patient": (0.3538, 0.5125, 0.6542),
        "visit": (0.3495, 0.5069, 0.6465),
        "truth": (0.0771, 15.41),
        "codes": "A02B A04A A06A A12B B01A B05B B05X C07A N02A N02B",
        "visits": (665, 155),
    },
}


@pytest.mark.parametrize("cohort", ["mimic", "eicu"])
def test_popularity_baseline(medication: Path, cohort: str) -> None:
    values, predicted, visits = popularity(medication, COHORTS[cohort])
    known = BASELINE[cohort]
    assert tuple(visits) == known["visits"]
    assert predicted == set(str(known["codes"]).split())
    for unit in ("patient", "visit"):
        got = [values[f"{name}_{unit}"].value for name in ("jaccard", "f1", "prauc")]
        assert got == pytest.approx(known[unit], abs=5e-5)
    assert values["ddi_rate"].value == pytest.approx(2 / 45)
    assert values["medications"].value == 10
    assert values["true_ddi_rate"].value == pytest.approx(known["truth"][0], abs=5e-5)
    assert values["true_medications"].value == pytest.approx(known["truth"][1], abs=5e-3)
