"""Unexpected errors of requests: from replicas through a file to whoever runs `rec serve`; imports no Ray."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

LOG = "REC_SERVE_LOG"
"""Where the environment of replicas names the file; without it they tell their own stderr, which Ray keeps."""
NAME = "errors.log"
POLL_S = 1.0


def tell_file() -> None:
    """Have what this process logs of errors appended to the file that the environment names, if it names one."""
    path, logger = os.environ.get(LOG), logging.getLogger("rec")
    if path and not any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        handler = logging.FileHandler(path, delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)


class FileFollower:
    """Tells what is appended to a file."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path, self.say, self.told = path, say, 0

    def tell(self) -> None:
        """Tell the lines that are there and were not told yet."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.told)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.told += len(whole)
        if whole:
            self.say(whole.decode("utf-8", "replace").rstrip("\n"))

    def follow(self) -> None:
        """Tell new lines for ever."""
        while True:
            self.tell()
            time.sleep(POLL_S)
