"""Writing: a pair of user and item is answered with a text."""
