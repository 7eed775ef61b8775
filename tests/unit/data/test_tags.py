"""Tags are the same without case, surrounding space and the way of writing accents."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rec.data.joined import tags_table
from rec.data.tags import tag_key
from rec.errors import DataError


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("peanut", "Peanut"),
        ("MILK", " milk\t"),
        ("Nu\u00df", "NUSS"),
        ("cre\u0300me", "Cr\u00e8me"),
        ("\u0130", "i\u0307"),
    ],
)
def test_tags_that_people_take_for_one_are_one(first: str, second: str) -> None:
    assert tag_key(first) == tag_key(second)
    users, items = pd.DataFrame({"avoid": [first, None]}), pd.DataFrame({"has": [[second], []]})
    tags = tags_table(users, "avoid", items, "has")
    assert tags.names == [first.strip()]
    assert tags.avoid_UT.tolist() == [[True], [False]]
    assert tags.contains_IT.tolist() == [[False], [True], [False]]


def test_other_tags_stay_apart_and_are_sorted_as_written() -> None:
    users = pd.DataFrame({"avoid": ["soy; Milk;;egg ", "milk;EGG"]})
    tags = tags_table(users, "avoid", pd.DataFrame({"has": [["Fish"]]}), "has")
    assert tags.names == ["Fish", "Milk", "egg", "soy"]
    assert tags.avoid_UT.tolist() == [[False, True, True, True], [False, True, True, False]]


@pytest.mark.parametrize("cell", [None, np.nan, pd.NA, "", " ; ", [], [None, " ", np.nan], np.array([])])
def test_cells_without_a_tag_hold_none(cell: Any) -> None:
    users = pd.DataFrame({"avoid": pd.Series([cell, "milk"], dtype=object)})
    tags = tags_table(users, "avoid", pd.DataFrame({"x": [1]}), None)
    assert tags.names == ["milk"]
    assert tags.avoid_UT.tolist() == [[False], [True]]


def test_a_tag_that_no_request_could_name_is_refused() -> None:
    users = pd.DataFrame({"avoid": ["x" * 257]})
    with pytest.raises(DataError, match="has 257 characters, expected at most 256"):
        tags_table(users, "avoid", pd.DataFrame({"x": [1]}), None)
