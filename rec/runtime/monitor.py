"""What workers tell the driver while they work, and how long each has been silent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray

Event = dict[str, Any]


@dataclass
class Rank:
    """What is known of one worker."""

    handle: bytes
    """The worker's actor handle, packed."""
    heard_s: float
    last: Event = field(default_factory=dict)


class _Monitor:
    """Actor that collects events; one per attempt at training."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ranks: dict[int, Rank] = {}
        self.blocks: dict[str, list[Any]] = {}
        self.leaving = False

    def join(self, rank: int, handle: bytes) -> None:
        """Make a worker known; its handle stays packed here, as unpacking it imports Ray Train."""
        self.ranks[rank] = Rank(handle, time.monotonic())

    def offer(self, split: str, blocks: list[Any]) -> None:
        """Hand a split's blocks, read once by the driver, to all workers."""
        self.blocks[split] = blocks

    def offered(self, split: str) -> list[Any] | None:
        """Return a split's blocks, None while they are being read."""
        return self.blocks.get(split)

    def leave(self) -> None:
        """Have workers save what they have done, and end."""
        self.leaving = True

    def put(self, rank: int, event: Event) -> bool:
        """Take one event of one worker; return whether it is to save what it has done, and end."""
        self.events.append(event)
        if rank in self.ranks:
            self.ranks[rank].heard_s = time.monotonic()
            self.ranks[rank].last = event
        return self.leaving

    def wait(self, rank: int) -> None:
        """Take note that a worker has done its own work and waits for others; it is silent all the same."""
        if rank in self.ranks:
            self.ranks[rank].last = {**self.ranks[rank].last, "kind": "waiting"}

    def poll(self) -> tuple[list[Event], dict[int, tuple[float, Event]]]:
        """Return the events since the last call, and each worker's silence in seconds with its last event."""
        events, self.events = self.events, []
        now = time.monotonic()
        return events, {rank: (now - known.heard_s, known.last) for rank, known in self.ranks.items()}

    def handles(self) -> list[bytes]:
        """Return the workers' actor handles, packed."""
        return [known.handle for known in self.ranks.values()]


Monitor = ray.remote(num_cpus=0)(_Monitor)


def least_done(silent: dict[int, tuple[float, dict[str, Any]]]) -> int:
    """Return the rank that all others wait for: of those at the lowest step that do not say that they wait, the one
    that has been silent for longest."""
    return min(
        silent,
        key=lambda r: (silent[r][1].get("total_step", 0), silent[r][1].get("kind") == "waiting", -silent[r][0]),
    )
