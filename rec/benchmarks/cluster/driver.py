"""Trains a config as a driver on a node, and writes every event with its time: `python -m ... CONFIG EVENTS`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rec.config import from_json
from rec.json_text import json_text
from rec.runtime.launch import train


def main(config: str, events: str) -> None:
    """Train the config in a file, and write its events to another."""
    with Path(events).open("a", buffering=1) as file:

        def report(event: dict[str, Any]) -> None:
            file.write(json_text({"at_s": time.time(), **event}) + "\n")

        train(from_json(Path(config).read_text()), report, lambda text: print(text, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
