"""Where texts of items lie: figures by modality and by genre, and how many near items share theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rec.report.text_map import categories, evenly, near_alike, text_map, tsne
from rec.sections import Lines, Table, Text
from tests.support.films import film_tables
from tests.support.own import prepared


def test_the_nearest_share_a_category_as_counted_by_hand() -> None:
    vector = np.array([[1, 0.1], [1, 0], [1, 0.2], [0, 1], [0.1, 1], [0, 0], [1, 1]], np.float32)
    category = np.array(["a", "a", "a", "b", "b", "a", ""], dtype=object)  # the last two have no vector, no category
    share, chance = near_alike(vector, category)
    # Five items are left, so that all other four are an item's nearest.
    assert share == pytest.approx((3 * 2 / 4 + 2 * 1 / 4) / 5)
    assert chance == pytest.approx((3 * 2 + 2 * 1) / (5 * 4))


def test_what_is_alike_is_found_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    category = np.array([f"c{n % 4}" for n in range(80)], dtype=object)
    centre = np.eye(4)[np.arange(80) % 4]
    planted, drawn = centre + 0.05 * rng.normal(size=(80, 4)), rng.normal(size=(80, 4))
    assert near_alike(planted, category)[0] == 1.0
    share, chance = near_alike(drawn, category)
    assert chance == pytest.approx(4 * 20 * 19 / (80 * 79))
    assert abs(share - chance) < 0.1


def test_nothing_known_has_no_share() -> None:
    assert np.isnan(near_alike(np.zeros((3, 2)), np.array(["a", "b", "c"], dtype=object))).all()


def test_points_of_groups_lie_apart_and_repeat() -> None:
    rng = np.random.default_rng(0)
    vector = np.repeat(np.eye(5)[:3], 20, 0) + 0.02 * rng.normal(size=(60, 5))
    first, again = tsne(vector), tsne(vector)
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first, again)
    distance = np.linalg.norm(first[:, None] - first[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance.argmin(1) // 20 == np.arange(60) // 20).all()


def test_the_same_vectors_are_one_point_and_too_few_are_none() -> None:
    vector = np.repeat(np.eye(12), 3, 0)
    found = tsne(vector)
    assert found is not None
    assert len(np.unique(found, axis=0)) == 12
    np.testing.assert_array_equal(found[::3], found[2::3])
    assert tsne(np.repeat(np.eye(5), 30, 0)) is None


def test_places_are_chosen_evenly() -> None:
    assert evenly(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert evenly(np.arange(3), 4).tolist() == [0, 1, 2]


def test_a_data_set_is_drawn_by_modality_and_by_genre(tmp_path: Path) -> None:
    sections = film_tables(tmp_path, 24, names=("plot", "title"))
    sections["text"]["width"] = 32
    data = prepared(tmp_path / "data", sections, view="sequences")
    column, first = categories(data)
    assert column == "genres"
    assert first is not None
    assert first.tolist()[:3] == ["Drama", "Musical", "Action"]
    parts = text_map(data)
    figures = [part for part in parts if isinstance(part, Lines)]
    assert [figure.title for figure in figures] == [
        "texts by modality", "all texts as one, by genres", "title, by genres"
    ]  # fmt: skip
    assert [len(series.x) for series in figures[0].series] == [24, 16]  # every third film has no plot
    assert {series.name: len(series.x) for series in figures[2].series} == dict.fromkeys(
        ["Drama", "Musical", "Action"], 8
    )
    (table,) = (part for part in parts if isinstance(part, Table))
    plot = next(row for row in table.rows if row[0] == "plot")
    assert list(plot[1:]) == [
        "0.700",
        "0.467",
    ]  # seven of its genre share its plot, three others are as far as all


def test_items_without_a_category_are_drawn_by_modality_alone(tmp_path: Path) -> None:
    sections = film_tables(tmp_path, 24, names=("plot", "title"))
    sections["read"]["keep"], sections["text"]["width"] = ["plot"], 32
    parts = text_map(prepared(tmp_path / "data", sections, view="sequences"))
    assert [type(part) for part in parts] == [Lines, Text]


def test_a_data_set_without_texts_has_no_map(tmp_path: Path) -> None:
    sections = film_tables(tmp_path, 30)
    del sections["text"]
    assert text_map(prepared(tmp_path / "data", sections, view="sequences")) == []
