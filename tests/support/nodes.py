"""What holds on a cluster of several nodes: run as a script, as it starts one (`ray.cluster_utils`) on this machine."""

from __future__ import annotations

import sys
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rec.data.prepared import Prepared
from rec.errors import DataError
from rec.nn.history import COLUMNS
from rec.runtime import datasets

STORES = (300 << 20, 80 << 20)
"""Bytes of shared memory of each node."""


def check(root: str) -> None:
    """Check that what fits is judged by the smallest node, and that workers of a node share one reader."""
    data = Prepared.open(root, "sequences")
    assert sorted(datasets.object_stores().values()) == sorted(map(float, STORES))
    size = 4 * sum(e["bytes"] for e in data.manifest["files"] if e["name"] in dict(data.files("train")))
    for factor, fits in ((1.01, True), (0.99, False)):  # far below the shared memory of both nodes together
        datasets.SHARED_SHARE = factor * size / STORES[1]
        assert datasets.fits_shared_memory(data, ("train",)) is fits
    names = [name for name, _ in data.files("train")]
    order = [names[i] for i in (3, 0, 4, 1, 2)]
    wanted = [data._parquet(name) for name in order]
    for node in datasets.object_stores():
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        workers = [Worker.options(scheduling_strategy=here).remote(root) for _ in range(3)]
        for epoch in range(2):
            for found in ray.get([worker.read.remote(order[epoch:]) for worker in workers]):
                assert all(a.equals(b) for a, b in zip(found, wanted[epoch:], strict=True))
        # Groups of one file each: those of the second epoch are still at hand.
        assert ray.get([worker.made.remote() for worker in workers]) == [len(order)] * len(workers)
        assert ray.get(workers[0].missing.remote()) == "DataError"
        for worker in workers:
            ray.kill(worker)


@ray.remote(num_cpus=0)
class Worker:
    """Reads as a worker of a training run does."""

    def __init__(self, root: str) -> None:
        datasets.GROUP_BYTES = 1
        self.data = Prepared.open(root, "sequences")
        self.reader = datasets.StreamingReader(self.data, COLUMNS, "attempt")

    def read(self, names: list[str]) -> list[Any]:
        """Return the tables of files."""
        return list(self.reader.read(names))

    def made(self) -> int:
        """Return how often the node's reader has made a group."""
        return int(ray.get(self.reader.actor.spent.remote())[0])

    def missing(self) -> str:
        """Return what a file that is not there raises."""
        self.reader.bytes["nothing"] = 1
        try:
            list(self.reader.read(["nothing"]))
        except DataError as error:
            return type(error).__name__
        return ""


if __name__ == "__main__":
    cluster = Cluster(
        True, head_node_args={"num_cpus": 2, "object_store_memory": STORES[0], "include_dashboard": False}
    )
    cluster.add_node(num_cpus=2, object_store_memory=STORES[1])
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        check(sys.argv[1])
    finally:
        ray.shutdown()
        cluster.shutdown()
