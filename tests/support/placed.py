"""Where Ray puts workers that share experts, run as a driver on a cluster: prints the node of each rank."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from rec.runtime.assignment import node_of_each
from rec.runtime.network import ConnectedWorkers
from rec.train.config import ParallelConfig


def tell(given: dict[str, Any]) -> None:
    """Write which node this rank is on."""
    rank = ray.train.get_context().get_world_rank()
    (Path(given["folder"]) / str(rank)).write_text(ray.util.get_node_ip_address())


def nodes_of(workers: int, size: int, *, pinned: bool) -> list[str]:
    """Return the node of each rank, as it is chosen here, or as Ray chooses by itself."""
    parallel = ParallelConfig(workers=workers, expert_parallel=size)
    with tempfile.TemporaryDirectory() as folder:
        DataParallelTrainer(
            tell,
            train_loop_config={"folder": folder},
            backend_config=ConnectedWorkers(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers,
                resources_per_worker=parallel.worker_resources,
                label_selector=node_of_each(parallel) if pinned else None,
            ),
            run_config=ray.train.RunConfig(storage_path=folder, name="placed"),
        ).fit()
        return [(Path(folder) / str(rank)).read_text() for rank in range(workers)]


if __name__ == "__main__":
    ray.init(log_to_driver=False)
    found = {name: nodes_of(4, 2, pinned=name == "ours") for name in ("ours", "ray's")}
    Path(sys.argv[1]).write_text(json.dumps(found))
