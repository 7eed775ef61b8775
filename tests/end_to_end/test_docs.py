"""What the documents show works as it stands there: commands, keys, code, links and numbers."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rec.cli import commands as command_line
from rec.cli import main
from rec.cli.command import parsed
from rec.cli.options import is_override
from rec.config import from_table, load
from rec.data.config import DataConfig
from rec.evaluation.tasks.config import EvaluateConfig
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.train.config import ParallelConfig, TrainConfig
from rec.tuning.config import TuneConfig
from tests.end_to_end.serving.test_app import Noted
from tests.support.own import prepared

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [
    *GUIDES,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "cluster").glob("*.md")),
    *sorted((ROOT / "results").glob("*.md")),
]
SECTIONS = {
    "data": DataConfig,
    "train": TrainConfig,
    "parallel": ParallelConfig,
    "evaluate": EvaluateConfig,
    "tune": TuneConfig,
    "serve": ServeConfig,
}
HERE = ("keys", "prepare", "train", "evaluate", "report", "predict", "export", "plan")
"""Commands of the README that run as they are, without Ray; of others words and keys are checked."""
SHORT = ["train.epochs=2", "evaluate.bootstrap=100"]
"""What makes runs of the README's config quick."""


def blocks(path: Path, language: str) -> list[str]:
    """Return the texts of a page's code blocks of a language, "" for those that name none."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL)
    return [
        "\n".join(line.removeprefix(indent) for line in text.splitlines())
        for indent, named, text in found
        if named == language
    ]


def commands(path: Path) -> Iterator[list[str]]:
    """Yield the words of each command in a page's code blocks: all lines of `sh` ones, those with `rec` of others."""
    texts = [*blocks(path, "sh"), *("\n".join(re.findall(r"^rec .*", text, re.MULTILINE)) for text in blocks(path, ""))]
    for line in "\n".join(texts).splitlines():
        for part in line.split(" && "):
            if words := shlex.split(re.sub(r"\[(--[\w-]+)\]", r"\1", part), comments=True):
                yield words


def check(words: list[str], folder: Path) -> None:
    """Check the words of a `rec` command: its options, and its config and keys where that lies below `folder`."""
    words = [word for word in words if word[0] != "$" and word != "..."]
    overrides = [word for word in words if is_override(word)]
    parsed(command_line(), words)
    config = next((folder / word for word in words if word.endswith(".toml")), None)
    if config is not None and config.is_file():
        load(config, overrides)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_keys_that_documents_show_are_known(path: Path) -> None:
    for text in blocks(path, "toml"):
        table: dict[str, Any] = tomllib.loads(text)
        if table.get("system", "").startswith("rec."):  # test_worked_example.py runs the one that is not
            from_table(table)
        for name, model in SECTIONS.items():
            if name in table:
                model.model_validate(({"root": "out"} if name == "data" else {}) | table[name])


