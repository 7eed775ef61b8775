"""Interacting pairs from matrices, tables and TWOSIDES."""

import json
from pathlib import Path

import numpy as np
import pytest

from rec.data.runner import InProcess
from rec.data.sources.medication.interactions import Interactions, as_table, read_interactions
from rec.errors import ConfigError, DataError
from tests.conftest import SHARED
from tests.support import wards

DDI = SHARED / "medication" / "ddi"


def read(path: Path, codes: str = "", cid_atc: str = "", rarest: int = 40) -> Interactions:
    return read_interactions(str(path), codes, cid_atc, rarest, InProcess())


def twosides(folder: Path) -> Path:
    """Write side effects: "common" has three rows, "rare" two, "rarest" one."""
    rows = [
        (a, b, effect, effect)
        for effect, pairs in {
            "C3 common": [("CID1", "CID2"), ("CID1", "CID3"), ("CID2", "CID3")],
            "C2 rare": [("CID3", "CID1"), ("CID9", "CID1")],
            "C1 rarest": [("CID2", "CID1")],
        }.items()
        for a, b in pairs
    ]
    keys = ("STITCH 1", "STITCH 2", "Polypharmacy Side Effect", "Side Effect Name")
    return wards.write(folder / "drug-DDI.csv", [dict(zip(keys, row, strict=True)) for row in rows])


def test_twosides_gives_the_pairs_of_its_rarest_side_effects(tmp_path: Path) -> None:
    path = twosides(tmp_path)
    (tmp_path / "drug-atc.csv").write_text("CID1,A01AA01,A01AB02,B01AC06\nCID2,B01AA03\nCID3,N02BA01\nCID7,C01AA05\n")
    codes = str(tmp_path / "drug-atc.csv")
    found = [read(path, cid_atc=codes, rarest=rarest) for rarest in (1, 2, 3)]
    rarest, rare = {("A01A", "B01A"): ""}, {("A01A", "N02B"): "", ("B01A", "N02B"): ""}
    assert [one.pairs for one in found] == [rarest, rarest | rare, rarest | rare]
    assert found[0].codes == {"A01A", "B01A", "N02B", "C01A"}
    with pytest.raises(ConfigError, match=r"data.read.cid_atc: not set, expected compounds with their ATC codes"):
        read(path)


def test_a_matrix_gives_the_pairs_on_either_side_of_its_diagonal(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.int8))
    (tmp_path / "codes.json").write_text(json.dumps(["N02B", "B01A", "A01A"]))
    found = read(tmp_path / "a.npy", str(tmp_path / "codes.json"))
    assert found.pairs == {("A01A", "N02B"): "", ("A01A", "B01A"): ""}
    (tmp_path / "two.json").write_text(json.dumps(["N02B", "B01A"]))
    with pytest.raises(DataError, match=r"a.npy: found shape \(3, 3\), and 2 in .*two.json"):
        read(tmp_path / "a.npy", str(tmp_path / "two.json"))
    with pytest.raises(ConfigError, match=r"data.read.interaction_codes: not set"):
        read(tmp_path / "a.npy")


def test_a_table_of_pairs_may_tell_how_severe_they_are(tmp_path: Path) -> None:
    rows = [
        {"ATC3_i": "N02BA", "ATC3_j": "B01A", "severity": None},
        {"ATC3_i": "B01A", "ATC3_j": "N02B", "severity": "major"},
        {"ATC3_i": "B01A", "ATC3_j": "B01AC", "severity": "minor"},
        {"ATC3_i": "C01A", "ATC3_j": "B01A", "severity": "minor"},
    ]
    found = read(wards.write(tmp_path / "p.csv", rows))
    assert found.pairs == {("B01A", "C01A"): "minor", ("B01A", "N02B"): "major"}
    table = as_table(found.pairs, ["B01A", "N02B"])
    assert table.to_pylist() == [{"left": "B01A", "right": "N02B", "severity": "major"}]
    with pytest.raises(DataError, match=r"q.csv: found the columns a, b, expected drug-drug interactions"):
        read(wards.write(tmp_path / "q.csv", [{"a": "N02B", "b": "B01A"}]))


@pytest.mark.data
@pytest.mark.parametrize(("name", "pairs"), [("safedrug_master", 337), ("nlammr_mimic3", 337), ("nlammr_mimic4", 377)])
def test_published_matrices_have_the_pairs_of_their_tables(name: str, pairs: int) -> None:
    if not DDI.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    matrix = read(DDI / f"{name}_ddi_adj.npy", str(DDI / f"{name}_med_vocab.json"))
    assert len(matrix.pairs) == pairs
    assert matrix.pairs == read(DDI / f"{name}_ddi_pairs.csv").pairs
    every = read(DDI / "union_ddi_pairs_atc3.csv").pairs
    assert len(every) == 377
    assert matrix.pairs.items() <= every.items()
