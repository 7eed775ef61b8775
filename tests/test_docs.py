"""What the documents show works as it stands there."""

import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from rec.keys_data import DataConfig
from tests.data.own import prepared

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL)
    return ["\n".join(line.removeprefix(indent) for line in text.splitlines()) for indent, text in found]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_keys_of_data_that_documents_show_are_known(path: Path) -> None:
    for text in blocks(path, "toml"):
        data = tomllib.loads(text).get("data")
        if data is not None:
            DataConfig.model_validate({"root": "out"} | data)


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