@pytest.mark.parametrize("path", [path for path in GUIDES if path != README], ids=lambda path: path.name)
def test_commands_that_documents_show_are_known(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(path):
        if words[0] == "rec":
            try:
                check(words[1:], ROOT)
            except SystemExit:
                pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, the one where commands run, with the README's config and a table as it says."""
    (text,) = blocks(README, "toml")
    read = tomllib.loads(text)["data"]["read"]
    columns = read["columns"]
    lines = [
        f"c{user},sku-{1 + (user * 7 + n * n) % 40},2024-01-{n + 1:02}"
        for user in range(60)
        for n in range(6 + user % 9)
    ]
    names = ",".join(columns[name] for name in ("user", "item", "time"))
    tmp_path.joinpath(*read["records"]).write_text("\n".join([names, *lines]))
    (tmp_path / "mine.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_readme_runs(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = set()
    for words in commands(README):
        kind = words[1] if words[0] == "rec" else words[0]
        ran.add(kind)
        if words[0] == "make":
            check_make(words[1])
        elif words[0] == "curl":
            check_request(words, Artifact.open(str(mine / "out/mine/run/export/msmrec")))
        elif kind in HERE:
            code = main([*words[1:], *(SHORT if "mine.toml" in words else [])])
            assert code == 0, f"{' '.join(words)}: {capsys.readouterr().err}"
        else:
            assert words[0] == "rec", f"{' '.join(words)}: say in this test how it is run"
            check(words[1:], mine)
    assert {*HERE, "make", "curl", "tune", "serve", "submit", "cluster"} <= ran
    assert (mine / "out/mine/run/report.html").is_file()
    assert list((mine / "out/mine/run/predictions/test/answers").glob("*.parquet"))


@pytest.mark.slow
def test_the_catalogue_of_own_data_runs_as_it_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "own_data.md"
    (config,), (events, catalogue) = blocks(page, "toml"), blocks(page, "csv")
    for name, text in (("mine.toml", config), ("events.csv", events), ("catalogue.csv", catalogue)):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for command in ("prepare", "train", "evaluate", "report", "predict", "export"):
        assert main([command, "mine.toml"]) == 0, f"{command}: {capsys.readouterr().err}"
    assert main(["evaluate", "out/mine/run"]) == 0, capsys.readouterr().err
    (first, *_) = [text for text in blocks(ROOT / "docs" / "serving.md", "") if text.startswith("curl")]
    check_request(shlex.split(first), Artifact.open("out/mine/run/export/msmrec"))


def check_make(target: str) -> None:
    """Check that a target exists, and the words of each `rec` command that it would run."""
    told = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [shlex.split(line) for line in told.splitlines() if "/rec " in line and not line.startswith("echo")]
    assert lines or target != "demo"
    for words in lines:
        check(words[1:], ROOT)


def check_request(words: list[str], artifact: Artifact) -> None:
    """Send what a `curl` command sends to the artifact's application."""
    assert "Content-Type: application/json" in words
    address = next(word for word in words if word.startswith("localhost"))
    port = parsed(command_line(), ["serve", "artifact"]).run.keywords["port"]
    assert address.partition("/")[0] == f"localhost:{port}"
    asked = json.loads(words[words.index("-d") + 1])
    with TestClient(create(Answerer(artifact), ServeConfig(), Noted(), None, "r1")) as client:
        answer = client.post(f"/{address.partition('/')[2]}", json=asked)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == asked["k"]
    assert not answer.json().get("notes"), "a request that is shown should need no note"


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_numbers_of_the_readme_stand_on_the_pages_that_it_names() -> None:
    rows = [line for line in README.read_text().splitlines() if line.startswith("| ") and "](results/" in line]
    assert len(rows) >= 9
    for row in rows:
        (page,) = re.findall(r"\]\((results/[\w-]+\.md)\)", row)
        numbers = re.findall(r"\d+\.\d+", row.split("|")[3])
        text = (ROOT / page).read_text()
        assert numbers
        assert not [number for number in numbers if number not in text], row


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_links_lead_somewhere(path: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", path.read_text())):
        place, _, anchor = link.partition("#")
        if "://" in link or place.startswith("mailto:"):
            continue
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


def anchors(path: Path) -> set[str]:
    """Return what links to a page's headings may end in, as GitHub makes it of them."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"`|\[([^]]*)\]\([^)]*\)", r"\1", head).lower()).replace(" ", "-")
        for head in heads
    }


def test_the_source_that_the_document_shows_reads_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks(ROOT / "docs" / "data.md", "python")
    module = ModuleType("visits")
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, "visits", module)
    visits = {f"c{user}": [f"a{(user + n) % 7}" for n in range(5)] for user in range(6)}
    (tmp_path / "visits.json").write_text(json.dumps(visits))
    sections = {"source": "visits:Visits", "read": {"path": f"{tmp_path}/visits.json"}}
    data = prepared(tmp_path / "out", sections, view="sequences")
    assert data.rows("test").to_pylist()[1] == {"user": 1, "history": [2, 3, 4, 5], "target": 6}
