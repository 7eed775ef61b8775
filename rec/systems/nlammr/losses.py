"""How NLA-MMR turns its loss from accuracy to interactions; its parts are in `rec.nn.sets`."""

from __future__ import annotations

import math


def accuracy_share(rate: float, target: float) -> float:
    """Return the share of accuracy in a loss whose rest is interactions: 1 up to the target, less above.

    Source: Yang et al. 2023 (MoleRec), equation 16.
    """
    return min(math.exp(2.5 * (1 - rate / target)), 1.0)
