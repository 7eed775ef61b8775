"""Which node each worker is put on, and which workers share a copy of the experts; imports no Ray.

Groups are filled inside nodes where they fit; what is left over on nodes is used only where nothing else is there.
"""

from __future__ import annotations

from collections.abc import Sequence


def assign(rooms: Sequence[int], workers: int, size: int) -> list[int]:
    """Return the node of each of some workers, given how many each node has room for; a node's follow each other.

    Whole groups of `size` come first, on the nodes with most room, so that few nodes are used; then, if there are not
    enough, what is left over, the most of a node first.

    Raises:
        ValueError: there is not room for all.
    """
    if workers > sum(rooms):
        raise ValueError(f"room for {sum(rooms)} workers, expected {workers}")
    taken = [0] * len(rooms)
    by_room = sorted(range(len(rooms)), key=lambda node: (-rooms[node], node))
    left = workers
    for node in by_room:
        taken[node] = min(left, rooms[node]) // size * size
        left -= taken[node]
    for node in sorted(by_room, key=lambda node: taken[node] - rooms[node]):
        more = min(left, rooms[node] - taken[node])
        taken[node], left = taken[node] + more, left - more
    return [node for node in by_room for _ in range(taken[node])]


def expert_groups(nodes: Sequence[object], size: int) -> list[list[int]]:
    """Return the ranks that share a copy of the experts, in groups of `size`, given the node of each rank.

    Groups lie inside a node as long as it has enough ranks; the others take what nodes have left, the most of a node
    first. On one node they are consecutive ranks.
    """
    of_node: dict[object, list[int]] = {}
    for rank, node in enumerate(nodes):
        of_node.setdefault(node, []).append(rank)
    whole, rest = [], []
    for ranks in of_node.values():
        inside = len(ranks) // size * size
        whole += [ranks[start : start + size] for start in range(0, inside, size)]
        rest.append(ranks[inside:])
    left = [rank for ranks in sorted(rest, key=len, reverse=True) for rank in ranks]
    across = [sorted(left[start : start + size]) for start in range(0, len(left), size)]
    return sorted(whole + across)
