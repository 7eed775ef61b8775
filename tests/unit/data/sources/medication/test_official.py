"""Tables of releases, found whatever they are called, and licences."""

from pathlib import Path

import pytest

from rec.data.sources.medication.official import UNKNOWN_LICENCE, as_official, find, given, licence_of
from rec.data.tables import Kind, read_whole
from rec.errors import ConfigError, DataError
from tests.support import wards

ROWS = [{"HADM_id": "007"}]


@pytest.mark.parametrize("name", ["A_table.csv", "a_table.CSV.gz", "hosp/A_TABLE.parquet", "icu/a_table.csv"])
def test_a_table_is_found_in_any_case_and_packing(tmp_path: Path, name: str) -> None:
    path = wards.write(tmp_path / name.lower(), ROWS)
    path.rename(tmp_path / name)
    official = find(str(tmp_path), "a_table", "a release")
    assert read_whole(official.table, official.wanted({"visit": ("hadm_id", Kind.ID)}))["visit"].to_pylist() == ["007"]


def test_a_table_in_parts_is_a_folder(tmp_path: Path) -> None:
    for number in range(2):
        wards.write(tmp_path / "A_TABLE" / f"part-{number}.parquet", ROWS)
    assert read_whole(find(str(tmp_path), "a_table", "").table, {"visit": ("HADM_id", Kind.ID)}).num_rows == 2


def test_what_is_missing_is_named_with_where_it_comes_from(tmp_path: Path) -> None:
    wards.write(tmp_path / "other.csv", ROWS)
    with pytest.raises(DataError, match=r"no table 'a_table' here .*expected a release"):
        find(str(tmp_path), "a_table", "a release")
    wards.write(tmp_path / "a_table.csv", ROWS)
    wards.write(tmp_path / "a_table.csv.gz", ROWS)
    with pytest.raises(DataError, match=r"found a_table.csv and a_table.csv.gz, expected one of them"):
        find(str(tmp_path), "a_table", "a release")
    with pytest.raises(ConfigError, match=r"data.read.hicl: not set, expected a map"):
        given("hicl", "", "a map")
    with pytest.raises(DataError, match=r"data.read.hicl: .*nowhere.csv: no such file, expected a map"):
        given("hicl", f"{tmp_path}/nowhere.csv", "a map")
    official = as_official(str(wards.write(tmp_path / "b" / "t.csv", ROWS)))
    with pytest.raises(DataError, match=r"no column 'seq_num' \(number\)"):
        official.wanted({"number": ("seq_num", Kind.NUMBER)})


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("LICENSE.txt", "## ODC OPEN DATABASE LICENSE (ODbL)", "ODbL 1.0"),
        ("license.md", "The PhysioNet Credentialed Health Data License 1.5.0", "PhysioNet credentialed"),
        ("LICENSE.txt", "All rights reserved", UNKNOWN_LICENCE),
        ("README.txt", "open database license", UNKNOWN_LICENCE),
    ],
)
def test_a_licence_is_told_by_its_file_unless_the_config_tells_it(
    tmp_path: Path, name: str, text: str, licence: str
) -> None:
    (tmp_path / name).write_text(text)
    assert licence_of(str(tmp_path), "") == licence
    assert licence_of(str(tmp_path), "mine") == "mine"
