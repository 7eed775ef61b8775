"""GaVaMoE: ratings and written reasons, by gates that clusters of pairs choose."""

from rec.systems.gavamoe.config import GaVaMoEConfig
from rec.systems.gavamoe.model import GaVaMoEModel
from rec.systems.gavamoe.system import GaVaMoE

__all__ = ["GaVaMoE", "GaVaMoEConfig", "GaVaMoEModel"]
