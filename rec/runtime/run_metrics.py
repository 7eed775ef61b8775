"""What a run tells, as metrics of Ray's: Prometheus finds them beside those of the node that the driver runs on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray.util.metrics import Counter, Gauge

from rec.train.loop import Report

SHOWN = ("step", "evaluated", "workers")
"""Kinds of events whose numbers are shown; of others only that they came."""
TAGS = ("run", "rank", "phase", "part")
APART = ("rank", "phase")
"""What numbers are told by, and no numbers themselves."""
NAME = re.compile(r"\W+")


class RunMetrics:
    """Passes a run's events on, and keeps their latest numbers as gauges by run, rank, phase and part.

    A number of an event is the gauge `rec_KIND_NAME`, whatever the event; one of a table inside, such as what a mixture
    layer tells, has that table's place as its part. `rec_events` counts events by kind.
    """

    def __init__(self, run: str, report: Report) -> None:
        """Show the numbers of a run, whose name is one of the tags."""
        self.run, self.report = run, report
        self.gauges: dict[str, Gauge] = {}
        self.events = Counter("rec_events", description="Events of a run, by kind.", tag_keys=("run", "kind"))

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event."""
        self.report(event)
        self.events.inc(1.0, {"run": self.run, "kind": event["kind"]})
        if event["kind"] not in SHOWN:
            return
        phase = event.get("phase_name", event.get("phase", ""))
        tags = {"run": self.run, "rank": str(event.get("rank", "")), "phase": str(phase)}
        for words, value in numbers(event):
            name, part = named(event["kind"], words)
            if name not in self.gauges:
                self.gauges[name] = Gauge(name, description="What a run told last.", tag_keys=TAGS)
            self.gauges[name].set(value, {**tags, "part": part})


def numbers(event: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the numbers of an event and of tables inside it, with the words that lead there; lists are left out."""
    for key, value in event.items():
        if isinstance(value, Mapping):
            yield from (((key, *words), number) for words, number in numbers(value))
        elif isinstance(value, int | float) and not isinstance(value, bool) and key not in APART:
            yield tuple(key.split("/")), float(value)


def named(kind: str, words: Sequence[str]) -> tuple[str, str]:
    """Return the gauge of a number, and its part: ("loss", "bce") and ("moe", "blocks.0", "use_entropy") have one."""
    first, *middle = words
    last = [middle.pop()] if len(words) > 2 else []
    outer = [] if kind == first else [kind]
    return "_".join(NAME.sub("_", word).strip("_") for word in ("rec", *outer, first, *last)), ".".join(middle)
