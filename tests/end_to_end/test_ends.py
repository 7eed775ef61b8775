"""How commands end: one last line that is the cause, and the exit code that shells expect."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rec.cli import COMMANDS, main
from rec.cli.ends import ended
from rec.errors import ConfigError, DataError, printable
from tests.end_to_end.test_cli import CONFIG

ROOT = Path(__file__).resolve().parents[2]


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


def last(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("a.b: unknown key\nc.d: unknown key"), "error: a.b: unknown key; c.d: unknown key"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "error: /data/x: the disk is full: free some"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/y"), "error: /data/y: no permission: change"),
        (
            OSError(errno.EROFS, "[Errno 30] Failed to open '/r/z'"),
            "error: [Errno 30] [Errno 30] Failed to open '/r/z'",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "out"), "error: out: is a folder: name a file"),
        (MemoryError(), "error: out of memory: take smaller batches"),
    ],
)
def test_what_is_wrong_outside_is_one_line(error: BaseException, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raising(error), ["train"], "") == 1
    text = capsys.readouterr().err
    assert text.startswith(line)
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), KeyError("mrr@10"), OSError("odd, without a number")]
)
def test_what_nobody_expected_is_filed(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert ended(raising(error), ["report", "x.toml"], "") == 1
    text = capsys.readouterr().err
    (path,) = tmp_path.iterdir()
    assert text == f"error: unexpected {type(error).__name__}: {error}; what is known of it stands in {path}\n"
    told = path.read_text()
    assert "command: rec report x.toml" in told
    assert "Traceback (most recent call last)" in told
    assert "raise error" in told


def test_what_nobody_expected_is_shown_where_no_file_can_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    assert ended(raising(ValueError("odd")), ["train"], "") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert lines[-1].startswith("error: unexpected ValueError: odd; what is known of it stands above")


def test_a_command_that_is_stopped_says_what_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS.values():
        assert ended(raising(KeyboardInterrupt()), [], command.INTERRUPTED) == 130
        assert capsys.readouterr().err == f"interrupted; {command.INTERRUPTED}\n"


def test_a_signal_unwinds_and_its_handler_goes(capsys: pytest.CaptureFixture[str]) -> None:
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    assert ended(run, ["train"], "nothing is lost") == 143
    assert last(capsys) == "terminated; nothing is lost"
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before


CODE = """
import sys
from rec.cli.ends import ended
def run():
    for number in range(200_000):
        print("a line of a long table", number)
