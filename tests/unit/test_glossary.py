"""The glossary names classes, modules, keys and metrics that there are, and each word once."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from rec.evaluation.tasks.ranking import Ranking
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.sets import Sets
from rec.evaluation.tasks.writing import Writing
from rec.strict import resolve

DOCS = Path(__file__).parents[2] / "docs"
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (DOCS / "glossary.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| word ")
]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_what_the_glossary_says_of_code_is_there() -> None:
    named = [name for row in ROWS for name in names(row[2]) if name.startswith("rec.")]
    assert len(named) > 40
    for name in named:
        if ":" in name:
            resolve(name)
        else:
            importlib.import_module(name)


def test_keys_and_metrics_of_the_glossary_are_there() -> None:
    keys = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "keys.md").read_text(), re.MULTILINE))
    metrics = {name for task in (Ranking(), Sets(), Rating(), Writing()) for name in task.directions}
    told = [name for row in ROWS for name in names(row[3])]
    assert len(told) > 40
    assert not [name for name in told if name.rpartition(".")[2] not in keys and name not in metrics]


def test_a_word_has_one_row() -> None:
    words = [word for row in ROWS for word in row[0].split(", ")]
    assert len(set(words)) == len(words)
