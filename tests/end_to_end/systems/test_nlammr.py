"""What NLA-MMR must do as a system."""

from typing import Any

from rec.systems.nlammr import NLAMMR
from tests.conformance import Conformance

SMALL = {"width": 8, "graph_width": 6, "graph_layers": 2, "dropout": 0.0, "graph_dropout": 0.0}
SWITCHES: list[dict[str, Any]] = [
    {},
    {"fusion": "gate"},
    {"fusion": "moe"},
    {"patient_moe": True, "mixture": {"router": "sigmoid"}},
    {"history_gate": True, "history": 3},
    {"missing_text_mask": True},
    {"ddi_weight": 0.01},
    {"ddi_weight": 1.0, "ddi_target": 0.05},
    {"ddi_filter": "greedy"},
    {"ddi_filter": "two_sat", "ddi_certain": 0.6, "ddi_common": 2},
    {"codes": True},
    {"ablate": "text"},
    {"ablate": "structure"},
    {"dedupe_molecules": True, "refresh_every": 2},
    {"train_plm": "full", "text": {"width": 8, "layers": 1, "heads": 2}},
]


class TestNLAMMR(Conformance):
    system = NLAMMR
    configs = [SMALL | one for one in SWITCHES]
