"""Rows: ratio, goal and verdict follow from value and limit, and the table shows what they rest on."""

import pytest

from rec.benchmarks import row as rows
from rec.benchmarks.row import NOT_JUDGED, Row, show, timed
from rec.benchmarks.timing import Times


def test_ratio_and_goal_follow_from_value_and_limit() -> None:
    row = Row("step", 3.0, "s", 2.0, 1.6)
    assert (row.ratio, row.met, row.verdict) == (1.5, True, "yes")
    assert Row("step", 3.0, "s", 2.0, 1.4).verdict == "no"
    assert (Row("memory", 3.0, "GiB", goal=4.0).met, Row("speed", 3.0, "1/s").met) == (True, None)
    assert Row("speed", 3.0, "1/s").verdict == ""


@pytest.mark.parametrize(
    ("value", "physical", "met", "verdict"),
    [
        (0.417, True, None, NOT_JUDGED),  # a step cannot take less than half of the products it makes
        (0.95, True, True, "yes"),  # noise explains it
        (0.417, False, True, "yes"),  # another way to do the same may well be faster
        (2.5, True, False, "no"),
    ],
)
def test_a_ratio_clearly_below_a_physical_limit_is_not_judged(
    value: float, physical: bool, met: bool | None, verdict: str
) -> None:
    row = Row("step", value, "s", 1.0, 2.0, physical=physical)
    assert (row.met, row.verdict) == (met, verdict)
    assert (row.as_json()["met"], row.as_json()["verdict"]) == (met, verdict)


def test_a_timed_row_holds_medians_and_the_spread_of_the_limit() -> None:
    row = timed("step", Times(rounds=(5.0, 3.0, 4.0)), Times(rounds=(2.0, 1.0, 6.0)), 2.5)
    assert (row.value, row.limit, row.ratio, row.limit_spread) == (4.0, 2.0, 4 / 2, (1.0, 6.0))


def test_the_table_shows_the_limits_rounds_and_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.os, "getloadavg", lambda: (7.25, 1.0, 1.0))
    monkeypatch.setenv("COLUMNS", "200")
    told = show([timed("step", Times(rounds=(0.5,)), Times(rounds=(1.0, 3.0, 2.0)), 2.0, physical=True)], 5.04)
    first, head, line, *notes = told.splitlines()
    assert "load 5.0 before" in first
    assert "cannot lie below 1" in " ".join(notes)
    assert head.split() == "name value unit limit limit's rounds load ratio goal met".split()
    assert line.split() == f"step 0.5 s 2 1 to 3 7.2 0.250 2 {NOT_JUDGED}".split()


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "2 processes, E 64 rows 4096 each, width 128 k 8, limit: the same rows without exchange"
    found = [timed(name, Times(rounds=(1.234567,)), Times(rounds=(1.0, 123.456)), 2.0, physical=True)] * 2
    assert max(map(len, show(found, 3.0).splitlines())) <= columns


def test_one_cpu_is_one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.os, "cpu_count", lambda: 1)
    assert ", 1 CPU, " in rows.machine()
    monkeypatch.setattr(rows.os, "cpu_count", lambda: 12)
    assert ", 12 CPUs, " in rows.machine()


def test_only_an_impossible_ratio_is_explained() -> None:
    assert "Not judged:" not in show([Row("step", 1.2, "s", 1.0, 2.0, physical=True)])
    assert "Not judged:" not in show([Row("step", 0.4, "s", 1.0, 2.0)])
    assert "Not judged:" in " ".join(show([Row("step", 0.367, "s", 1.0, 1.1, physical=True)]).split())
