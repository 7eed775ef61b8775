"""HealthMoE: foods for patients by text, picture and attributes through a mixture of experts."""

from rec.systems.healthmoe.system import HealthMoE

__all__ = ["HealthMoE"]
