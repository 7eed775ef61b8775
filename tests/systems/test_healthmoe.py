"""HealthMoE: what every system must do, and what this one promises."""

from rec.systems.healthmoe import HealthMoE
from tests.conformance import Conformance

SMALL = {"width": 8, "hidden": 16, "out": 8, "dropout": 0.0, "negatives": 0}
TINY = {"text": {"width": 16, "layers": 1}, "image": {"width": 16, "layers": 1}}


class TestHealthMoE(Conformance):
    system = HealthMoE
    configs = [
        SMALL | TINY,
        SMALL | {"encoders": "frozen", "user": ["text", "attributes", "history"], "item": ["text", "image", "id"]},
        SMALL | TINY | {"mixture": {"experts": 0}, "loss": "bpr", "item": ["text", "attributes"], "negatives": 4},
        SMALL | TINY | {"head": "classification", "mixture": {"experts": 4, "per_row": 4}},
        SMALL | TINY | {"hidden": 0, "mixture": {"experts": 0}, "item": ["image", "id"]},
    ]
