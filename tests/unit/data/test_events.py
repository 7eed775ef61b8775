"""Events with texts, relations and molecules as tables of a data set."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rec.data.config import DataConfig
from rec.data.encoders import text_encoder_from
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.data.schema import Events, Field, RawData, Source, Workplace
from rec.errors import ConfigError, DataError
from rec.strict import Strict
from tests.support.clinic import clinic
from tests.support.own import quiet

VISITS = ["v1", "v2", "v8", "v9", "v3", "v6", "v4", "v5"]
DIAGNOSES = [
    "fever", "high blood pressure; d3", "d3", "fever; high blood pressure", "fever", "", "d4", "high blood pressure"
]  # fmt: skip
ALL = [
    "fever", "high blood pressure; d3; s2; s1", "d3; s1", "fever; high blood pressure; s1", "fever; s1", "s2",
    "d4; s2", "high blood pressure",
]  # fmt: skip


def made(root: Path, say: Any = quiet, **sections: Any) -> Prepared:
    table = {"root": str(root), "source": "tests.support.clinic:Clinic", "split": {"protocol": "given"}, **sections}
    return prepare(DataConfig.model_validate(table), InProcess(), say)


def encode(encoder: str = "tfidf", tokenizer: str = "", **keys: Any) -> dict[str, Any]:
    width = {"width": 16} if encoder in ("tfidf", "hashing") else {}
    return {"shard_items": 3, "text": {"encoder": encoder, "tokenizer": tokenizer, **width, **keys}}


def words(data: Prepared, name: str) -> list[str]:
    return json.loads(data.array(name).tobytes())


@pytest.mark.parametrize("encoder", ["tfidf", "hashing"])
@pytest.mark.parametrize(("name", "texts"), [("diagnoses", DIAGNOSES), ("all", ALL)])
def test_texts_are_of_the_records_in_their_order(tmp_path: Path, encoder: str, name: str, texts: list[str]) -> None:
    data = made(tmp_path, encode=encode(encoder))
    assert data.records(["visit"])["visit"].to_pylist() == VISITS
    saved = text_encoder_from(data.array("text_encoder"))
    assert data.array(f"text_{name}").dtype == np.float32
    np.testing.assert_array_equal(data.array(f"text_{name}"), saved.encode(texts))
    assert data.array(f"text_{name}_present").tolist() == [bool(text) for text in texts]


@pytest.mark.parametrize("encoder", ["tfidf", "hashing"])
def test_members_are_described_by_their_text_and_never_by_their_title(tmp_path: Path, encoder: str) -> None:
    data = made(tmp_path, encode=encode(encoder))
    saved = text_encoder_from(data.array("text_encoder"))
    found = data.array("medication_text")
    np.testing.assert_array_equal(found, saved.encode(["lowers glucose in blood", "", "an antidote"]))
    assert data.array("medication_text_present").tolist() == [True, False, True]
    assert not found[1].any()
    assert not data.holds("diagnosis_text")


def test_titles_are_ids_where_there_is_none(tmp_path: Path) -> None:
    data = made(tmp_path)
    assert words(data, "diagnosis_titles") == ["fever", "high blood pressure", "d3", "d4"]
    assert words(data, "medication_titles") == ["insulins", "analgesics", "V03X"]
    assert words(data, "symptom_titles") == ["s1", "s2"]
    assert not data.holds("patient_titles")  # nobody calls a patient by a name here
    assert not data.holds("text_diagnoses")  # nothing is encoded


def test_pairs_of_one_entity_come_with_how_often_training_has_both(tmp_path: Path) -> None:
    data = made(tmp_path)
    records = data.records(["medications", "part"]).to_pylist()
    named = [set(one["medications"]) for one in records if one["part"] == 0]
    expected = [sum({a, b} <= one for one in named) for a, b in data.array("interaction_pairs").tolist()]
    assert data.array("interaction_together").tolist() == expected == [1, 0]  # the test visit with both counts nowhere
    assert not data.holds("medication_molecule_together")


def test_members_come_with_the_share_of_trainings_events_that_name_them(tmp_path: Path) -> None:
    data = made(tmp_path)
    assert data.array("medication_share").tolist() == [0.5, 0.5, 0.25]  # of four visits of training
    assert data.array("symptom_share").tolist() == [0.75, 0.25]
    assert not data.holds("patient_share")
    assert not data.holds("molecule_share")


def test_relations_are_pairs_of_members_and_what_is_unknown_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    data = made(tmp_path, said.append)
    assert data.array("interaction_pairs").tolist() == [[1, 0], [2, 1]]
    assert words(data, "interaction_values") == ["major", ""]  # the first of two that are one pair
    assert data.array("medication_molecule_pairs").tolist() == [[1, 0], [1, 1], [2, 3]]
    assert not data.holds("medication_molecule_values")
    assert data.manifest["left_out"] == {
        "pair of 'interaction' that names an unknown medication": 1,
        "pair of 'medication_molecule' that names an unknown molecule": 1,
        "repeated pair of 'interaction'": 1,
    }
    assert "1 pair of 'interaction' that names an unknown medication" in "\n".join(said)
    assert "4 diagnoses" in "\n".join(said)


def test_molecules_are_graphs_and_those_that_are_none_are_named(tmp_path: Path) -> None:
    said: list[str] = []
    data = made(tmp_path, said.append)
    assert data.array("molecule_atom_owner").tolist() == [0, 0, 0, 0, 1]
    assert data.array("molecule_atoms").shape == (5, 9)
    assert data.array("molecule_bonds").shape == (2, 6)
    assert data.array("molecule_bond_features").shape == (6, 3)
    assert "molecules: 2 have no SMILES that can be read, and no atoms: 'm3' ('no molecule'), 'm4' (None)" in said


def test_the_licence_stands_in_the_manifest(tmp_path: Path) -> None:
    assert made(tmp_path).manifest["licence"] == "Test Licence 1.0"


def test_tokens_are_made_with_a_tokenizer_alone(tmp_path: Path) -> None:
    data = made(tmp_path, encode=encode("", "local", max_tokens=8))
    assert data.array("tokens_diagnoses").shape == (8, 8)
    assert data.array("medication_tokens").shape == (3, 8)
    assert (data.array("tokens_diagnoses") != 0).any(1).tolist() == [bool(text) for text in DIAGNOSES]
    assert data.holds("tokenizer")
    assert not data.holds("text_diagnoses")
    assert not data.holds("text_encoder")
    assert data.array("text_diagnoses_present").tolist() == [bool(text) for text in DIAGNOSES]


def test_shards_that_were_encoded_before_are_not_encoded_again(tmp_path: Path) -> None:
    class Stopped(InProcess):
        def map_actors(self, make: Any, tasks: Any, title: str, actors: Any) -> Any:
            super().map_actors(make, tasks[:4], title, actors)
            raise KeyboardInterrupt

    table = {"root": str(tmp_path), "source": "tests.support.clinic:Clinic", "split": {"protocol": "given"}}
    config = DataConfig.model_validate({**table, "encode": encode("hashing")})
    with pytest.raises(KeyboardInterrupt):
        prepare(config, Stopped(), quiet)
    said: list[str] = []
    data = prepare(config, InProcess(), said.append)
    assert "text_diagnoses: 8 texts, 1 of them empty; 3 of 3 shards had been encoded before" in said
    assert "text_symptoms: 8 texts, 2 of them empty; 1 of 3 shards had been encoded before" in said
    whole = made(tmp_path / "whole", encode=encode("hashing"))
    for name in ("text_diagnoses", "text_symptoms", "text_all", "medication_text"):
        np.testing.assert_array_equal(data.array(name), whole.array(name))


def test_tfidf_learns_nothing_of_what_training_does_not_name(tmp_path: Path) -> None:
    data = made(tmp_path, encode=encode("tfidf"))
    saved = text_encoder_from(data.array("text_encoder"))
    assert saved.encode(["fever"]).any()
    assert not saved.encode(["d4"]).any()  # of test alone
    assert saved.encode(["antidote"]).any()  # what describes a member is known


def test_a_long_text_is_cut_and_counted(tmp_path: Path) -> None:
    said: list[str] = []

    class Long(Source):
        Config = Strict

        def open(self, place: Workplace) -> RawData:
            raw = clinic()
            long = pa.table({"id": ["d1", "d2", "d3", "d4"], "title": ["ab " * 50, "b", "c", "d"]})
            return replace(raw, entities={**raw.entities, "diagnosis": long})

    Long.__module__, Long.__qualname__ = __name__, "Long"
    globals()["Long"] = Long
    made(tmp_path, said.append, source=f"{__name__}:Long", encode=encode("hashing", max_characters=100))
    assert any(line.startswith("text_diagnoses: 8 texts") and "3 cut at data.encode" in line for line in said)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"read": {"texts": False}, "encode": encode()}, "brings no texts here"),
        ({"read": {"texts": False}, "encode": {}}, "data.encode: has no effect"),
        ({"encode": {**encode(), "image": {"size": 8}}}, "data.encode.image: has no effect"),
        ({"encode": {**encode(), "maximum_bad_share": 0.5}}, "data.encode.maximum_bad_share: has no effect"),
        ({"encode": encode("", "")}, "data.encode.text"),
        ({"text": {"modalities": ["narrative"]}}, "data.text: has no effect"),
    ],
)
def test_keys_without_effect_are_refused(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(tmp_path, **sections)


def source_of(**changes: Any) -> str:
    class Changed(Source):
        Config = Strict

        def open(self, place: Workplace) -> RawData:
            raw = clinic()
            events = {key: changes.pop(key) for key in ("texts", "fields") if key in changes}
            records = raw.records
            assert isinstance(records, Events)
            return replace(raw, records=replace(records, **events), **changes)

    globals()["Changed"] = Changed
    return f"{__name__}:Changed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": {"all": ("diagnoses", "findings")}}, "clinic: text 'all': no field 'findings' with members"),
        ({"texts": {"all": ("visit",)}}, "no field 'visit' with members; there are diagnoses, symptoms, medications"),
        ({"entities": {"diagnosis": pa.table({"id": ["d1", "d1"]})}}, "entity 'diagnosis': id 'd1' stands in 2 rows"),
        ({"entities": {"diagnosis": pa.table({"id": ["d1", None]})}}, "entity 'diagnosis': row 2 has no id"),
        ({"entities": {"diagnosis": pa.table({"name": ["d1"]})}}, "entity 'diagnosis': no column 'id'; there are name"),
        ({"arrays": {"interaction_pairs": np.zeros(3)}}, "an array 'interaction_pairs' has the name of a table"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(tmp_path, source=source_of(**changes), encode=encode("hashing"))


def test_a_relation_of_an_unknown_entity_or_column_is_refused(tmp_path: Path) -> None:
    relations = clinic().relations
    other = {"interaction": replace(relations["interaction"], left=Field("a", "drug"))}
    with pytest.raises(DataError, match="relation 'interaction': no entity 'drug'; there are"):
        made(tmp_path, source=source_of(relations=other))
    other = {"interaction": replace(relations["interaction"], value="risk")}
    with pytest.raises(DataError, match="relation 'interaction': no column 'risk'; there are a, b, severity"):
        made(tmp_path, source=source_of(relations=other))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("text_diagnoses", "it is made by data.encode.text.encoder"),
        ("medication_text", "it is made by data.encode.text.encoder"),
        ("tokens_all", "it is made by data.encode.text.tokenizer"),
        ("medication_tokens", "it is made by data.encode.text.tokenizer"),
        ("medication_protein_pairs", "it is made by a source of events that brings this relation"),
        ("protein_bonds", "it is made by a source of events that brings molecules"),
    ],
)
def test_a_table_that_is_missing_is_told_with_what_makes_it(tmp_path: Path, table: str, words: str) -> None:
    with pytest.raises(DataError, match=f"holds no table '{table}'; {words}"):
        made(tmp_path).array(table)
