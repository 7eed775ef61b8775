"""Conformance tests for systems of one's own: what training, measuring, serving and explaining take for granted.

In a test file, run by pytest:

    from rec.conformance import Conformance

    class TestMine(Conformance):
        system = Mine
        configs = [{}, {"width": 8}]     # tables of [model]

Each config is built on `Mine.sample(12, rng)`, small random rows and tables; no data set and no Ray are needed.
"""

from __future__ import annotations

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "rec.conformance: its tests are run by pytest, which is not installed: pip install pytest"
    ) from error

pytest.register_assert_rewrite("rec.conformance.checks")  # failures tell the values that they compare

from rec.conformance.checks import Alone, Conformance, in_phase, take  # noqa: E402

__all__ = ["Alone", "Conformance", "in_phase", "take"]
