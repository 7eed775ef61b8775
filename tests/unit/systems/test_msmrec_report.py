"""What a report tells of the gate, by hand: spread over users, differences from the mean, who follows what."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rec.evaluation.records import records_of
from rec.evaluation.task import Groups
from rec.sections import Bars, Heatmap, Lines, Section, Text
from rec.storage import Storage
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.report import _of_many_groups, enrich, sections

FOLLOWED = [[True, False], [True, False], [False, True], [False, True]]
NAMES = ["plot", "poster"]


def measured(gate: list[list[float]], first: list[list[float]] | None = None) -> Any:
    """Return a measurement of four users, the first two of group A, each with a history of four items."""
    gate_UK = np.array(gate)
    columns = {
        "subject": np.arange(4),
        "gate": gate_UK,
        "gate_first": gate_UK if first is None else np.array(first),
        "gate_even": gate_UK,
        "length": np.full(4, 4),
        "gate_sorted": np.sort(gate_UK)[:, ::-1],
        "gate_needed": np.array([[1.0, 1.0, 2.0, 2.0]] * 4),
    }
    groups = Groups(("A", "B"), np.array([0, 0, 1, 1]))
    storage = Storage("no folder of totals")
    data = SimpleNamespace(modalities=NAMES, users=pa.table({"followed": FOLLOWED}), storage=storage)
    numbers: dict[str, Any] = {"groups": {"A": {"examples": 2}, "B": {"examples": 2}}, "meanings": {}}
    config = SimpleNamespace(bootstrap=200, popular_share=0.001)
    records = records_of(columns, 4)
    return SimpleNamespace(
        records=records, groups=groups, data=data, numbers=numbers, config=config, seed=0, system=MSMRec
    )


def told(found: Any, history: list[dict[str, float]]) -> dict[str, Section]:
    enrich(found)
    return {section.title: section for section in sections(found, history)}


def part(section: Section, kind: type) -> Any:
    return next(one for one in section.parts if isinstance(one, kind))


@pytest.fixture(scope="module")
def found() -> dict[str, Section]:
    gate = [[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.3, 0.7]]
    first = [[0.7, 0.3], [0.5, 0.5], [0.2, 0.8], [0.2, 0.8]]
    history = [
        {"phase": 0, "epoch": 2, "gate/0": 0.5, "gate/1": 0.5},
        {"phase": 1, "epoch": 3, "gate/0": 0.6, "gate/1": 0.4},
    ]
    return told(measured(gate, first), history)


def test_the_spread_over_users_is_drawn_and_told(found: dict[str, Section]) -> None:
    section = found["Modality weights per user"]
    (series,) = part(section, Bars).series
    # Of 0.3, 0.3, 0.6, 0.8 the median is 0.45; 5 % and 95 % lie at 0.3 and 0.6 + 0.85 * 0.2.
    assert series.values[0] == pytest.approx(0.45)
    assert (series.low[0], series.high[0]) == (pytest.approx(0.3), pytest.approx(0.77))
    assert "between 0.300 and 0.770" in part(section, Text).text
    assert "hardly" not in part(section, Text).text


def test_a_gate_that_gives_all_users_the_same_is_said_to_decide_little() -> None:
    found = told(measured([[0.5, 0.5], [0.51, 0.49], [0.5, 0.5], [0.49, 0.51]]), [])
    assert "the gate hardly tells users from each other" in part(found["Modality weights per user"], Text).text


def test_groups_differ_from_all_users_in_percent_of_equal_use(found: dict[str, Section]) -> None:
    a, b = part(found["Modality weights per group"], Bars).series
    # All: mean 0.5. Group A: 0.7, which is 0.2 more, 40 % of the equal use of 0.5.
    assert a.values == pytest.approx([40, -40])
    assert b.values == pytest.approx([-40, 40])
    assert a.low[0] <= 40 <= a.high[0]
    assert [a.name, b.name] == ["A (2)", "B (2)"]


def test_drift_is_the_second_half_less_the_first(found: dict[str, Section]) -> None:
    (drift,) = part(found["Modality weights over time"], Bars).series
    # The second halves are 0.9, 0.7, 0.4, 0.4: each 0.2 above the first, 40 % of 0.5.
    assert drift.values == pytest.approx([40, -40])
    assert (drift.low[0], drift.high[0]) == (pytest.approx(40), pytest.approx(40))


def test_followers_stand_beside_other_users(found: dict[str, Section]) -> None:
    follow, others = part(found["Planted preferences"], Bars).series
    assert (follow.name, others.name, others.muted) == ("users who follow it", "other users", True)
    assert follow.values == pytest.approx([40, 40])
    assert others.values == pytest.approx([-40, -40])
    assert "For 100.0% of them" in part(found["Planted preferences"], Text).text


def test_weights_over_training_lie_over_epochs_of_all_phases(found: dict[str, Section]) -> None:
    lines = part(found["Modality weights over training"], Lines)
    assert lines.x_axis == "epoch"
    assert [series.x for series in lines.series] == [(2.0, 5.0)] * 2
    assert lines.low == 0.0


def test_many_groups_are_a_map_and_what_is_clear_of_them_a_table() -> None:
    spreads = {"gate_low": [-0.02, -0.02], "gate_high": [0.02, 0.02], "users": 3}
    differences = {f"g{n}": {"gate": [0.0, 0.0], **spreads} for n in range(9)}
    differences["g4"] = {"gate": [0.1, -0.1], "gate_low": [0.05, -0.15], "gate_high": [0.15, -0.05], "users": 7}
    map, note, table = _of_many_groups(NAMES, differences)
    assert isinstance(map, Heatmap)
    assert map.y_names[0] == "g8 (3)"
    assert map.matrix[4] == (pytest.approx(20.0), pytest.approx(-20.0))
    assert (map.low, map.high) == (pytest.approx(-20.0), pytest.approx(20.0))
    assert note.text == "2 of 18 intervals do not hold zero, where chance alone lets about 1:"
    assert table.rows[0] == ("g4 (7)", "plot", "20.0 (10.0 to 30.0)")
    differences["g4"] = {"gate": [None, None], "gate_low": [None, None], "gate_high": [None, None], "users": 0}
    none = _of_many_groups(NAMES, differences)
    assert [type(one) for one in none] == [Heatmap, Text]
