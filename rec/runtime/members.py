"""Objects in processes of their own, which are asked all at once: ranks of a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray


class ActorMembers:
    """Objects of one kind, each in an actor that takes no CPU from others' account."""

    def __init__(self, kind: Callable[..., Any], count: int, *arguments: Any) -> None:
        self.actors = [ray.remote(num_cpus=0)(kind).remote(*arguments, number) for number in range(count)]

    def ask(self, first: int, method: str, *arguments: Any) -> list[Any]:
        """Return what a method returns to each of the first ones."""
        answers: list[Any] = ray.get([getattr(actor, method).remote(*arguments) for actor in self.actors[:first]])
        return answers

    def close(self) -> None:
        """End their processes."""
        for actor in self.actors:
            ray.kill(actor)
