"""Hyperparameter search without a cluster: spaces, trials as runs, and what is told of a search."""
