"""Generated visits: what is planted can be found, and is the same wherever it is made."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from rec.data.config import DataConfig
from rec.data.generated.pharmacy import GROUPS, RINGS, SUPPORT, TRAITS, pharmacy, scaffold
from rec.data.generated.visits import FORMS, VisitsConfig, codes, shard_tables, symptoms
from rec.data.molecules import graphs
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from tests.support.own import quiet

SMALL = {"visits": 6_000, "medications": 60, "conditions": 40, "shards": 3}
TRAIN, VALIDATION, TEST = range(3)


@cache
def table_of(**keys: Any) -> pa.Table:
    config = VisitsConfig(**(SMALL | keys))
    return pa.concat_tables([shard_tables(config, shard)["visits"] for shard in range(config.shards)])


def matrix(table: pa.Table, column: str, names: list[str] | tuple[str, ...]) -> np.ndarray:
    """Return which names each row of a column of lists holds, bool (rows, names)."""
    length = pc.list_value_length(table[column]).to_numpy()
    place = pc.index_in(pc.list_flatten(table[column]), value_set=pa.array(list(names))).to_numpy()
    found = np.zeros((len(table), len(names)), bool)
    found[np.repeat(np.arange(len(table)), length), place] = True
    return found


def test_visits_are_as_many_as_asked_for_and_of_one_split_per_patient() -> None:
    table = table_of()
    assert len(table) == SMALL["visits"]
    assert table["visit"].to_pylist() == [f"v{n}" for n in range(len(table))]
    patients = table.group_by("patient").aggregate([("part", "count_distinct"), ("time", "min"), ("part", "min")])
    assert patients["part_count_distinct"].to_pylist() == [1] * len(patients)
    share = np.bincount(patients["part_min"].to_numpy()) / len(patients)
    np.testing.assert_allclose(share, [2 / 3, 1 / 6, 1 / 6], atol=0.01)
    assert len(patients) == round(SMALL["visits"] / 2.4)


def test_visits_of_a_patient_are_in_the_order_of_time_and_have_a_diagnosis_and_a_medication() -> None:
    table = table_of()
    patient, time = table["patient"].to_numpy(), table["time"].to_numpy()
    same = patient[1:] == patient[:-1]
    assert (np.diff(time)[same] > 0).all()
    for column in ("diagnoses", "medications"):
        assert pc.min(pc.list_value_length(table[column])).as_py() >= 1
    without = pc.mean(pc.equal(pc.list_value_length(table["symptoms"]), 0)).as_py()
    assert 0.15 < without < 0.4
    assert pc.min(pc.list_value_length(table["procedures"])).as_py() == 0


@pytest.mark.parametrize("keys", [{}, {"seed": 1}, {"visits": 700, "shards": 2}])
def test_the_same_keys_give_the_same_visits(keys: dict[str, Any]) -> None:
    config = VisitsConfig(**(SMALL | keys))
    again = shard_tables(config, 1)["visits"]
    assert again.equals(shard_tables(config, 1)["visits"])
    other = VisitsConfig(**(SMALL | keys | {"seed": 7}))
    assert not again.equals(shard_tables(other, 1)["visits"])


def test_every_structure_can_be_read_and_a_ring_is_told_from_others() -> None:
    truth = VisitsConfig(medications=1_000).truth()
    smiles = [one for some in truth.smiles for one in some]
    assert graphs(smiles).unreadable == []
    every = [scaffold(ring).format(a=group, b="C") for ring in range(len(RINGS) + 40) for group in GROUPS]
    assert graphs(every).unreadable == []
    assert len(set(every)) == len(every)


def test_supportive_medications_are_salts_single_atoms_and_one_without_a_molecule() -> None:
    truth = VisitsConfig().truth()
    assert len(truth.id) == 112 == len(set(truth.id)) == len(set(truth.name))
    support = np.flatnonzero(truth.ring_V < 0)
    assert {truth.name[v] for v in support} == {name for name, _, _ in SUPPORT}
    assert [truth.name[v] for v in support if not truth.smiles[v]] == ["insulin-like peptide"]
    assert {truth.smiles[v] for v in support} >= {("[Li+]",), ("O",), ("[Na+].[Cl-]",)}
    assert all(1 <= len(truth.smiles[v]) <= 3 for v in np.flatnonzero(truth.ring_V >= 0))
    mean = np.mean([len(some) for some in truth.smiles])
    assert 2 < mean < 2.6  # 2.40 of the published medications


def test_a_medication_is_given_for_the_condition_of_its_ring_and_the_trait_of_its_group() -> None:
    config = VisitsConfig(**SMALL)
    truth, table = config.truth(), table_of()
    code, title = codes(truth, config)
    given_NV, coded_NK = matrix(table, "medications", truth.id), matrix(table, "diagnoses", code)
    has_NC = coded_NK[:, : config.conditions * len(FORMS)].reshape(len(table), config.conditions, -1).any(2)
    trait_N = np.zeros(len(table), int)
    for trait in range(1, config.traits):
        trait_N[coded_NK[:, title.index(TRAITS[trait])]] = trait
    for condition in range(0, config.conditions, 7):
        first = truth.ring_C2[condition, 0]
        for trait in range(config.traits):
            chosen, medication = has_NC[:, condition] & (trait_N == trait), truth.medication_RT[first, trait]
            if truth.rare_V[medication] or chosen.sum() < 30:
                continue
            others = given_NV[trait_N != trait, medication].mean()
            assert given_NV[chosen, medication].mean() > 0.35 > 0.1 > others


def test_rare_medications_are_rare_in_training_alone_and_one_of_their_ring_is_common() -> None:
    config = VisitsConfig(**SMALL)
    truth, part = config.truth(), table_of()["part"].to_numpy()
    given_NV = matrix(table_of(), "medications", truth.id)
    train_V, test_V = given_NV[part == TRAIN].mean(0), given_NV[part == TEST].mean(0)
    rare = np.flatnonzero(truth.rare_V)
    assert len(rare) == round(0.12 * (truth.ring_V >= 0).sum())
    assert len(set(truth.ring_V[rare])) == len(rare)
    assert train_V[rare].max() < 0.1 * test_V[rare].mean()
    same_V = train_V[(truth.ring_V >= 0) & ~truth.rare_V] / test_V[(truth.ring_V >= 0) & ~truth.rare_V]
    assert 0.5 < np.median(same_V) < 2
    for medication in rare:
        fellows = (truth.ring_V == truth.ring_V[medication]) & ~truth.rare_V
        assert train_V[fellows].max() > 10 * train_V[medication]


def test_what_a_rare_medication_treats_is_told_by_its_molecule_alone() -> None:
    truth = VisitsConfig().truth()
    told = [text or "" for text in truth.description]
    rare = np.flatnonzero(truth.rare_V)
    assert not any(name in told[v] for v in rare for name in truth.condition)
    common = [v for v in np.flatnonzero((truth.ring_V >= 0) & ~truth.rare_V) if "indicated" in told[v]]
    assert 0.3 < len(common) / (truth.ring_V >= 0).sum() < 0.7
    for v in common:
        named = {name for name in truth.condition if name in re.findall(r"\w+", told[v])}
        assert named == {truth.condition[c] for c in np.flatnonzero(truth.treats_VC[v])}
    assert None in truth.description


def test_doctors_mostly_avoid_dangerous_pairs_by_their_severity() -> None:
    truth = VisitsConfig(**SMALL).truth()
    given_NV = matrix(table_of(), "medications", truth.id).astype(float)
    together_VV, share_V = given_NV.T @ given_NV, given_NV.mean(0)
    expected: dict[str, float] = {}
    found: dict[str, float] = {}
    for a, b, severity in truth.danger:
        assert a < b
        expected[severity] = expected.get(severity, 0) + share_V[a] * share_V[b] * len(given_NV)
        found[severity] = found.get(severity, 0) + together_VV[a, b]
    ratio = {severity: found[severity] / expected[severity] for severity in expected}
    assert ratio["contraindicated"] < ratio["major"] < ratio["moderate"] < 1
    assert ratio["contraindicated"] < 0.15
    assert len({(a, b) for a, b, _ in truth.danger}) == len(truth.danger)


def test_history_tells_what_is_not_written_down() -> None:
    config = VisitsConfig(**(SMALL | {"visits_per_patient": 6}))
    truth, table = config.truth(), table_of(visits_per_patient=6)
    given_NV = matrix(table, "medications", truth.id)
    patient = table["patient"].to_numpy()
    again = np.flatnonzero(patient[1:] == patient[:-1]) + 1
    ring = truth.ring_V >= 0
    kept = given_NV[again - 1][:, ring] & given_NV[again][:, ring]
    shuffled = given_NV[np.roll(again, len(again) // 2)][:, ring] & given_NV[again][:, ring]
    assert kept.sum() > 3 * shuffled.sum()
    written = matrix(table, "diagnoses", codes(truth, config)[0])[:, : config.conditions * len(FORMS)]
    has_NC = written.reshape(len(table), config.conditions, -1).any(2)
    explained_NV = (has_NC.astype(int) @ truth.treats_VC.T.astype(int)) > 0
    unexplained = given_NV[again] & ~explained_NV[again]
    before = given_NV[again - 1]
    assert (unexplained & before)[:, ring].sum() > 0.3 * unexplained[:, ring].sum()


def test_noise_forgets_and_adds_and_a_share_of_visits_has_no_symptom() -> None:
    quietly = table_of(noise=0.0, without_symptoms=0.0)
    loudly = table_of(noise=0.4, without_symptoms=0.9)
    config = VisitsConfig(**SMALL)
    for table, low, high in ((quietly, 0, 0.25), (loudly, 0.85, 1)):
        share = 1 - matrix(table, "symptoms", symptoms(config)).any(1).mean()
        assert low <= share <= high
    truth = config.truth()
    given = [matrix(table, "medications", truth.id)[:, truth.rare_V].mean() for table in (quietly, loudly)]
    assert given[1] < given[0]  # rare ones are never given without a reason


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"medications": 15}, "medications"),
        ({"medications": 16, "traits": 8}, "expected at least 24 for 8 traits"),
        ({"conditions": 201}, "conditions"),
        ({"patients": 5}, "patients"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VisitsConfig(**keys)


@pytest.mark.parametrize(("medications", "traits"), [(16, 4), (17, 1), (112, 4), (121, 8), (333, 5)])
def test_there_are_as_many_medications_as_asked_for(medications: int, traits: int) -> None:
    truth = pharmacy(medications, 20, traits, 0.1, 0)
    assert len(truth.id) == len(truth.smiles) == len(truth.description) == medications
    assert sorted(truth.medication_RT.ravel().tolist()) == np.flatnonzero(truth.ring_V >= 0).tolist()
    assert truth.ring_C2.max() < len(truth.medication_RT)
    assert (truth.ring_C2[:, 0] != truth.ring_C2[:, 1]).all()


def test_a_data_set_of_visits_has_its_truth_texts_and_molecules(tmp_path: Path) -> None:
    data = made(tmp_path)
    manifest = data.manifest
    assert manifest["generated"]
    assert manifest["licence"].startswith("CC0 1.0")
    assert manifest["counts"]["interactions"] == manifest["counts"]["interactions_read"] == 500
    assert data.entities["medication"].count == 60
    assert data.array("truth_rare").sum() == round(0.12 * (data.array("truth_ring") >= 0).sum())
    assert data.array("truth_treats").shape == (60, 40)
    for name in ("diagnoses", "procedures", "symptoms", "medications", "all"):
        assert data.array(f"text_{name}").shape == (500, 32)
    owners = np.unique(data.array("molecule_atom_owner"))
    assert len(owners) == data.entities["molecule"].count
    pairs = data.array("medication_molecule_pairs")
    without = set(range(60)) - set(pairs[:, 0].tolist())
    assert [data.entity("medication")["title"][v].as_py() for v in without] == ["insulin-like peptide"]
    assert sum(data.split_rows(split) for split in ("train", "val", "test")) == 500


def made(root: Path) -> Prepared:
    keys = SMALL | {"visits": 500}
    table = {"root": str(root), "source": "rec.data.generated.visits:PlantedVisits", "read": keys}
    table |= {"split": {"protocol": "given"}, "encode": {"text": {"encoder": "hashing", "width": 32, "tokenizer": ""}}}
    return prepare(DataConfig.model_validate(table), InProcess(), quiet).seen_as("visits")
