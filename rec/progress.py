"""Progress of long work: one line that updates itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import threading
import time
from typing import ClassVar, Self, TextIO

from rec.levels import CLEARED, notes_are_shown

PLAIN_INTERVAL_S = 5.0
WAITED_S = 1.0
"""Seconds between looks at whether something must be said of work that goes on."""
PLAIN_WIDTH = 100
"""Columns where what is written goes to no terminal."""

PROGRESS = re.compile(r"^[^\d/]+ \d+/\d+(?= |,|$)|, \d+ (s|min \d+ s|h \d+ min) so far$")
"""What a plain line of `Progress` looks like: "step 3/100 loss 1.2", "waiting for workers, 7 s so far"."""


class Progress:
    """Shows how far a piece of work is, where notes are shown; total 0 means unknown.

    As a context manager it also says every few seconds that the work goes on, and for how long it has, where nothing
    else was shown: `with Progress("learn words"):` is all that work without parts needs. Of several that are open at
    the same time only the innermost speaks; what lies between them is told by the outer one.
    """

    _open: ClassVar[list[Progress]] = []
    """Those whose work goes on, the innermost last: what one shows, all have shown."""

    def __init__(self, title: str, total: int = 0, stream: TextIO | None = None) -> None:
        self.title, self.total, self.stream = title, total, stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.start_s = time.monotonic()
        self.shown_s = 0.0
        self.first: int | None = None
        self.over = False
        """Whether the last unit was shown: its line stays, and is shown once."""
        self.last = 0
        self.heard_s = self.start_s
        """When anything was shown last."""
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._teller: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.heard_s = self._open[-1].heard_s if self._open else time.monotonic()
        self._open.append(self)
        self._teller = threading.Thread(target=self._say_that_it_goes_on, daemon=True, name="progress")
        self._teller.start()
        return self

    def end(self) -> None:
        """Say no longer that the work goes on."""
        self._ended.set()

    def __exit__(self, *error: object) -> None:
        self.end()
        self._open.remove(self)
        if self._teller is not None:
            self._teller.join()

    def _say_that_it_goes_on(self) -> None:
        while not self._ended.wait(WAITED_S):
            now = time.monotonic()
            if self._open[-1:] == [self] and not self.over and now - self.heard_s >= PLAIN_INTERVAL_S:
                done = f" {self.last}/{self.total}" if self.total else ""
                line = f"{self.title}{done}, {duration(now - self.start_s)} so far"
                self._write(line, end="" if self.terminal else "\n")

    def show(self, done: int, text: str = "", force: bool = False) -> None:
        """Show that `done` of `total` units are finished; a plain line at most every few seconds."""
        now = time.monotonic()
        self.first = done if self.first is None else self.first
        self.last = done
        if self.over and done >= self.total:
            return
        if not force and now - self.shown_s < (0.1 if self.terminal else PLAIN_INTERVAL_S):
            return
        self.shown_s = now
        line = f"{self.title} {done}" + (f"/{self.total}" if self.total else "") + (f" {text}" if text else "")
        if self.first < done < self.total:
            left_s = (now - self.start_s) * (self.total - done) / (done - self.first)
            line += f" left {duration(left_s)}"
        self.over = bool(self.total) and done >= self.total
        self._write(line, end="" if self.terminal and not self.over else "\n")

    def done(self, text: str = "") -> None:
        """Show the end of the work and how long it took."""
        self._write(f"{self.title} {text} ({duration(time.monotonic() - self.start_s)})", end="\n")

    def _write(self, line: str, end: str) -> None:
        if not notes_are_shown():
            return
        with self._lock:
            self.stream.write(f"{CLEARED}{self._cut(line)}{end}" if self.terminal else f"{line}{end}")
            self.stream.flush()
        for line_open in (self, *self._open):
            line_open.heard_s = time.monotonic()

    def _cut(self, line: str) -> str:
        """Return a line that the terminal does not break: of two lines only the last could be taken back."""
        try:
            width = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError):  # a terminal that tells no size
            width = 80
        return line if width < 2 or len(line) < width else f"{line[: width - 2]}…"


class Merged:
    """Shows the log of work that goes on elsewhere: on a terminal, all its lines of progress as one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()

    def show(self, line: str) -> None:
        """Show a line."""
        if not self.terminal:
            self.stream.write(f"{line}\n")
        elif PROGRESS.search(line):
            self.stream.write(f"{CLEARED}{line[: max(1, terminal_width() - 2)]}")
        else:
            self.stream.write(f"{CLEARED}{line}\n")
        self.stream.flush()


def tell(text: str) -> None:
    """Print a result, in the place of a line of progress that a terminal still shows."""
    if sys.stderr.isatty():
        sys.stderr.write(CLEARED)
        sys.stderr.flush()
    print(text, flush=True)


def terminal_width() -> int:
    """Return the columns of the terminal, `PLAIN_WIDTH` where there is none."""
    return max(40, shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns)


def in_lines(text: str) -> str:
    """Return a text whose lines fit the terminal; what goes on is indented."""
    return "\n".join(
        textwrap.fill(line, terminal_width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def duration(seconds: float) -> str:
    """Return a span of time as a person reads it: 12 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
