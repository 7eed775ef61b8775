"""How much commands tell: usually notes and progress, less with --quiet, more with --verbose."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from rec.cli import COMMANDS, main
from rec.cli.ends import ended
from rec.errors import DataError
from rec.levels import QUIET, USUAL, VERBOSE, at, of_libraries, say
from rec.progress import Progress, tell
from tests.end_to_end.test_cli import CONFIG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return str(path)


def fail() -> int:
    raise DataError("a.csv: no such column")


@pytest.mark.parametrize(("level", "told"), [(QUIET, ""), (USUAL, "a note\n"), (VERBOSE, "a note\n")])
def test_notes_are_told_but_with_quiet_and_results_always(
    level: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with at(level):
        say("a note")
        tell("a result")
    assert capsys.readouterr() == ("a result\n", told)


@pytest.mark.parametrize(("level", "told"), [(QUIET, ""), (USUAL, "step 3/3 (0 s)\nstep  (0 s)\n")])
def test_progress_is_shown_but_with_quiet(level: int, told: str) -> None:
    stream = io.StringIO()
    with at(level), Progress("step", 3, stream) as line:
        line.show(3, "(0 s)", force=True)
        line.done()
    assert stream.getvalue() == told


def test_errors_are_told_at_every_level_and_their_traceback_with_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    line = "error: a.csv: no such column"
    for level in (QUIET, USUAL):
        with at(level):
            assert ended(fail, [], "") == 1
        assert capsys.readouterr().err == f"{line}\n"
    with at(VERBOSE):
        assert ended(fail, [], "") == 1
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], lines[-1]) == ("Traceback (most recent call last):", line)
    assert any("in fail" in told for told in lines)


def test_libraries_are_let_through_with_verbose() -> None:
    for level, expected in ((QUIET, logging.ERROR), (USUAL, logging.ERROR), (VERBOSE, logging.INFO)):
        with at(level):
            assert of_libraries() == expected


def test_notes_are_told_where_no_command_was_entered() -> None:
    code = "from rec.levels import say; from rec.progress import Progress; say('a note'); Progress('step').show(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == ("", "a note\nstep 1\n")


def test_a_command_without_them_tells_as_before(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", config, "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no prepared data set here" in line
    assert main(["prepare", "-q", config]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["prepare", config]) == 0
    assert capsys.readouterr().err
    assert main(["train", "train.epochs=1", config, "-v", "train.epoch=1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], lines[-1].split(":")[0]) == ("Traceback (most recent call last):", "error")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_takes_them(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert "-q, --quiet" in told
    assert "-v, --verbose" in told


@pytest.mark.parametrize("words", [["cluster", "-q", "render"], ["cluster", "render", "-q"]])
def test_commands_within_commands_take_them(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "nowhere.toml", "--out", "nowhere"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
