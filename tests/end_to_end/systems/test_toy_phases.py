"""The toy of two phases does what every system must."""

from __future__ import annotations

from rec.conformance import Conformance
from tests.support.toy_phases import TOY_EXPERTS, TOY_MODEL, ToyPhases


class TestToyPhases(Conformance):
    system = ToyPhases
    configs = [TOY_MODEL | {"max_length": 10, "feedforward_mixture": TOY_EXPERTS}, TOY_MODEL | {"max_length": 10}]
