"""The system that docs/adding_a_system.md shows: it passes the conformance tests, and every command there runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rec.cli import main
from tests.end_to_end.test_docs import ROOT, blocks, check, commands

PAGE = ROOT / "docs" / "adding_a_system.md"
SYSTEM, TESTS = blocks(PAGE, "python")
(CONFIG,) = blocks(PAGE, "toml")
HERE = ("columns", "prepare", "train", "evaluate", "export")
"""Commands that run as they are; of the others the words are checked."""


def shown_tests() -> Any:
    """Return the test class that the page shows, of the system that it shows, neither of which stays importable."""
    module = sys.modules["mymf"] = ModuleType("mymf")
    try:
        exec(SYSTEM, module.__dict__)
        found: dict[str, Any] = {"__name__": __name__}
        exec(TESTS, found)
    finally:
        del sys.modules["mymf"]
    return found["TestMyMF"]


TestMyMF = shown_tests()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder where the page's commands run, with its files in `mine`."""
    (tmp_path / "mine").mkdir()
    for name, text in (("mymf.py", SYSTEM), ("mymf.toml", CONFIG), ("test_mymf.py", TESTS)):
        (tmp_path / "mine" / name).write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_its_commands_run_and_it_is_better_than_simple_answers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = set()
    try:
        for words in commands(PAGE):
            if words[0] == "rec" and words[1] in HERE:
                assert main(words[1:]) == 0, f"{' '.join(words)}: {capsys.readouterr().err}"
                ran.add(words[1])
            elif words[0] == "rec":
                check(words[1:], folder)
            else:
                assert words == ["python", "-m", "pytest", "mine"], f"{' '.join(words)}: say in this test how it is run"
    finally:
        sys.modules.pop("mymf", None)
    assert ran == set(HERE)
    measured = json.loads((folder / "out/mymf/run/evaluation/test/metrics.json").read_text())
    values, simple = measured["metrics"], measured["baselines"]
    assert values["hit@10"] > 2 * max(simple[name]["hit@10"] for name in ("popularity", "random"))
    (told,) = [line for line in PAGE.read_text().splitlines() if line.startswith("rec evaluate")]
    for number, found in zip(
        re.findall(r"0\.\d+", told), (values, simple["popularity"], simple["random"]), strict=True
    ):
        assert float(number) == pytest.approx(found["hit@10"], abs=0.05)
    assert (folder / "out/mymf/run/export/mymf/source/mymf.py").is_file()
