"""Photographed public-domain recipes: the counts that the specification gives."""

from pathlib import Path

import numpy as np
import pytest

from rec.data.sources.recipes import contents
from rec.errors import DataError
from tests.support.own import prepared
from tests.unit.data.sources.test_hummus import food_folder

__all__ = ["food_folder"]
SOURCE = "rec.data.sources.recipes:Recipes"


def test_contents_are_told_by_words() -> None:
    assert contents("2 eggs, Flour, almond milk") == ["nuts", "gluten", "milk", "eggs"]
    assert contents("rice") == []


def test_a_folder_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not readable as 'recipes' \(FileNotFoundError"):
        prepared(tmp_path / "data", {"source": SOURCE, "read": {"folder": str(tmp_path)}})


@pytest.mark.data
def test_photographed_recipes_have_177_synthetic_pairs(food_folder: Path, tmp_path: Path) -> None:
    read = {"folder": str(food_folder), "pairs": 177}
    sections = {"source": SOURCE, "split": {"protocol": "ratio"}, "encode": {"image": {"size": 16, "thumbnail": 0}}}
    data = prepared(tmp_path / "a", sections | {"read": read})
    assert data.manifest["synthetic_labels"]
    assert (data.num_items, data.num_users) == (396, 1000)
    assert data.manifest["counts"]["interactions"] == 177
    assert data.manifest["encoded"]["items"]["bad"] == 0
    photos = int(np.asarray(data.array("item_present"))[:, 1].sum())
    assert 130 <= photos <= 138
    only = prepared(tmp_path / "b", sections | {"read": read | {"photographed": True}})
    assert only.num_items == photos
    assert np.asarray(only.array("item_present"))[1:, 1].all()
