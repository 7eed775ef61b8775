"""Ranking: a subject, the items to find (one or many), the items left out."""

from rec.evaluation.tasks.ranking.task import Ranking

__all__ = ["Ranking"]
