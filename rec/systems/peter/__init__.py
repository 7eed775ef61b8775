"""PETER, a small transformer that writes what a user would say of an item and rates it, to compare writers with."""

from rec.systems.peter.config import PETERConfig
from rec.systems.peter.model import PETERModel
from rec.systems.peter.system import PETER

__all__ = ["PETER", "PETERConfig", "PETERModel"]
