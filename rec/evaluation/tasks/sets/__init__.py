"""Sets: a visit is answered with a set of codes."""

from rec.evaluation.tasks.sets.task import Sets

__all__ = ["Sets"]
