from rec.conformance import Conformance
from rec.systems.gavamoe import GaVaMoE


class TestGaVaMoE(Conformance):
    system = GaVaMoE
    configs = [
        {},
        {"pairs": {"clusters": 1, "layers": 0, "item_vectors": ["text", "image"]}},
        {"pairs": {"paper_scaling": True, "beta_schedule": True, "biases": False}},
    ]
