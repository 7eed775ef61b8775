"""Answers on disk: kept as they came, found by key, by several processes at once, whatever kills one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rec.data.modalities.answers import FILE, Answers
from rec.data.modalities.language_model import Answer, ChatMessage, TokenUsage, question_key
from rec.errors import ConfigError, DataError

ANSWER = Answer("text", "stop", TokenUsage(3, 4))
WRITER = """
import sys
from rec.data.modalities.answers import Answers
from rec.data.modalities.language_model import Answer, TokenUsage
with Answers(sys.argv[1]) as answers:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        answers.put(number.to_bytes(16, "big"), Answer(f"text {number}", "stop", TokenUsage(1, 2)))
        print(number, flush=True)
"""


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_an_answer_is_what_was_put_first(tmp_path: Path) -> None:
    with Answers(str(tmp_path)) as answers:
        assert answers.get(key(1)) is None
        answers.put(key(1), ANSWER)
        answers.put(key(1), Answer("another", "stop", TokenUsage()))
    with Answers(str(tmp_path)) as answers:
        assert answers.get(key(1)) == ANSWER
        assert len(answers) == 1


def test_answers_that_are_held_are_found_and_kept_together(tmp_path: Path) -> None:
    with Answers(str(tmp_path)) as answers, Answers(str(tmp_path)) as other:
        answers.put(key(1), ANSWER)
        answers.hold(key(1), Answer("another", "stop", TokenUsage()))
        answers.hold(key(2), ANSWER)
        answers.hold(key(2), Answer("another", "stop", TokenUsage()))
        assert answers.get(key(2)) == ANSWER
        assert (other.get(key(2)), len(other)) == (None, 1)
        answers.flush()
        assert [other.get(key(number)) for number in (1, 2)] == [ANSWER, ANSWER]
        assert not answers.held


def test_what_a_full_disk_refuses_stays_held(tmp_path: Path) -> None:
    with Answers(str(tmp_path)) as answers:
        (pages,) = answers.base.execute("PRAGMA page_count").fetchone()
        answers.base.execute(f"PRAGMA max_page_count={pages}")
        answers.hold(key(1), Answer("x" * 100_000, "stop", TokenUsage()))
        with pytest.raises(DataError, match=r"answers.sqlite: .*full"):
            answers.flush()
        assert answers.get(key(1)) is not None
        answers.base.execute("PRAGMA max_page_count=100000")
        answers.flush()
        assert len(answers) == 1


def test_a_killed_process_leaves_all_that_it_has_put(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), "0", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(200)]
        os.kill(process.pid, signal.SIGKILL)
        told += [int(line) for line in process.stdout if line.endswith("\n")]
    with Answers(str(tmp_path)) as answers:
        assert all(answers.get(key(number)) is not None for number in told)
        answers.put(key(10**9), ANSWER)
        assert answers.get(key(10**9)) == ANSWER


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    parts = [("0", "300"), ("200", "500")]
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), *part], stdout=subprocess.DEVNULL)
        for part in parts
    ]
    assert [process.wait() for process in running] == [0, 0]
    with Answers(str(tmp_path)) as answers:
        assert [answers.get(key(number)) for number in range(500)] == [
            Answer(f"text {number}", "stop", TokenUsage(1, 2)) for number in range(500)
        ]


@pytest.mark.slow
def test_memory_and_time_of_a_lookup_do_not_grow_with_answers(tmp_path: Path) -> None:
    with Answers(str(tmp_path)) as answers:
        answers.base.execute("BEGIN")
        rows = ((os.urandom(16), "x" * 500) for _ in range(300_000))
        answers.base.executemany("INSERT INTO answers (key, answer) VALUES (?, ?)", rows)
        answers.base.execute("COMMIT")
        for number in range(1000):
            answers.put(key(number), ANSWER)
    before, start_s = psutil.Process().memory_info().rss, time.process_time()
    with Answers(str(tmp_path)) as answers:
        assert all(answers.get(key(number)) == ANSWER for number in range(1000))
    assert psutil.Process().memory_info().rss - before < 32 << 20  # the file has over 150 MiB
    assert (time.process_time() - start_s) / 1000 < 1e-3


def test_a_file_that_is_none_of_ours_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no base at all" * 1000)
    with pytest.raises(DataError, match="cannot be opened"):
        Answers(str(tmp_path))
    with pytest.raises(ConfigError, match="no folder of a local disk"):
        Answers("s3://bucket/answers")


def test_keys_differ_by_model_parameters_and_all_that_is_said() -> None:
    said = (ChatMessage("system", "a"), ChatMessage("user", "b"))
    others = [
        question_key("n", said),
        question_key("m", said[:1]),
        question_key("m", (ChatMessage("system", "a"), ChatMessage("assistant", "b"))),
        question_key("m", (ChatMessage("system", "ab"), ChatMessage("user", ""))),
    ]
    assert len({question_key("m", said), *others}) == 5
    assert question_key("m", said) == question_key("m", (ChatMessage("system", "a"), ChatMessage("user", "b")))
