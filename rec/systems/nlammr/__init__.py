"""NLA-MMR: medication sets from clinical text and molecules."""

from rec.systems.nlammr.system import NLAMMR

__all__ = ["NLAMMR"]
