"""The words of a command line: key=value among them, options, and what completes them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rec
from rec.cli import commands, main
from rec.cli.command import parsed
from rec.cli.options import is_override

ROOT = Path(__file__).resolve().parents[2]


def options(words: str) -> dict[str, Any]:
    return parsed(commands(), words.split()).run.keywords


@pytest.mark.parametrize(
    "words",
    [
        "train mine.toml --seeds 3 train.epochs=3 out=a",
        "train train.epochs=3 --seeds 3 out=a mine.toml",
        "train train.epochs=3 mine.toml out=a --seeds=3",
        "train mine.toml --seeds 3 train.epochs=3 -- out=a",
    ],
)
def test_keys_may_stand_anywhere_in_their_order(words: str) -> None:
    assert options(words) == {"config": "mine.toml", "seeds": 3, "overrides": ["train.epochs=3", "out=a"]}


def test_what_an_option_takes_is_no_key() -> None:
    found = options("predict mine.toml --to a=b serve.index=hnsw --requests c=d.csv")
    assert (found["to"], found["requests"], found["overrides"]) == ("a=b", "c=d.csv", ["serve.index=hnsw"])
    assert options("evaluate --compare a=b c=d")["compare"] == ("a=b", "c=d")


def test_keys_stand_between_words_of_any_number() -> None:
    found = options("serve one serve.replicas=2 two")
    assert (found["artifacts"], found["overrides"]) == (["one", "two"], ["serve.replicas=2"])
    found = options("submit train mine.toml out=a -- --seeds 3")
    assert (found["job"], found["words"], found["overrides"]) == ("train", ["mine.toml", "--seeds", "3"], ["out=a"])
    assert options("cluster run -- rec train a=b mine.toml -q")["words"] == "rec train a=b mine.toml -q".split()
    assert options("cluster --name x cut 1") == options("cluster cut 1 --name x") == {"name": "x", "node": 1}


@pytest.mark.parametrize("word", ["a=", "train.epochs=3", 'expect."hit@10"=0.1', "_a-b=c=d", "x={y = 1}"])
def test_these_are_keys(word: str) -> None:
    assert is_override(word)


@pytest.mark.parametrize("word", ["a", "=a", "out/year=2020", "s3://a/b?c=d", "A=b", "--to=b", "1=2", "./a=b"])
def test_these_are_none(word: str) -> None:
    assert not is_override(word)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train mine.toml epochs", "argument KEY=VALUE: expected key=value, got 'epochs'"),
        ("train mine.toml --seed 3", "No such option: --seed"),
        ("train", "Missing argument 'CONFIG'"),
        ("trian", "Did you mean 'train'?"),
        ("foo train", "No such command 'foo'"),
        ("evaluate run --split tests", "argument --split: 'tests' is not one of 'val', 'test'"),
        ("train mine.toml -q -v", "not allowed with argument --quiet"),
        ("", "Missing command"),
    ],
)
def test_words_that_cannot_be_are_told_in_one_line(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rec: error: ")
    assert told in line


def test_a_command_without_keys_refuses_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "out", "a=b"]) == 1
    assert capsys.readouterr().err == "error: results: takes no keys, got 'a=b'\n"


@pytest.mark.parametrize(("words", "found"), [("rec tr", "train"), ("rec train --se", "--seeds")])
def test_shells_complete(words: str, found: str) -> None:
    told = {"_REC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "rec.cli"], capture_output=True, text=True, cwd=ROOT, env=os.environ | told, check=False
    )
    assert done.stdout.split() == [found]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(rf"rec {re.escape(rec.__version__)}(, commit [0-9a-f]{{12}})?\n", capsys.readouterr().out)
