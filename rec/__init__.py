"""rec: distributed training of multimodal mixture-of-experts recommenders on Ray."""

__version__ = "0.1.0"
