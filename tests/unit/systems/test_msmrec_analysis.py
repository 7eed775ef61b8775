"""The gate by popularity and how few texts hold its weight, by hand; one user's profile, on a run of its own."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rec.config import RunConfig
from rec.errors import RequestError
from rec.evaluation.profiles import profiles
from rec.evaluation.run import evaluate_run
from rec.evaluation.task import Groups
from rec.nn.modality import concentration
from rec.nn.packed import layout
from rec.sections import Bars, Section, Table, Text
from rec.systems.msmrec.analysis import by_groups, concentration_section, popularity_section
from rec.systems.msmrec.profile import halves


def test_how_few_texts_hold_the_weight_is_a_mean_over_a_users_items() -> None:
    probability = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25], [0.0, 0.0, 0.0], [0.2, 0.4, 0.4]])
    found = concentration(probability, layout(np.array([3, 1])))
    # The first user's third item has no text and does not count.
    torch.testing.assert_close(found["gate_sorted"][0], torch.tensor([0.6, 0.225, 0.175], dtype=torch.float64))
    # 0.7 holds a half and 0.9 eight tenths; 0.5 holds a half, and eight tenths need all of 0.5, 0.25, 0.25.
    assert found["gate_needed"][0].tolist() == [1.0, 2.5, 2.5, 3.0]
    assert found["gate_needed"][1].tolist() == [2.0, 2.0, 3.0, 3.0]


def test_an_even_gate_needs_its_share_of_texts() -> None:
    probability = torch.full((1, 10), 0.1)
    found = concentration(probability, layout(np.array([1])))
    assert found["gate_needed"][0].tolist() == [5.0, 8.0, 9.0, 10.0]


def test_weights_by_popularity_are_means_with_intervals_over_users() -> None:
    gate = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    told = np.array([True, True, False, True])  # the third of four users has no text
    groups = Groups(("Niche", "Diverse", "Blockbuster"), np.array([0, 0, 2, 2]))
    measured = SimpleNamespace(seed=0, config=SimpleNamespace(bootstrap=200))
    found = by_groups(groups, gate, told, measured)
    assert found["Niche"]["gate"] == pytest.approx([0.7, 0.3])
    assert found["Niche"]["gate_low"][0] == pytest.approx(0.6)
    assert found["Blockbuster"] | {"users": 1} == found["Blockbuster"]
    section = popularity_section(["plot", "poster"], found, 0.001)
    table = next(part for part in section.parts if isinstance(part, Table))
    assert table.head == ("modality", "Niche (2 users)", "Blockbuster (1 user)")
    assert table.rows[0][1] == "0.700 (0.600 to 0.800)"


def test_the_share_that_so_many_texts_hold_is_told_beside_an_even_gate() -> None:
    ends = {"low": 0.8, "high": 0.9}
    found = {f"held by {k}": {"mean": value, **ends} for k, value in ((1, 0.5), (2, 0.85), (3, 1.0))}
    found |= {f"needed for {share:g}": {"mean": 1.5, **ends} for share in (0.5, 0.8, 0.9, 0.95)}
    section = concentration_section(["a", "b", "c"], found)
    assert "1.50 of 3 hold 80% of it on average (an even gate needs 3)" in section.parts[0].text
    assert section.parts[1].rows[1] == ("2", "0.850 (0.800 to 0.900)", "0.667")


def test_halves_that_share_nothing_are_further_apart_than_random_ones() -> None:
    moved = np.array([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10)
    found = halves(moved, np.random.default_rng(0))
    assert found["distance"] == pytest.approx(1.0)
    assert found["chance"] < 0.5
    assert found["as_far"] < 0.01


def test_halves_that_alternate_are_no_further_apart_than_chance() -> None:
    still = np.array([[0.6, 0.4], [0.4, 0.6]] * 10)
    found = halves(still, np.random.default_rng(0))
    assert found["distance"] == pytest.approx(0.0, abs=1e-6)
    assert found["as_far"] == 1.0


@pytest.fixture(scope="module")
def section(trained: RunConfig) -> Section:
    numbers = evaluate_run(trained, "test")
    (found,) = profiles(trained, "test", ["u3"], numbers)
    return found


def test_a_profile_tells_weights_items_and_halves(section: Section) -> None:
    kinds = [type(part) for part in section.parts]
    assert kinds == [Text, Bars, Table, Table, Bars, Text]
    assert section.title == "User u3"
    own, everybody = section.parts[1].series
    assert sum(own.values) == pytest.approx(1, abs=1e-6)
    assert sum(everybody.values) == pytest.approx(1, abs=1e-6)
    assert len(section.parts[3].rows) == 10


def test_users_who_are_not_there_and_gates_that_tell_nothing_are_said(trained: RunConfig) -> None:
    with pytest.raises(RequestError, match="no user 'nobody'; found 301 such as"):
        profiles(trained, "test", ["nobody"], {})
