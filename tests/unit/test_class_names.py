"""A public class is found by its name: no two files of the package define classes of one name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "rec"
APART = ROOT / "benchmarks"
"""Scripts beside the package, whose classes serve one measurement each."""
SHARED: dict[str, str] = {}
"""Names that more files than one may define, and why."""


def files_of_names(paths: list[Path]) -> dict[str, list[str]]:
    """Return the files that define each public class at their top level."""
    found = defaultdict(list)
    for path in paths:
        for line in ast.parse(path.read_text()).body:
            if isinstance(line, ast.ClassDef) and not line.name.startswith("_"):
                found[line.name].append(path.as_posix())
    return found


def test_a_public_class_name_stands_in_one_file() -> None:
    files = files_of_names(sorted(path for path in ROOT.rglob("*.py") if APART not in path.parents))
    twice = {name: [file.removeprefix(f"{ROOT}/") for file in of] for name, of in files.items() if len(of) > 1}
    assert twice.keys() == SHARED.keys(), "\n".join(f"{name}: {', '.join(of)}" for name, of in sorted(twice.items()))


def test_names_of_two_files_are_told(tmp_path: Path) -> None:
    paths = [tmp_path / "a.py", tmp_path / "b.py"]
    paths[0].write_text("class Twice:\n    class Inner: ...\n\n\nclass _Own: ...\n")
    paths[1].write_text("class Twice: ...\n\n\nclass _Own: ...\n")
    assert files_of_names(paths) == {"Twice": [path.as_posix() for path in paths]}
