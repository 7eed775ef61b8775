"""Codes of visits from tables of any length: how they are cut changes nothing, and repeats cost nothing."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from rec.data.runner import InProcess
from rec.data.schema import Workplace
from rec.data.sources.medication import gathering
from rec.data.sources.medication.gathering import READ, Gathered, codes_of, gather
from rec.data.sources.medication.official import as_official
from rec.data.tables import Kind
from rec.seeds import generator
from rec.storage import Storage
from tests.support import wards
from tests.support.own import quiet

WANTED = {"visit": ("visit", Kind.ID), "code": ("code", Kind.ID), "number": ("number", Kind.NUMBER)}


def plain(rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
    return codes_of(rows["visit"], rows["code"], rows["number"], rows["row"]), Counter()


def gathered(folder: Path, rows: wards.Rows, copies: int = 1, **keys: object) -> Gathered:
    """Return what is gathered from files that hold these rows so many times each."""
    for number in range(2):
        wards.write(folder / "t" / f"{number}.parquet", rows[number::2] * copies)
    place = Workplace(Storage(str(folder / "work")), InProcess(), quiet)
    return gather(place, "row", as_official(str(folder / "t")), WANTED, plain, **keys)  # type: ignore[arg-type]


def drawn(count: int) -> wards.Rows:
    rng = generator(0, "rows")
    return [
        {"visit": f"v{rng.integers(20)}", "code": f"c{rng.integers(9)}", "number": float(n) if n % 3 else None}
        for n in rng.permutation(count).tolist()
    ]


def by_visit(found: Gathered) -> dict[str, list[str]]:
    return {row["visit"]: row["codes"] for row in found.lists.to_pylist()}


def test_a_visit_has_its_codes_once_by_their_number_and_the_unnumbered_last(tmp_path: Path) -> None:
    rows: wards.Rows = [
        {"visit": "a", "code": code, "number": number}
        for code, number in (("late", 9.0), ("none", None), ("first", 1.0), ("late", 3.0), ("middle", 4.0))
    ]
    assert by_visit(gathered(tmp_path, rows)) == {"a": ["first", "late", "middle", "none"]}
    assert by_visit(gathered(tmp_path, rows, by="code")) == {"a": ["first", "late", "middle", "none"]}


def test_how_a_table_is_cut_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gathered(tmp_path / "whole", drawn(400))
    for name, value in {"ROWS_HELD": 29, "ROWS_PER_PARTITION": 50}.items():
        monkeypatch.setattr(gathering, name, value)
    cut = gathered(tmp_path / "cut", drawn(400), rows_at_once=13)
    assert by_visit(cut) == by_visit(whole)
    assert (cut.counts, cut.frequency) == (whole.counts, whole.frequency)
    assert not (tmp_path / "cut" / "work" / "gathered-row").exists()


def test_repeated_rows_are_counted_and_change_nothing_else(tmp_path: Path) -> None:
    once, often = gathered(tmp_path / "once", drawn(60)), gathered(tmp_path / "often", drawn(60), copies=7)
    assert by_visit(often) == by_visit(once)
    assert often.counts[READ] == 7 * once.counts[READ] == 420
    assert often.frequency == Counter({code: 7 * rows for code, rows in once.frequency.items()})


def test_rare_codes_and_those_that_are_not_allowed_are_dropped_and_counted(tmp_path: Path) -> None:
    rows: wards.Rows = [
        {"visit": visit, "code": code, "number": 1.0} for visit, code in zip("aaaabbb", "xxyzwxy", strict=True)
    ]
    found = gathered(tmp_path, rows, most=3, allowed=["x", "w", "z"])
    assert by_visit(found) == {"a": ["x"], "b": ["w", "x"]}  # w is as frequent as z, and before it
    assert found.counts == {READ: 7, "row of a code too rare": 1, "row of a code without molecule": 2}
    assert found.frequency == {"x": 3, "w": 1}
