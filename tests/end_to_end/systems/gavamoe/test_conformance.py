"""GaVaMoE does what every system must do, in each of its ways."""

from typing import Any, ClassVar

import torch

from rec.conformance import Conformance
from rec.systems.gavamoe import GaVaMoE

LANGUAGE = {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "max_tokens": 24}
SHORT = {"words": "short"}


class TestGaVaMoE(Conformance):
    system = GaVaMoE
    configs: ClassVar[list[dict[str, Any]]] = [
        {"language": LANGUAGE, "experts": {"experts": 2, "per_row": 1}},
        {
            "language": LANGUAGE | {"checkpointing": True},
            "pairs": {"clusters": 1, "layers": 0, "item_vectors": ["text", "image"]},
            "experts": {"experts": 1, "fine": 2, "shared": "dense", "balance_weight": 0.01, "layers": [1]},
            "prompt": {"feature": False, "rating": "predicted", **SHORT},
        },
        {
            "language": LANGUAGE,
            "pairs": {"paper_scaling": True, "beta_schedule": True, "biases": False, "user_clusters": True, "words": 3},
            "experts": {"experts": 2, "init": "sliced", "soft_gate": True},
            "prompt": {"rating": "none", "own_vectors": False, **SHORT},
        },
        {"language": LANGUAGE, "experts": {"experts": 0}, "prompt": SHORT},
        {"language": LANGUAGE, "experts": {"experts": 2, "per_row": 1, "router": "random"}, "prompt": SHORT},
        {
            "language": LANGUAGE,
            "experts": {"experts": 2, "per_row": 1, "gates": "random", "balance_weight": 0.1},
            "prompt": SHORT,
        },
    ]

    def still(self, system: Any, module: Any) -> None:
        """Latents are hardly spread, and nobody is unknown by chance."""
        pairs = module.pairs
        pairs.config = pairs.config.model_copy(update={"unknown_share": 0.0})
        torch.nn.init.zeros_(pairs.log_variance.weight)
        torch.nn.init.constant_(pairs.log_variance.bias, -60.0)
