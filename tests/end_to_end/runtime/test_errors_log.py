"""What goes wrong in a replica is told where `rec serve` runs."""

import logging
import subprocess
import sys
from pathlib import Path

from rec.runtime.errors_log import LOG, FileFollower

REPLICA = """
from rec.runtime.errors_log import tell_file
from rec.serving.border import noted
tell_file()
tell_file()
try:
    1 / 0
except ZeroDivisionError as error:
    print(noted(error, "POST /v1/predict"))
"""


def test_an_error_of_another_process_is_told_once_with_its_id_and_traceback(tmp_path: Path) -> None:
    path, said = tmp_path / "errors.log", []
    follower = FileFollower(path, said.append)
    follower.tell()
    assert said == []
    ids = []
    for _ in range(2):
        command = [sys.executable, "-c", REPLICA]
        done = subprocess.run(command, env={LOG: str(path)}, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        ids.append(done.stdout.strip())
        follower.tell()
        follower.tell()
    assert [number in text for number, text in zip(ids, said, strict=True)] == [True, True]
    assert said[1].count("Traceback") == said[1].count("POST /v1/predict failed: ZeroDivisionError") == 1
    assert said[1].endswith("ZeroDivisionError: division by zero")


def test_half_of_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path, said = tmp_path / "errors.log", []
    follower = FileFollower(path, said.append)
    for text, wanted in (("one\ntw", ["one"]), ("o\n", ["one", "two"]), ("\xe4\n", ["one", "two", "\xe4"])):
        with path.open("a") as file:
            file.write(text)
        follower.tell()
        assert said == wanted


def test_without_a_file_the_process_tells_its_own_stderr() -> None:
    done = subprocess.run([sys.executable, "-c", REPLICA], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in done.stderr
    assert not any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger("rec").handlers)
