"""The training loop and what it needs, on one process or many."""
