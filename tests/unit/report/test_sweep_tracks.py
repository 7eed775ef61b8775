"""Variants of two tracks are told apart by name in one table."""

import pytest

from rec.report.sweep import with_tracks

FREE = {"writing": {"track": "leak-free", "scored": "all words"}}
GIVEN = {"writing": {"track": "given the true feature", "scored": "all words"}}
CUT = {"writing": {"track": "leak-free", "scored": "the first 15 words of both texts"}}


@pytest.mark.parametrize(
    ("apart", "names"),
    [
        ({"full": FREE, "small": FREE}, ["full", "small"]),
        ({"full": FREE, "told": GIVEN}, ["full (track leak-free)", "told (track given the true feature)"]),
        ({"full": FREE, "cut": CUT}, ["full (scored all words)", "cut (scored the first 15 words of both texts)"]),
        ({"full": {}, "small": {}}, ["full", "small"]),
    ],
)
def test_variants_are_told_apart_by_what_they_may_not_be_ranked_across(
    apart: dict[str, dict[str, dict[str, str]]], names: list[str]
) -> None:
    assert list(with_tracks({name: {"apart": own} for name, own in apart.items()}).values()) == names
    assert list(with_tracks({name: {} for name in apart}).values()) == list(apart)
