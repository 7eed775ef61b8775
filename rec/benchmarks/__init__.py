"""Measurements of speed, each beside its limit."""
