"""What a person sees of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rec.progress import Progress, in_lines
from rec.sections import number


class Narrator:
    """Turns a run's events into lines for a person."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.line: Progress | None = None
        self.phase = ""
        self.evaluating: Progress | None = None
        self.troubled = -1
        """The step of the last checkpoint that ranks could not write."""
        self.heard = False
        """Whether anything was done."""

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event of rank 0."""
        if event["kind"] == "trouble" and event["total_step"] != self.troubled:
            self.troubled = event["total_step"]  # ranks have the same trouble at the same time
            self.say(event["text"])
        if event.get("rank", 0) != 0:
            return
        self.heard = True
        if event["kind"] == "placed":
            self.say("workers are placed and load the model")
        elif event["kind"] == "note":
            self.say(event["text"])
        elif event["kind"] == "step":
            if self.line is None or event["phase"] != self.phase:
                # Each phase has steps of its own, and a pace of its own.
                title = f"{event['phase']} step" if event["phases"] > 1 else "step"
                self.line, self.phase = Progress(title, event["epochs"] * event["steps"]), event["phase"]
            text = (
                f"epoch {event['epoch'] + 1}/{event['epochs']} loss {event['loss']:.4f} "
                f"{event['examples_per_s']:.0f} examples/s, waiting for data {event['wait_share']:.1%}"
            )
            if event["moe"]:
                used = [layer["use_entropy"] for layer in event["moe"].values() if layer["largest_share"]]
                text += f", entropy of experts' use {min(used):.2f}" if used else ""
            self.line.show(event["epoch"] * event["steps"] + event["step"], text)
        elif event["kind"] == "evaluating":
            if self.evaluating is None:
                self.evaluating = Progress("evaluate val", event["total"])
            self.evaluating.show(event["done"], "examples")
        elif event["kind"] == "evaluated":
            self.evaluating = None
            mark = " (best)" if event["best"] else ""
            phase = f"{event['phase_name']} " if event["phases"] > 1 else ""
            parts = [f"{k.removeprefix('loss/')} {number(v)}" for k, v in event.items() if k.startswith("loss/")]
            stopped = f"; stopped early, {event['why']}" if event["stopped"] else ""
            value = event[event["metric"]]
            if number(value) == number(None):
                mark += "; no example of validation has a value: until one has, the last checkpoint counts as the best"
            told = f"{phase}epoch {event['epoch']}: validation {event['metric']} {number(value)}{mark}{stopped}"
            self.say(in_lines("; ".join([told, *([f"loss {', '.join(parts)}"] if parts else [])])))
