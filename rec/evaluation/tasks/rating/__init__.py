"""Rating: a pair of user and item is answered with a number."""

from rec.evaluation.tasks.rating.task import Rating

__all__ = ["Rating"]
