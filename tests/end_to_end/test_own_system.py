"""A system of one's own beside its TOML file: trained, exported and served without PYTHONPATH."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rec.errors import ConfigError
from rec.strict import resolve, sources_of
from tests.end_to_end.test_cli import CONFIG

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = """
from own_parts import NAME
from rec.systems.msmrec import MSMRec


class Mine(MSMRec):
    notice = NAME
"""
ASK = """
import sys
from rec.serving.answers import Answerer
from rec.serving.artifact import Artifact
answerer = Answerer(Artifact.open(sys.argv[1]))
print(answerer.system.notice, len(answerer.respond("recommend", {"user": "u1", "k": 3})["items"]))
"""


def test_it_is_found_beside_its_config_and_travels_with_the_artifact(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "own_system.py").write_text(SYSTEM)
    (mine / "own_parts.py").write_text('NAME = "mine alone"\n')
    config = mine / "run.toml"
    config.write_text(CONFIG.format(folder=tmp_path).replace("rec.systems.msmrec:MSMRec", "own_system:Mine"))

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for command in ("prepare", "train", "export"):
        run("-m", "rec.cli", command, str(config))
    artifact = tmp_path / "run" / "export" / "mine"
    assert sorted(path.name for path in (artifact / "source").iterdir()) == ["own_parts.py", "own_system.py"]
    for name in ("own_system.py", "own_parts.py", "run.toml"):
        (mine / name).unlink()
    assert run("-c", ASK, str(artifact)) == "mine alone 3\n"


@pytest.mark.parametrize("module", ["rec.systems.msmrec", "json", "numpy"])
def test_installed_packages_are_not_carried(module: str) -> None:
    __import__(module)
    assert sources_of(module) == {}


def test_a_module_of_a_package_is_carried_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "carried" / "inner"
    folder.mkdir(parents=True)
    for path, text in (
        (folder.parent / "__init__.py", ""),
        (folder / "__init__.py", ""),
        (folder / "system.py", "from carried.inner import parts"),
        (folder / "parts.py", ""),
        (folder / "unused.py", ""),
    ):
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("carried.inner.system")
    names = ["carried/__init__.py", "carried/inner/__init__.py", "carried/inner/parts.py", "carried/inner/system.py"]
    assert list(sources_of("carried.inner.system")) == names
    # Libraries tell of files that are not there, as torch.classes of "_classes.py": they are in no working folder.
    elsewhere = ModuleType("elsewhere")
    elsewhere.__file__ = "_classes.py"
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    monkeypatch.chdir(folder)
    assert list(sources_of("carried.inner.system")) == names


def test_an_error_in_a_users_module_names_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import dataclasses\n\n@dataclasses.dataclass\nclass Mine:\n    late: int = 1\n    early: str\n"
    (tmp_path / "own_dataclass.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"line [34] of .*own_dataclass\.py: TypeError: non-default argument 'early'"):
        resolve("own_dataclass:Mine")
