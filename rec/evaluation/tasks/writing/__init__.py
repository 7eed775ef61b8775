"""Writing: a pair of user and item is answered with a text."""

from rec.evaluation.tasks.writing.task import Writing

__all__ = ["Writing"]
