"""What a run tells becomes metrics by rules that name no task."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.runtime.run_metrics import named, numbers


def test_numbers_of_tables_inside_are_found_and_what_is_no_number_is_not() -> None:
    event = {"kind": "step", "rank": 1, "loss": 0.5, "best": True, "load": [1.0], "moe": {"blocks.0": {"unused": 2}}}
    assert list(numbers(event)) == [(("loss",), 0.5), (("moe", "blocks.0", "unused"), 2.0)]


@pytest.mark.parametrize(
    ("kind", "words", "name", "part"),
    [
        ("step", ("loss",), "rec_step_loss", ""),
        ("evaluated", ("loss", "bce"), "rec_evaluated_loss", "bce"),
        ("step", ("moe", "blocks.0", "unused"), "rec_step_moe_unused", "blocks.0"),
        ("evaluated", ("ndcg@10",), "rec_evaluated_ndcg_10", ""),
        ("workers", ("workers",), "rec_workers", ""),
    ],
)
def test_a_name_says_kind_and_key_and_what_lies_between_is_the_part(
    kind: str, words: tuple[str, ...], name: str, part: str
) -> None:
    assert named(kind, words) == (name, part)
