"""LightGCN and its kin on one model: BPR, VBPR, FREEDOM-like."""

from rec.systems.lightgcn.config import LightGCNConfig
from rec.systems.lightgcn.model import LightGCNModel
from rec.systems.lightgcn.system import GraphRecommender, LightGCN

__all__ = ["GraphRecommender", "LightGCN", "LightGCNConfig", "LightGCNModel"]
