"""Numbers of small versions of every shipped config that a change of structure must not move."""
