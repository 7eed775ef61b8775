"""Versions that differ between nodes: refused, said, or nothing to tell."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.runtime.versions import breaks, differing


@pytest.mark.parametrize(
    ("name", "found", "expected", "is_broken"),
    [
        ("torch", "2.7.1", "2.8.0", True),
        ("torch", "2.8.1", "2.8.0", False),
        ("python", "3.12.1", "3.11.7", True),
        ("python", "3.11.9", "3.11.7", False),
        ("rec", "0.1.1", "0.1.0", True),
        ("ray", "2.60.1", "2.60.0", True),
        ("deepspeed", None, "0.19.2", True),
    ],
)
def test_a_patch_is_said_and_the_rest_refused(name: str, found: str | None, expected: str, is_broken: bool) -> None:
    assert breaks(name, found, expected) is is_broken


def test_only_what_the_driver_has_and_a_node_has_not_differs() -> None:
    found = {"torch": "2.8.0+cpu", "numpy": "2.2.0", "pyarrow": None, "deepspeed": "0.19.0"}
    expected = {"torch": "2.8.0+cu128", "numpy": "2.3.0", "pyarrow": "19.0.0", "deepspeed": None}
    assert differing(found, expected) == {"numpy": "2.2.0", "pyarrow": None}
