"""Whether a search can go on from what Ray Tune has kept of it."""

import json
import pickle
from pathlib import Path

import pytest

from rec.runtime.search_state import can_go_on
from rec.storage import Storage

WHOLE = json.dumps({"trial_data": [["{}", "{}"]]})


@pytest.mark.parametrize(
    ("files", "found", "left"),
    [
        ({}, False, []),
        ({"tuner.pkl": pickle.dumps({"a": 1})}, False, ["tuner.pkl"]),
        ({"tuner.pkl": pickle.dumps({"a": 1})[:5], "experiment_state-1.json": WHOLE}, False, None),
        ({"tuner.pkl": b"", "experiment_state-1.json": WHOLE}, False, None),
        ({"tuner.pkl": pickle.dumps(1), "experiment_state-1.json": WHOLE}, True, None),
        ({"tuner.pkl": pickle.dumps(1), "experiment_state-1.json": WHOLE[:20]}, False, ["tuner.pkl"]),
        ({"tuner.pkl": pickle.dumps(1), "experiment_state-1.json": '{"trial_data": []}'}, False, ["tuner.pkl"]),
        (
            {"tuner.pkl": pickle.dumps(1), "experiment_state-1.json": WHOLE, "experiment_state-2.json": ""},
            True,
            ["experiment_state-1.json", "tuner.pkl"],
        ),
    ],
)
def test_a_search_goes_on_from_a_whole_snapshot(
    tmp_path: Path, files: dict[str, bytes | str], found: bool, left: list[str] | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    storage = Storage(str(tmp_path))
    assert can_go_on(storage) is found
    assert storage.list() == (sorted(files) if left is None else left)
