"""MAGNET: a recommender on two views of a graph with experts of modalities and roles."""

from rec.systems.magnet.system import Magnet

__all__ = ["Magnet"]
