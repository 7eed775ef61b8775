"""What a person sees of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rec.progress import Progress


class Narrator:
    """Turns a run's events into lines for a person."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.line: Progress | None = None
        self.evaluating: Progress | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event of rank 0."""
        if event.get("rank", 0) != 0:
            return
        if event["kind"] == "step":
            total = event["epochs"] * event["steps"]
            if self.line is None:
                self.line = Progress("step", total)
            text = (
                f"{event['phase']} epoch {event['epoch'] + 1}/{event['epochs']} loss {event['loss']:.4f} "
                f"{event['examples_per_s']:.0f} examples/s, waiting for data {event['wait_share']:.1%}"
            )
            if event["moe"]:
                least = min(layer["use_entropy"] for layer in event["moe"].values())
                text += f", entropy of experts' use {least:.2f}"
            self.line.show(event["epoch"] * event["steps"] + event["step"], text)
        elif event["kind"] == "evaluating":
            if self.evaluating is None:
                self.evaluating = Progress("evaluate val", event["total"])
            self.evaluating.show(event["done"], "examples")
        elif event["kind"] == "evaluated":
            self.evaluating = None
            mark = " (best)" if event["best"] else ""
            losses = " ".join(f"{k} {v:.4f}" for k, v in event.items() if k.startswith("loss/"))
            self.say(f"epoch {event['epoch']}: {losses} val {event['metric']} {event[event['metric']]:.4f}{mark}")
