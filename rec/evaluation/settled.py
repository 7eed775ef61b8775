"""What tasks choose on validation once a checkpoint is chosen, such as a threshold: kept beside the run, and in use.

settled.json   the step and the keys that it was chosen by, and what each task has chosen
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from rec.config import RunConfig
from rec.data.prepared import Prepared
from rec.data.stream import CachedReader
from rec.storage import Storage, to_bytes
from rec.systems.api import System
from rec.train.feed import PlannedFeed

FILE, FORMAT = "settled.json", 1


def settle(
    config: RunConfig, data: Prepared, system: System[Any, Any], module: nn.Module, step: int
) -> dict[str, dict[str, Any]]:
    """Let each task of a trained system choose what it chooses on validation, and return that by the task's name.

    The system's tasks are then those that have chosen. What is on file for this checkpoint, data set and keys is read.
    """
    plain = config.evaluate.model_dump(mode="json")
    keys = {name: plain[name] for task in system.tasks for name in task.evaluate_keys}
    told = {"format": FORMAT, "step": step, "data": data.identity(), "keys": keys}
    storage = Storage(config.out)
    before: dict[str, Any] = storage.read_json(FILE) if storage.exists(FILE) else {}
    if before and {name: before.get(name) for name in told} == told:
        chosen = before["tasks"]
    else:
        chosen = _chosen(config, data, system, module)
        if chosen:
            storage.renew(FILE, to_bytes({**told, "tasks": chosen}))
    use(system, chosen)
    return dict(chosen)


def use(system: System[Any, Any], chosen: Mapping[str, Mapping[str, Any]]) -> None:
    """Give a system the tasks that have chosen this."""
    system.tasks = tuple(task.settled(chosen.get(task.name, {})) for task in system.tasks)


def _chosen(
    config: RunConfig, data: Prepared, system: System[Any, Any], module: nn.Module
) -> dict[str, dict[str, Any]]:
    device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    was_training = module.training
    module.eval()
    found = {}
    with torch.inference_mode():
        for task in system.tasks:
            feed = PlannedFeed(data, system, config.train, CachedReader(data.storage, system.columns), 0, 1)
            if own := task.settle(system, module, _batches(feed, device), config.evaluate):
                found[task.name] = own
    module.train(was_training)
    return found


def _batches(feed: PlannedFeed, device: torch.device) -> Iterator[Any]:
    for batch, _ in feed.evaluate("val"):
        yield batch.to(device)
