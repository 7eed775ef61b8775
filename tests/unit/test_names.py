"""Shared rooms name no system, no modality and no metric of one task: what is special stands in systems and tasks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rec.evaluation.tasks.ranking import Ranking
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.sets import Sets
from rec.evaluation.tasks.writing import Writing

ROOT = Path(__file__).resolve().parents[2] / "rec"
ROOMS = ("train", "runtime", "serving", "tuning", "report", "evaluation")
TASKS = ROOT / "evaluation" / "tasks"
FILES = sorted(
    path
    for room in ROOMS
    for path in (ROOT / room).rglob("*")
    if path.is_file() and path.suffix in (".py", ".html", ".css", ".txt", ".js") and TASKS not in path.parents
)
CONTRACT = {"__init__", "api", "capabilities"}
VARIANTS = {"sasrec", "freedom", "vbpr", "bpr"}
"""Systems that are settings of others, and so have no file of their own."""
SYSTEMS = VARIANTS | {
    path.stem.split("_")[0]
    for path in (ROOT / "systems").iterdir()
    if path.stem not in CONTRACT and (path.is_dir() or path.suffix == ".py") and not path.stem.startswith("__")
} - {"attribution"}
MODALITIES = {
    *("image", "images", "photo", "poster", "visual", "audio", "acoustic", "video", "narrative", "dialogue"),
    *("item_text", "user_text", "item_image", "text_vector", "image_vector", "textual", "pixel", "pixels"),
}
"""Kinds of content; "text" and "picture" alone are also what messages and pages consist of."""
ORDINARY = {"hit", "precision", "map", "coverage", "div", "f", "distinct"}
"""First parts of metrics' names that are ordinary words too: those count only as part of a whole name, as `hit@`."""
ALLOWED: dict[tuple[str, str], str] = {}
"""Words that mean something else in a file."""
MEDIA_TYPE = re.compile(r"image/[a-z*]+")
"""What the web calls the type of a file's bytes."""


def metrics() -> set[str]:
    """Return the names of all tasks' metrics, and the first part of each that is no ordinary word."""
    tasks = (Ranking(), Sets(), Rating(), Writing())
    found = {name for task in tasks for name in task.directions}
    first = {re.split(r"[@_\d]", name)[0] for name in found}
    described = {name for task in tasks for name in task.descriptive}
    return (found | described | first | {f"{word}@" for word in first}) - ORDINARY


NAMES = {"system": SYSTEMS, "modality": MODALITIES, "metric": metrics()}


def words_in(text: str, words: set[str]) -> set[str]:
    """Return which words stand in a text by themselves or as a part of a name between underscores."""
    ends = (re.escape(word) + ("" if word.endswith("@") else r"(?![a-z0-9])") for word in sorted(words, key=len)[::-1])
    return set(re.findall(rf"(?<![a-z0-9])({'|'.join(ends)})", text.lower()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shared_rooms_name_nothing_special(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    lines = MEDIA_TYPE.sub("", path.read_text()).splitlines()
    found = [
        f"line {number}: {kind} {word!r} in {line.strip()!r}"
        for number, line in enumerate(lines, 1)
        for kind, words in NAMES.items()
        for word in sorted(words_in(line, words))
        if (word, name) not in ALLOWED
    ]
    assert not found, "\n".join(found)


def test_the_names_are_those_that_exist() -> None:
    assert {"msmrec", "healthmoe", "magnet", "lightgcn"} <= SYSTEMS
    assert {"ndcg", "ndcg@10", "hit@", "recall", "jaccard", "ddi_rate", "rmse", "bleu4", "rouge"} <= NAMES["metric"]
    assert not {"hit", "precision", "map"} & NAMES["metric"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('values["ndcg@10"]', {"ndcg@10"}),
        ("def _msmrec_page() -> None:", {"msmrec"}),
        ("the hit of a cache, to map with precision", set()),
        ("hit@5 or hit@k", {"hit@"}),
        ("reliance on the item_image", {"item_image"}),
    ],
)
def test_names_are_found_in_lines(line: str, found: set[str]) -> None:
    every = {word for words in NAMES.values() for word in words}
    assert found <= words_in(line, every) if found else not words_in(line, every)
