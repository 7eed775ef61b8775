"""One rank of a run in a network namespace of its own, run as a script: trains, and tells what its link has carried."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

LINK = Path("/sys/class/net/eth0/statistics")
FIRST, LAST = 3, 23
"""Steps between which bytes are counted."""


class Enough(Exception):
    """The last step is made."""


def carried() -> tuple[int, int]:
    """Return the bytes that the link has sent and received so far."""
    return int((LINK / "tx_bytes").read_text()), int((LINK / "rx_bytes").read_text())


def train(rank: int, world: int, config_text: str) -> dict[str, Any]:
    """Train up to the last step; return bytes sent and received per step, and the most memory of tensors."""
    import torch.distributed

    from rec.config import from_json
    from rec.data.prepared import open_prepared
    from rec.data.stream import CachedReader
    from rec.evaluation.measure import directions
    from rec.runtime.deepspeed import DeepSpeedEngine
    from rec.runtime.ranks import TorchRanks
    from rec.storage import Storage
    from rec.train.checkpoint import CheckpointStore
    from rec.train.feed import PlannedFeed
    from rec.train.job import build
    from rec.train.loop import Job, fit
    from rec.train.memory import peaks
    from rec.train.saver import Saver

    config = from_json(config_text)
    data = open_prepared(config)
    system = build(config, data)
    seen: list[tuple[int, int]] = []
    before = peaks()["peak_memory_bytes"]

    class Counting(DeepSpeedEngine):
        def step(self, rate: float) -> Any:
            norm = super().step(rate)
            torch.distributed.barrier()
            seen.append(carried())
            if len(seen) > LAST:
                raise Enough
            return norm

    def wrap(module: Any, keys: Any) -> Counting:
        return Counting(module, keys, config.parallel, nodes=[str(other) for other in range(world)])

    store = CheckpointStore(Storage(config.out).below("checkpoints"))
    feed = PlannedFeed(data, system, config.train, CachedReader(data.storage, system.columns), rank, world)
    job = Job(
        system=system, config=config.train, wrap=wrap, feed=feed, report=lambda _: None,
        saver=Saver(store, TorchRanks()), ranks=TorchRanks(), directions=directions(system.tasks),
    )  # fmt: skip
    with contextlib.suppress(Enough):
        fit(job)
    each = [(last - first) / (LAST - FIRST) for first, last in zip(seen[FIRST], seen[LAST], strict=True)]
    return {"sent": each[0], "received": each[1], "memory": peaks()["peak_memory_bytes"] - before}


def main(rank: int, world: int, meeting: str, config_file: str) -> None:
    """Join the other ranks and train."""
    os.environ.update(DS_ACCELERATOR="cpu", GLOO_SOCKET_IFNAME="eth0", OMP_NUM_THREADS="1")
    os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(world))
    import torch
    import torch.distributed

    import rec.runtime.deepspeed  # noqa: F401 (so that memory of imports is there before what is counted)
    from rec.runtime.deepspeed_experts import import_deepspeed
    from rec.train.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    import_deepspeed()
    found = train(rank, world, Path(config_file).read_text())
    torch.distributed.barrier()
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may wait for peers that have gone


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
