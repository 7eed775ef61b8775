"""Training as `rec train` does it, with its events in a file: `python -m ... EVENTS CONFIG key=value`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from rec.config import load
from rec.errors import RecError
from rec.json_text import json_text
from rec.progress import Progress
from rec.runtime.launch import train

KINDS = ("workers", "ready", "step", "saving", "saved", "said")


def main(words: Sequence[str]) -> int:
    """Train, and return 1 where that ends with an error."""
    events, file, *overrides = words
    with Path(events).open("a", buffering=1) as log, Progress("train"):
        note = partial(_note, log)
        try:
            train(load(file, overrides), note, lambda text: note({"kind": "said", "text": text}), file)
        except RecError as error:
            note({"kind": "said", "text": f"error: {error}"})
            return 1
    return 0


def _note(log: IO[str], event: Mapping[str, Any]) -> None:
    """Write one event of the first rank, or of the driver, as a line with the time at which it was heard."""
    if event["kind"] in KINDS and not event.get("rank"):
        kept = {name: value for name, value in event.items() if isinstance(value, int | float | str)}
        log.write(f"{json_text({'at_s': time.time()} | kept)}\n")
        if event["kind"] == "said":
            print(event["text"], file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
