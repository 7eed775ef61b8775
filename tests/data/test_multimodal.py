"""Public sets with texts and pictures: the counts that the specification gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rec.data.sources.multimodal import contents

from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.errors import DataError
from rec.keys import DataConfig
from tests.conftest import SHARED


def made(root: Path, **table: Any) -> Prepared:
    said: list[str] = []
    image = {"size": 16, "thumbnail": 0}
    return prepare(
        DataConfig.model_validate({"root": str(root), "pairs": table | {"image": image}}), InProcess(), said.append
    )


@pytest.fixture(scope="module")
def food_folder() -> Path:
    if not (SHARED / "food").is_dir():
        pytest.skip("needs ../shared/data/food, which is not part of the project")
    return SHARED / "food"


def test_contents_are_told_by_words() -> None:
    assert contents("2 eggs, Flour, almond milk") == ["nuts", "gluten", "milk", "eggs"]
    assert contents("rice") == []


def test_a_folder_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not readable as 'hummus'"):
        made(tmp_path / "data", kind="hummus", items=str(tmp_path))


@pytest.mark.data
def test_hummus_has_281_recipes_and_26764_ratings_of_known_meaning(food_folder: Path, tmp_path: Path) -> None:
    data = made(tmp_path, kind="hummus", items=str(food_folder / "hummus_subset"), minimum_relevance=4.0)
    assert data.num_items == 281
    assert "image" not in data.items.column_names
    kept, dropped = data.manifest["counts"]["interactions"], data.manifest["dropped"]
    assert kept + dropped["pair below minimum_relevance"] + dropped.get("pair twice", 0) == 28_491 - 1_727
    assert np.isfinite(data.array("item_attributes")).all()
    assert (np.asarray(data.array("item_contains")).any(1)).mean() > 0.5


@pytest.mark.data
def test_photographed_recipes_have_177_synthetic_pairs(food_folder: Path, tmp_path: Path) -> None:
    table = {"kind": "recipes", "items": str(food_folder), "food": {"pairs": 177}}
    data = made(tmp_path / "a", **table)
    assert data.manifest["synthetic_labels"]
    assert (data.num_items, data.num_users) == (396, 1000)
    assert data.manifest["counts"]["interactions"] == 177
    assert data.manifest["encoded"]["items"]["bad"] == 0
    photos = int(np.asarray(data.array("item_present"))[:, 1].sum())
    assert 130 <= photos <= 138
    only = made(tmp_path / "b", **table, drop_without_image=True)
    assert only.num_items == photos
    assert np.asarray(only.array("item_present"))[1:, 1].all()


@pytest.mark.data
def test_movielens_comes_with_overviews_and_posters(movielens: Path, tmp_path: Path) -> None:
    table = {"kind": "movielens", "items": str(movielens / "ml-100k"), "minimum_relevance": 4.0}
    data = made(tmp_path, **table, images=str(movielens / "posters_ml100k"))
    assert (data.num_users, data.num_items) == (943, 1682)
    assert data.manifest["counts"]["interactions"] == 55_375
    assert data.manifest["encoded"]["items"]["pictures"] == 1663
    toy = data.items.to_pylist()[0]
    assert toy["title"].startswith("Toy Story")
    assert "Andy" in toy["text"]
