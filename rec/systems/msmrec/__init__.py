"""MSMRec: SASRec whose items carry K text vectors, mixed by a gate that knows the user."""

from rec.systems.msmrec.system import MSMRec

__all__ = ["MSMRec"]
