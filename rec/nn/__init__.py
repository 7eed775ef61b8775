"""Blocks that two or more systems use."""
