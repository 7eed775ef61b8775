"""What `rec columns` lists of systems and data sets."""

from pathlib import Path

import pytest

from rec.batch import Column
from rec.cli import main
from rec.train.inputs import kind
from tests.end_to_end.test_cli import CONFIG


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return str(path)


def listed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, str]:
    """Return what the command prints, every block by its title, with runs of spaces as one."""
    assert main(["columns", *words]) == code
    blocks = capsys.readouterr().out.split("\n\n")
    return {block.split("\n")[0]: "\n".join(" ".join(line.split()) for line in block.split("\n")) for block in blocks}


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (Column("a", "int64"), "int64"),
        (Column("a", "int32", (-1,)), "list of int32"),
        (Column("a", "float32", (8,)), "float32 of 8"),
        (Column("a", "int32", (-1, -1)), "list of list of int32"),
    ],
)
def test_types_of_columns_are_said_in_words(column: Column, told: str) -> None:
    assert kind(column) == told


def test_a_system_and_its_data_set_are_listed(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, config)
    assert "history list of int32 item told by every request" in found["MSMRec: columns of rows that it reads"]
    assert "text model.gate not prepared" in found["MSMRec: tables that it reads as configured"]
    assert "ranking ndcg@10" in found["MSMRec: what is asked of it"]
    assert any(title.startswith(f"{tmp_path}/data: ") and "rec prepare" in title for title in found)
    assert main(["prepare", config]) == 0
    capsys.readouterr()
    found = listed(capsys, config)
    assert "text model.gate yes" in found["MSMRec: tables that it reads as configured"]
    assert "item 120 1 item (int64), title (text)" in found["Entities"]
    assert "sequences 300 train, 300 val, 300 test" in found["Views: rows that systems train on"]
    assert "graph not made yet -" in found["Views: rows that systems train on"]
    assert "text float32 121 x 3 x 16" in found["Tables"]
    alone = listed(capsys, f"{tmp_path}/data")
    assert alone == {title: found[title] for title in alone}


def test_what_a_config_does_not_read_is_not_listed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    tables = listed(capsys, config, "model.gate=none")["MSMRec: tables that it reads as configured"]
    assert tables.split("\n")[2:] == ["table asked for by in the data set", "item_count always not prepared"]


def test_tables_that_are_missing_name_what_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(CONFIG.format(folder=tmp_path))
    assert main(["prepare", str(tmp_path / "run.toml")]) == 0
    other = tmp_path / "other.toml"
    other.write_text(
        f"""system = "rec.systems.magnet:Magnet"\nout = "{tmp_path}/other"\n[data]\nroot = "{tmp_path}/data"
[model]\nmodalities = ["image"]\ncontent = {{ image = 1.0 }}\n"""
    )
    tables = " ".join(listed(capsys, str(other))["Magnet: tables that it reads as configured"].split())
    assert "feature_image model.modalities no; it is made by" in tables
    assert "data.encode.image.encoder" in tables


def test_overrides_of_a_data_set_and_folders_of_nothing_are_refused(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", config]) == 0
    assert main(["columns", f"{tmp_path}/data", "model.gate=none"]) == 1
    assert "a data set has no keys; found 'model.gate=none'" in capsys.readouterr().err
    assert main(["columns", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
