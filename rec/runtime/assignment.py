"""On which node Ray starts each worker of a run whose ranks share experts: whole groups on a node where they fit."""

from __future__ import annotations

import time

import ray

from rec.cluster.machines import Machine
from rec.cluster.placing import assign
from rec.runtime.cluster import fitting, living_nodes, runtime
from rec.train.config import ParallelConfig

NODE_ID = "ray.io/node-id"
"""A label that Ray gives every node."""
PATIENCE_S, POLL_S = 5.0, 0.2
"""Longest wait for what workers of an attempt before this one had reserved, and seconds between looks."""


def node_of_each(parallel: ParallelConfig) -> list[dict[str, str]] | None:
    """Return a label selector for each worker; None where Ray may choose nodes by itself, which packs them.

    Ray would put three of four workers on a node with room for three, though pairs of them share experts and two nodes
    have room for a pair each. Trials of a search choose at the same time, so that all would choose the same nodes.
    """
    if parallel.expert_parallel == 1 or ray.get_runtime_context().get_actor_id() is not None:
        return None
    deadline_s = time.monotonic() + PATIENCE_S
    while sum((rooms := _rooms(parallel)).values()) < parallel.workers:
        if time.monotonic() > deadline_s:
            return None
        time.sleep(POLL_S)
    names = [name for name, room in rooms.items() if room]
    if len(names) == 1:
        return None
    found = assign([rooms[name] for name in names], parallel.workers, parallel.expert_parallel)
    return [{NODE_ID: names[node]} for node in found]


def nodes_there() -> list[Machine]:
    """Return the living nodes of the cluster that RAY_ADDRESS names, by their addresses; nothing is started there.

    Raises:
        ConfigError: none answers there.
    """
    with runtime(0):
        nodes = [(node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [Machine(name, held.get("CPU", 0.0), held.get("GPU", 0.0)) for name, held in sorted(nodes)]


def _rooms(parallel: ParallelConfig) -> dict[str, int]:
    """Return how many workers each living node has room for now."""
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return {node: fitting(parallel.worker_resources, [free.get(node, {})]) for node in living_nodes()}
