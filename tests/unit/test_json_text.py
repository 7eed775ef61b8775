"""JSON: no file of ours holds a number that JSON does not know, and one place alone writes it."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest

from rec.json_text import json_text
from rec.storage import Storage

ROOT = Path(__file__).resolve().parents[2] / "rec"


def refuse(word: str) -> None:
    raise AssertionError(f"{word} in JSON")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (math.nan, None),
        ({"ndcg@10": math.nan, "hit@10": 0.5}, {"ndcg@10": None, "hit@10": 0.5}),
        ([1, math.inf, (-math.inf, "NaN")], [1, None, [None, "NaN"]]),
        ({"a": {"b": [np.float64("nan"), np.float64(1.5)]}}, {"a": {"b": [None, 1.5]}}),
    ],
)
def test_numbers_that_are_none_are_null(value: object, wanted: object, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_json("a.json", value)
    for text in (json_text(value), json_text(value, indent=2), storage.read("a.json").decode()):
        assert json.loads(text, parse_constant=refuse) == wanted


def test_what_is_finite_is_written_as_ever() -> None:
    value = {"b": [1, 2.5, "x", None, True], "a": {}}
    assert json_text(value, indent=1, sort_keys=True) == json.dumps(value, indent=1, sort_keys=True)
    assert json_text({1, 2}, default=sorted) == "[1, 2]"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_one_place_writes_json(path: Path) -> None:
    text = path.read_text()
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        assert path.name == "json_text.py" or name not in ("json.dump", "json.dumps"), call.lineno
        if name == "to_json" and "pydantic_core" in text:
            assert any(word.arg == "inf_nan_mode" for word in call.keywords), call.lineno
