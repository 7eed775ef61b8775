"""Orders as ATC codes: by NDC and route, and what becomes of those without one."""

from pathlib import Path

import pytest

from rec.data.sources.medication.drugs import candidates, choose, code_of_text, drug_map, eleven_digits, rxcui_of_ndc
from rec.errors import ConfigError, DataError
from tests.conftest import SHARED
from tests.support import wards

MAPS = SHARED / "medication" / "mappings"


@pytest.mark.parametrize(
    ("codes", "route", "expected"),
    [
        (["A07A", "J01X"], "", "A07A"),
        (["A07A", "J01X"], "parenteral", "J01X"),
        (["A07A", "J01X"], "enteral", "A07A"),
        (["A01A", "B01A", "N02B"], "enteral", "B01A"),
        (["A12C", "B05C", "B05X"], "parenteral", "B05X"),
        (["A12C", "B05C", "B05X"], "enteral", "A12C"),
        (["B05C", "B05X"], "enteral", "B05X"),
        (["S01A", "D06A"], "parenteral", "S01A"),
    ],
)
def test_a_route_chooses_among_the_codes_of_a_drug(codes: list[str], route: str, expected: str) -> None:
    assert choose(codes, route) == expected


@pytest.mark.data
@pytest.mark.parametrize(
    ("codes", "route", "expected"),
    [
        ("A07AA J01XA", "parenteral", "J01X"),  # vancomycin
        ("A01AD B01AC N02BA", "enteral", "B01A"),  # aspirin
        ("A01AB D06BX G01AF J01XD P01AB", "parenteral", "J01X"),  # metronidazole
        ("A01AB D06BX G01AF J01XD P01AB", "enteral", "J01X"),
        ("D07AA D10AA H02AB", "parenteral", "H02A"),  # methylprednisolone
        ("D11AH L04AD", "enteral", "L04A"),  # tacrolimus
        ("C05AE C08DB", "enteral", "C08D"),  # diltiazem
        ("A12CA B05CB B05XA", "parenteral", "B05X"),  # saline
    ],
)
def test_drugs_of_the_real_table_become_what_is_expected_of_their_routes(codes: str, route: str, expected: str) -> None:
    if not MAPS.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    wanted = [code[:4] for code in codes.split()]
    assert wanted in candidates(str(MAPS / "ndc_rxcui_atc4.parquet")).values()
    assert choose(wanted, route) == expected


@pytest.mark.data
def test_the_first_codes_are_those_of_the_table_that_holds_these_alone() -> None:
    if not MAPS.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    every, first = (candidates(str(MAPS / name)) for name in ("ndc_rxcui_atc4.parquet", "rxcui2atc4_first.csv"))
    assert len(every) == 11_478
    assert {rxcui: codes[0] for rxcui, codes in every.items()} == {rxcui: codes[0] for rxcui, codes in first.items()}


def test_a_map_of_ndc_is_json_python_or_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"00002140701": "5", "11": null}')
    (tmp_path / "b.txt").write_text("{'00002140701': '5', '11': ''}")
    rows = [{"YEAR": 1951, "NDC": "0002-1407-01", "RXCUI": "5"}, {"NDC": "11"}, {"NDC": "0002-1407-01", "RXCUI": "6"}]
    paths = [tmp_path / "a.json", tmp_path / "b.txt", wards.write(tmp_path / "c.csv", rows)]
    for path in paths:
        assert rxcui_of_ndc(str(path)) == {"00002140701": "5", "00000000011": ""}
    (tmp_path / "d.txt").write_text("no map")
    with pytest.raises(DataError, match="neither JSON nor Python's notation"):
        rxcui_of_ndc(str(tmp_path / "d.txt"))


@pytest.mark.parametrize(
    ("written", "digits"),
    [("0002-1407-01", "00002140701"), ("50242-040-62", "50242004062"), ("338004904", "00338004904")],
)
def test_an_ndc_has_eleven_digits(written: str, digits: str) -> None:
    assert eleven_digits(written) == digits


def test_routes_need_more_than_one_code_to_choose_from(tmp_path: Path) -> None:
    keys = wards.maps(tmp_path)
    one = wards.write(tmp_path / "one.csv", [{"RXCUI": "11", "ATC4": "A07AA"}])
    with pytest.raises(ConfigError, match=r"data.read.mapping: .*one.csv holds one each"):
        drug_map(keys["ndc2rxcui"], str(one), "route_aware")
    assert drug_map(keys["ndc2rxcui"], str(one), "safedrug").other.to_pylist() == ["A07A", None, None, None]


def test_names_are_looked_up_without_regard_to_case_and_spaces(tmp_path: Path) -> None:
    path = wards.write(tmp_path / "n.csv", [{"DrugName": "A  Drug", "ATC3": "N02BA01"}, {"DrugName": "none"}])
    assert code_of_text(str(path), "drugname") == {"a drug": "N02B"}
    twice = wards.write(tmp_path / "t.csv", [{"drugname": "A", "atc3": "N02B"}, {"drugname": "a", "atc3": "B01A"}])
    with pytest.raises(DataError, match=r"t.csv: row 2: found B01A of 'a', which an earlier row says is N02B"):
        code_of_text(str(twice), "drugname")
