"""HUMMUS: the counts that the specification gives."""

from pathlib import Path

import numpy as np
import pytest

from rec.errors import DataError
from tests.conftest import SHARED
from tests.support.own import prepared

SOURCE = "rec.data.sources.hummus:Hummus"


@pytest.fixture(scope="module")
def food_folder() -> Path:
    if not (SHARED / "food").is_dir():
        pytest.skip("needs ../shared/data/food, which is not part of the project")
    return SHARED / "food"


def test_a_folder_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not readable as HUMMUS \(FileNotFoundError"):
        prepared(tmp_path / "data", {"source": SOURCE, "read": {"folder": str(tmp_path)}})


@pytest.mark.data
def test_hummus_has_281_recipes_and_26764_ratings_of_known_meaning(food_folder: Path, tmp_path: Path) -> None:
    sections = {
        "source": SOURCE,
        "read": {"folder": str(food_folder / "hummus_subset")},
        "split": {"protocol": "ratio"},
    }
    data = prepared(tmp_path, sections | {"filter": {"minimum_rating": 4.0}, "encode": {}})
    assert data.num_items == 281
    assert "image" not in data.items.column_names
    counts, dropped = data.manifest["counts"], data.manifest["dropped"]
    assert (counts["interactions_read"], dropped["record with a rating of unknown meaning"]) == (28_491, 1_727)
    assert counts["interactions"] + sum(dropped.values()) == 28_491
    assert np.isfinite(data.array("item_attributes")).all()
    assert (np.asarray(data.array("item_contains")).any(1)).mean() > 0.5
