"""`rec modalities`: what writing costs, what is written, and what retrieval changes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tomli_w

from rec.benchmarks.chat_server import Chat
from rec.cli import main
from rec.data.modalities.answers import Answers
from tests.support.films import film_tables, films

NAMES = ["narrative", "pace"]


def config(folder: Path, chat: Chat | None, count: int = 9, **modalities: Any) -> str:
    """Write a run's TOML file, whose texts a server writes where there is one; return its path."""
    writer = {"kind": "chat", "url": chat.url, "model": "m", "concurrency": 4} if chat else {}
    writer |= modalities.pop("writer", {})
    data = film_tables(folder, count) | {"root": f"{folder}/data", "modalities": {"writer": writer} | modalities}
    table = {"system": "rec.systems.msmrec:MSMRec", "out": f"{folder}/run", "data": data}
    path = folder / "films.toml"
    path.write_text(tomli_w.dumps(table | {"parallel": {"workers": 0}}))
    return str(path)


def knowledge(folder: Path, count: int = 9) -> dict[str, Any]:
    """Write a passage about each film; return the section that reads them."""
    found = films(count)[["title", "year"]].assign(text=[f"Film {n} as a pace of tale" for n in range(count)])
    pd.DataFrame(found).to_csv(folder / "knowledge.csv", index=False)
    return {"paths": [f"{folder}/knowledge.csv"]}


def test_an_estimate_asks_nothing(tmp_path: Path, chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, chat, writer={"input_price": 1.0, "output_price": 2.0})
    assert main(["modalities", path, "--estimate", "--json", f"{tmp_path}/cost.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "a model writes 9 of 9 items: 9 questions to ask, about 2," in out
    told = json.loads((tmp_path / "cost.json").read_text())
    assert told["questions"] == 9
    assert told["money"] == pytest.approx((told["usage"]["input"] + 2 * told["usage"]["output"]) / 1e6)
    assert chat.told()["requests"] == 0
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_an_estimate_of_templates_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modalities", config(tmp_path, None), "--estimate"]) == 0
    assert "templates write 9 items: nothing is asked" in capsys.readouterr().out


def test_texts_are_written_ahead_and_preparing_takes_them(
    tmp_path: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.behave(names=NAMES, malformed=["Film 4"])
    path = config(tmp_path, chat)
    assert main(["modalities", path, "--json", f"{tmp_path}/told.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "narrative 1.000 chat 9" in out
    assert "10 requests" in out
    assert json.loads((tmp_path / "told.json").read_text())["repaired"] == 1
    assert main(["prepare", path]) == 0
    assert chat.told()["requests"] == 10


def test_new_items_are_written_without_touching_the_rest(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    assert main(["modalities", config(tmp_path, chat, 9)]) == 0
    assert main(["modalities", config(tmp_path, chat, 12)]) == 0
    assert chat.told()["requests"] == 12


def test_a_model_that_writes_nothing_is_not_compared(
    tmp_path: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.behave(names=("plot",))
    path = config(tmp_path, chat, knowledge=knowledge(tmp_path))
    assert main(["modalities", path, "--compare", "--items", "6"]) == 1
    told = capsys.readouterr().err
    assert "a model writes 6 of 6 items: 6 questions to ask" in told
    assert "with retrieval, the model wrote of none of 6 items: an answer cannot be used" in told.splitlines()[-1]


def test_texts_with_and_without_retrieval_are_told_side_by_side(
    tmp_path: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.behave(names=NAMES)
    path = config(tmp_path, chat, knowledge=knowledge(tmp_path))
    assert main(["modalities", path, "--compare", "--items", "6", "--json", f"{tmp_path}/told.json"]) == 0
    assert "6 items, passages found for 6" in capsys.readouterr().out
    told = json.loads((tmp_path / "told.json").read_text())
    assert chat.told()["requests"] == 12  # each film twice
    assert told["drift"]["pace"]["same"] == 1.0  # this server heeds no context
    sides = told["sides"]
    assert sides["with retrieval"]["requests"]["input tokens"] > sides["without"]["requests"]["input tokens"]
    # Both are judged by the same sources.
    assert sides["with retrieval"]["modalities"] == sides["without"]["modalities"]
    assert sides["without"]["modalities"]["pace"]["faithfulness"] > 0.5


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--compare"], "to compare needs data.modalities.knowledge and a writer that asks a model"),
        (["--compare", "--estimate"], "not allowed with argument"),
        (["data.modalities.writer.model=m"], 'data.modalities.writer.model: has no effect with .*kind="template"'),
    ],
)
def test_what_cannot_be_done_is_told(
    tmp_path: Path, words: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        assert main(["modalities", config(tmp_path, None), *words]) == 1
    assert re.search(fault, " ".join(capsys.readouterr().err.split()))


def test_a_config_without_modalities_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(config(tmp_path, None))
    path.write_text(path.read_text().replace("[data.modalities.writer]", ""))
    assert main(["modalities", str(path)]) == 1
    assert "data.modalities: is not set" in capsys.readouterr().err


def test_a_killed_job_goes_on_without_asking_twice(tmp_path: Path, chat: Chat) -> None:
    count = 60
    chat.behave(names=NAMES, hold_after=count // 2, delay_s=0.01)
    path = config(tmp_path, chat, count)
    command = [sys.executable, "-m", "rec.cli", "prepare", path]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        answers, end_s = tmp_path / "answers", time.monotonic() + 60
        while not (answers / "answers.sqlite").exists() or len(Answers(str(answers))) < count // 2:
            assert time.monotonic() < end_s
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    chat.let_go()
    before = chat.told()["answered"]
    assert len(before) >= count // 2
    chat.behave(names=NAMES, reset_counts=False, hold_after=0)
    assert main(["prepare", path]) == 0
    told = chat.told()
    assert told["answered"] == dict.fromkeys([f"Film {n}" for n in range(count)], 1)
    resumed = {file.name: file.read_bytes() for file in (tmp_path / "data").rglob("text.npy")}
    chat.behave(names=NAMES)
    other = tmp_path / "other"
    other.mkdir()
    assert main(["prepare", config(other, chat, count)]) == 0
    assert {file.name: file.read_bytes() for file in (other / "data").rglob("text.npy")} == resumed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_closes_what_it_opened(number: signal.Signals, tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, hold_after=10)
    command = [sys.executable, "-X", "dev", "-m", "rec.cli", "modalities", config(tmp_path, chat, 40)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while chat.told()["held"] < 4 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        lines = process.stderr.read().splitlines()
        assert process.wait() == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    wanted = "answers and runs so far are kept: the same command goes on, and asks again what was on its way"
    assert lines[-1] == f"{word}; {wanted}"
    assert not [line for line in lines if "Unclosed" in line or "never" in line or "Traceback" in line]
    with Answers(str(tmp_path / "answers")) as answers:
        assert len(answers) == 10
