"""Medications from codes alone: logistic regression, and the patient side of SafeDrug."""

from rec.systems.safedrug.config import CodeBaselineConfig
from rec.systems.safedrug.model import LogisticModel, RecurrentModel
from rec.systems.safedrug.system import CodeBaseline

__all__ = ["CodeBaseline", "CodeBaselineConfig", "LogisticModel", "RecurrentModel"]
