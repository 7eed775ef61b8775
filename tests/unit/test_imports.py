"""The import rule: an arrow never points back, and only runtime knows Ray and DeepSpeed."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "rec"
LAYERS = [
    {
        "errors",
        "json_text",
        "space",
        "strict",
        "data.config",
        "data.table_format",
        "data.modalities.config",
        "data.modalities.knowledge_config",
        "data.modalities.requests_config",
        "evaluation.tasks.config",
        "evaluation.tasks.writing_config",
        "serving.config",
        "train.config",
        "tuning.config",
        "config",
        "batch",
        "terms",
        "sections",
        "seeds",
        "levels",
        "storage",
        "progress",
        "provenance",
        "__init__",
    },
    {"data", "nn", "moe"},
    # The contract, and what is asked of systems by it: below the systems, which name their tasks.
    {
        "systems.api",
        "systems.capabilities",
        "evaluation.history",
        "evaluation.records",
        "evaluation.rows",
        "evaluation.service",
        "evaluation.bootstrap",
        "evaluation.task",
        "evaluation.tasks",
    },
    {"systems"},
    {"train", "evaluation"},
    {"report", "conformance", "cluster"},
    {"tuning", "serving"},
    {"runtime"},
    {"benchmarks"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_to_lower_layers(path: Path) -> None:
    own = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for name in imported(path):
        if name.split(".")[0] in ("ray", "deepspeed"):
            assert own.startswith("runtime."), f"{path} imports {name}"
        if name.startswith("rec."):
            assert level(name.removeprefix("rec.")) <= level(own), f"{path} imports {name}"


def level(name: str) -> int:
    """Return the layer of a module, which its longest known prefix decides."""
    parts = name.split(".")
    known = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
    return next((LEVEL[prefix] for prefix in known if prefix in LEVEL), 0)


def test_train_names_no_system() -> None:
    for path in (ROOT / "train").glob("*.py"):
        systems = [name for name in imported(path) if name.startswith("rec.systems.")]
        assert all(name.startswith(("rec.systems.api", "rec.systems.capabilities")) for name in systems), path


def test_no_file_is_longer_than_400_lines() -> None:
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, path


def test_half_of_all_files_have_at_most_150_lines() -> None:
    assert statistics.median(len(path.read_text().splitlines()) for path in FILES) <= 150


def test_no_function_is_longer_than_60_lines() -> None:
    found = [
        f"{path}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert found == []


def test_import_rec_is_light() -> None:
    code = "import rec, rec.cli, sys; assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)
