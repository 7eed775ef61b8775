"""Lines of progress on a terminal and elsewhere: whole, once, never wider than the terminal."""

import io
import os
import pty
import select
import sys
import time
from collections.abc import Iterator

import pytest

from rec.levels import say
from rec.progress import Progress, in_lines, tell


class Terminal(io.TextIOWrapper):
    """A terminal of 40 columns, and what a person sees on it."""

    def __init__(self, columns: int = 40) -> None:
        import fcntl
        import struct
        import termios

        self.reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        super().__init__(os.fdopen(writer, "wb", buffering=0), write_through=True)

    def lines(self) -> list[str]:
        """Return what stands on the terminal: a carriage return with a clear takes a line back."""
        text = ""
        there = select.poll()  # which takes any number of open files, where `select` ends at 1,024
        there.register(self.reader, select.POLLIN)
        while there.poll(200):
            text += os.read(self.reader, 1 << 16).decode()
        text = text.replace("\r\n", "\n")
        return [line.rsplit("\r\x1b[K", 1)[-1] for line in text.split("\n")]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal()
    yield found
    found.close()


def test_a_line_is_cut_to_the_terminal_and_taken_back_whole(terminal: Terminal) -> None:
    line = Progress("step", 100, terminal)
    for done in (1, 2, 3):
        line.show(done, "epoch 1/10 loss 4.1234 1,234 examples/s, waiting for data 1.2 %", force=True)
    (seen,) = terminal.lines()
    assert seen.startswith("step 3/100 epoch 1/10")
    assert seen.endswith("…")
    assert len(seen) < 40


def test_the_end_is_shown_once_and_stays(terminal: Terminal) -> None:
    line = Progress("evaluate", 3, terminal)
    for done in (0, 3, 3, 3):
        line.show(done, "examples", force=True)
    terminal.write("a table\n")
    assert terminal.lines() == ["evaluate 3/3 examples", "a table", ""]


def test_a_message_takes_the_place_of_an_open_line(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    Progress("step", 100, terminal).show(7, force=True)
    say("epoch 1: done")
    assert terminal.lines() == ["epoch 1: done", ""]


def test_elsewhere_lines_are_plain_and_whole() -> None:
    stream = io.StringIO()
    line = Progress("step", 3, stream)
    for done in (1, 3, 3):
        line.show(done, "x" * 200, force=True)
    assert stream.getvalue().splitlines() == [f"step 1/3 {'x' * 200}", f"step 3/3 {'x' * 200}"]
    assert "left 0 s" not in stream.getvalue()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look, and tell, a hundred times as often."""
    monkeypatch.setattr("rec.progress.WAITED_S", 0.01)
    monkeypatch.setattr("rec.progress.PLAIN_INTERVAL_S", 0.05)


def test_work_without_parts_says_that_it_goes_on_until_it_ends(hurried: None) -> None:
    stream = io.StringIO()
    with Progress("learn words", stream=stream):
        time.sleep(0.3)
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= 6
    assert set(lines) == {"learn words, 0 s so far"}
    time.sleep(0.1)
    assert stream.getvalue().splitlines() == lines


def test_work_that_is_short_or_shows_something_itself_says_nothing_more(hurried: None) -> None:
    stream = io.StringIO()
    with Progress("short", stream=stream):
        pass
    with Progress("step", 20, stream) as line:
        for done in range(1, 21):
            line.show(done, force=True)
            time.sleep(0.02)
    assert [word for word in stream.getvalue().splitlines() if "so far" in word] == []


def test_of_nested_work_the_innermost_speaks_and_the_outer_in_between(hurried: None) -> None:
    stream = io.StringIO()
    with Progress("prepare", stream=stream):
        with Progress("split", 3, stream) as inner:
            inner.show(1)
            time.sleep(0.2)
        first = stream.getvalue().splitlines()
        time.sleep(0.2)
    rest = stream.getvalue().splitlines()[len(first) :]
    assert {line.split(" left")[0] for line in first} == {"split 1/3", "split 1/3, 0 s so far"}
    assert set(rest) == {"prepare, 0 s so far"}


def test_on_a_terminal_what_goes_on_stays_in_its_line(terminal: Terminal, hurried: None) -> None:
    with Progress("learn words", stream=terminal):
        time.sleep(0.3)
    assert terminal.lines() == ["learn words, 0 s so far"]


@pytest.mark.parametrize("columns", ["60", "100"])
def test_long_messages_go_on_below(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    told = in_lines("epoch 10: validation recall@20 0.4997; loss " + ", ".join(f"term_{i} {i}.0000" for i in range(12)))
    lines = told.split("\n")
    assert len(lines) > 1
    assert max(map(len, lines)) <= int(columns)
    assert all(line.startswith("  ") for line in lines[1:])
    assert in_lines("epoch 1: short\nand another") == "epoch 1: short\nand another"


def test_a_result_takes_the_place_of_an_open_line(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    Progress("trial", 3, terminal).show(2, "running 1", force=True)
    tell("trial  status\nt1     finished")
    assert terminal.lines() == ["trial  status", "t1     finished", ""]
