"""Where numbers come from."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest

from rec import provenance


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A git tree with one file of the package and one outside it."""
    git(tmp_path, "init", "-q")
    for name in ("rec/one.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_code_is_the_commit_of_the_tree(tree: Path) -> None:
    assert provenance.code(tree) == {
        "version": provenance.version("rec"),
        "commit": git(tree, "rev-parse", "HEAD"),
        "dirty": False,
    }


@pytest.mark.parametrize(("name", "dirty"), [("rec/one.py", True), ("rec/new.py", True), ("notes.txt", False)])
def test_what_differs_in_the_package_makes_the_code_dirty(tree: Path, name: str, dirty: bool) -> None:
    (tree / name).write_text("other\n")
    assert provenance.code(tree)["dirty"] is dirty


def test_another_tree_that_a_calling_git_names_is_not_taken(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert provenance.code(tree)["commit"] is not None


def test_without_a_tree_the_version_stands_alone(tree: Path) -> None:
    inside = tree / "site-packages"
    inside.mkdir()
    assert provenance.code(inside) == {"version": provenance.version("rec"), "commit": None, "dirty": None}


def test_the_machine_is_told_without_its_name() -> None:
    found = provenance.machine()
    assert set(found) == {"cpu", "cores", "memory_bytes", "gpu"}
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert found["gpu"] is None
    assert platform.node() not in json.dumps([found["cpu"]])


def test_versions_are_those_that_are_installed() -> None:
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == provenance.version("torch")
    assert provenance.version("no-such-package") is None