raise SystemExit(ended(run, ["evaluate"], ""))
"""


@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_a_reader_that_leaves_is_no_error(reader: str) -> None:
    command = f"{sys.executable} -c '{CODE}' | {reader}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "141"


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return str(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_in_one_process_ends_and_goes_on(number: signal.Signals, config: str) -> None:
    assert main(["prepare", config]) == 0
    command = [sys.executable, "-m", "rec.cli", "train", config, "train.epochs=200"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    while "epoch 1:" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    lines = process.stderr.read().splitlines()
    assert process.wait(60) == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert lines[-1].startswith(f"{word}; the same command goes on from the last checkpoint")
    assert not any("Traceback" in line for line in lines)
    assert main(["train", config, "train.epochs=3"]) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written_are_told(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", config]) == 0
    (tmp_path / "locked").mkdir(mode=0o555)
    for words in (["train", f"out={tmp_path}/locked/run"], ["prepare", f"data.root={tmp_path}/locked/data"]):
        assert main([words[0], config, words[1]]) == 1
        assert "locked" in last(capsys)


def test_paths_that_are_files_are_told(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", config]) == 0
    (tmp_path / "file").write_text("")
    for words in (
        ["train", config, f"out={tmp_path}/file/run"],
        ["train", config, f"out={tmp_path}/file"],
        ["prepare", config, f"data.root={tmp_path}/file"],
        ["report", str(tmp_path)],
        ["evaluate", config, f"data.root={tmp_path}/file"],
        ["evaluate", "--compare", str(tmp_path), str(tmp_path)],
        ["export", str(tmp_path)],
        ["results", str(tmp_path / "nowhere")],
        ["serve", str(tmp_path / "file")],
    ):
        assert main(words) == 1, words
        line = last(capsys)
        assert line.startswith("error: "), words
        assert "unexpected" not in line, line


def test_a_disk_that_takes_no_more_is_told(config: str, tmp_path: Path) -> None:
    assert main(["prepare", config]) == 0
    assert main(["train", config]) == 0
    rec = f"{sys.executable} -m rec.cli"
    lines = [(f"ulimit -f 8; {rec} train {config} out={tmp_path}/full", "cannot be written")]
    if Path("/dev/full").is_char_device():  # not every container has it
        lines.append((f"{rec} evaluate {config} > /dev/full", "the disk is full"))
    for line, found in lines:
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 1
        assert found in done.stderr.splitlines()[-1], done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["train", "CONFIG", "--seeds", "-1"], "argument --seeds: expected a whole number of at least 1, got '-1'"),
        (["sweep", "CONFIG", "--seeds", "0"], "argument --seeds: expected a whole number of at least 1, got '0'"),
        (["serve", "x", "--port", "99999"], "argument --port: expected a port from 1 to 65535, got '99999'"),
    ],
)
def test_options_that_are_out_of_range_are_refused(
    words: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert found in last(capsys)


MODULES = {
    "broken": "def f(:",
    "fails": "x = 1\n1 / 0",
    "lacks": "import nothing_like_this",
    "half": "class Half:\n    pass",
    "empty": "from rec.systems.api import System\n\n\nclass Empty(System):\n    Config = object\n    tasks = (1,)",
}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("broken:X", "system: broken cannot be imported: SyntaxError: invalid syntax (broken.py, line 1)"),
        ("fails:X", "fails.py: ZeroDivisionError: division by zero"),
        ("lacks:X", "system: no class 'lacks:X' (No module named 'nothing_like_this')"),
        ("half:Half", "system: 'half:Half' is no system: expected a class with Config and tasks"),
        ("half:Nope", "system: no class 'half:Nope' (module 'half' has no attribute 'Nope')"),
        ("empty:Empty", "system: 'empty:Empty' lacks what every such class has: collate, loss, model, sample"),
        ("nowhere:X", "its file may lie beside the TOML file or in a folder of PYTHONPATH"),
        ("json:JSONDecoder", "system: 'json:JSONDecoder' is no system: expected a class with Config and tasks"),
    ],
)
def test_a_system_that_is_none_is_told(
    name: str,
    found: str,
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module, text in MODULES.items():
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["train", config, f"system={name}"]) == 1
    assert found in last(capsys)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("name \x00\x07", "name \\x00\\x07"),
        ("\u202eabc", "\\u202eabc"),
        ("Zoë 🍲 日本\tx", "Zoë 🍲 日本\tx"),
    ],
)
def test_what_steers_a_terminal_is_escaped_in_every_line(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise DataError(f"{text}: no such column")

    assert printable(text) == shown
    assert ended(fail, [], "") == 1
    assert capsys.readouterr().err == f"error: {shown}: no such column\n"


def test_a_binary_file_that_is_called_csv_reaches_no_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csv").write_bytes(b"\x89PNG\x1b[31m\x07\x08,\x01\x02\n1,2\n")
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'system = "rec.systems.msmrec:MSMRec"\nout = "{tmp_path}/o"\n[data]\nroot = "{tmp_path}/d"\n'
        f'[data.read]\nrecords = "{tmp_path}/x.csv"\n'
    )
    assert main(["prepare", str(toml)]) == 1
    told = capsys.readouterr().err
    assert all(c.isprintable() or c == "\n" for c in told)
    assert told.splitlines()[-1].startswith("error: ")
