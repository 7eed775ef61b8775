"""Readers of public data sets and of own tables: raw files in, interactions and item metadata out."""
