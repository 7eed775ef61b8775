"""Names, texts and molecules of codes from the user's own files."""

import json
from pathlib import Path
from typing import Any

import pytest

from rec.data.sources.medication.substances import Knowledge, knowledge, known_codes
from rec.errors import DataError
from tests.support import wards

DRUGS = [
    ("N02BA01", "aspirin", "approved", "CC(=O)O", "Thins blood."),
    ("N02BA02", "aloxiprin", None, "CC", "Is old."),
    ("N02BE01", "paracetamol", "approved|investigational", "CC(=O)N", "Lowers fever."),
    ("N02BE02", "phenacetin", "approved", "CC(=O)N", "Was withdrawn."),
    ("N02BE05", "propacetamol", "approved", "CN", "Is fourth."),
    ("A10AB01", "insulin", "approved", None, "Is a hormone."),
    ("B01AC06", "aspirin", "approved", "CC(=O)O", None),
]


def drugs(folder: Path, **names: str) -> str:
    keys = ("atc5", "name", "groups", "smiles", "description")
    rows: list[dict[str, Any]] = [dict(zip([names.get(k, k) for k in keys], row, strict=True)) for row in DRUGS]
    return str(wards.write(folder / "drugs.csv", [{k: v for k, v in row.items() if k} for row in rows]))


def atc(folder: Path) -> str:
    rows = [{"atc3": "N02B", "name": "OTHER ANALGESICS"}, *({"atc3": row[0], "name": row[1]} for row in DRUGS)]
    return str(wards.write(folder / "atc.csv", rows))


def know(drugs: str = "", atc_names: str = "", smiles: str = "", groups: str = "approved", most: int = 2) -> Knowledge:
    return knowledge(drugs, atc_names, smiles, groups, most)


def test_what_is_no_smiles_is_no_molecule(tmp_path: Path) -> None:
    (tmp_path / "smiles.json").write_text(json.dumps({"N02B": ["notasmiles((", "CCO"], "A10A": ["C1CC"]}))
    found = know(drugs(tmp_path), smiles=str(tmp_path / "smiles.json"))
    assert found.molecules == {"N02B": ("CCO",), "A10A": ()}
    assert found.unreadable == 2
    assert set(known_codes(found.molecules)) == {"N02B"}


def test_a_code_has_the_first_approved_substances_with_a_molecule_and_their_texts(tmp_path: Path) -> None:
    found = know(drugs(tmp_path), atc(tmp_path))
    assert found.molecules == {"N02B": ("CC(=O)O", "CC(=O)N"), "B01A": ("CC(=O)O",)}
    assert found.texts == {"N02B": "OTHER ANALGESICS. Thins blood. Lowers fever.", "A10A": "Is a hormone."}
    assert know(drugs(tmp_path), most=3).molecules["N02B"] == ("CC(=O)O", "CC(=O)N")  # the third is the second again
    assert know(drugs(tmp_path), groups="").molecules["N02B"] == ("CC(=O)O", "CC")


def test_a_code_is_never_made_from_the_characters_of_a_name(tmp_path: Path) -> None:
    table = know(drugs(tmp_path), atc(tmp_path)).medications(["A10A", "B01A", "N02B", "X99Z"])
    assert table["title"].to_pylist() == ["A10A", "B01A", "OTHER ANALGESICS", "X99Z"]
    assert table["text"].to_pylist()[1::2] == [None, None]
    assert know(drugs(tmp_path)).pairs(["B01A", "A10A", "N02B"]).to_pylist() == [
        {"medication": "B01A", "molecule": "CC(=O)O"},
        {"medication": "N02B", "molecule": "CC(=O)O"},
        {"medication": "N02B", "molecule": "CC(=O)N"},
    ]


def test_drugs_without_codes_are_known_by_the_names_of_atc(tmp_path: Path) -> None:
    path = drugs(tmp_path, atc5="", smiles="moldb_smiles", description="Indication")
    assert know(path, atc(tmp_path)).molecules == know(drugs(tmp_path), atc(tmp_path)).molecules
    path = drugs(tmp_path, atc5="")
    with pytest.raises(DataError, match=r"no file of names of substances \(data.read.atc_names\)"):
        know(path)


def test_a_column_of_several_codes_is_cut(tmp_path: Path) -> None:
    row = {"name": "aspirin", "atc_codes": "A01AD05|B01AC06;N02BA01", "smiles": "CC"}
    assert set(know(str(wards.write(tmp_path / "d.csv", [row]))).molecules) == {"A01A", "B01A", "N02B"}


def test_molecules_may_come_from_a_list_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"N02B": ["C", "CC", "C"], "A01A": []}))
    found = know(drugs(tmp_path), smiles=f"{tmp_path}/s.json")
    assert found.molecules == {"N02B": ("C", "CC")}
    assert "Thins blood." in found.texts["N02B"]
    (tmp_path / "s.json").write_text(json.dumps({"N02B": "C"}))
    with pytest.raises(DataError, match=r"s.json: .* expected JSON of \{ATC code: \[SMILES, ...\]\}"):
        know(smiles=f"{tmp_path}/s.json")
