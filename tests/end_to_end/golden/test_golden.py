"""Every shipped config, small: the same rows, losses, gradient norms and metrics as on file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden.runs import CONFIGS, RUNS, path, record

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
SENSITIVE = {"eicu", "mimic-iii", "mimic-iv", "visits", "visits-switches", "peter"}
"""Runs whose later steps enlarge how a processor rounds: without AVX-512, as on file, first losses are compared."""
FIRST = 3


@pytest.mark.parametrize("name", RUNS)
def test_numbers_are_those_on_file(name: str, tmp_path: Path) -> None:
    wanted, found = json.loads(path(name).read_text()), json.loads(json.dumps(record(name, tmp_path)))
    # A data set may count more than is on file.
    found["counts"] = {key: value for key, value in found["counts"].items() if key in wanted["counts"]}
    if name in SENSITIVE and torch.backends.cpu.get_cpu_capability() != "AVX512":
        wanted, found = ({"counts": one["counts"], "losses": one["losses"][:FIRST]} for one in (wanted, found))
    assert differences(wanted, found) == []


def test_every_shipped_config_has_numbers() -> None:
    assert {path.stem for path in CONFIGS.glob("*.toml")} <= {config for config, _, _ in RUNS.values()}


def differences(wanted: Any, found: Any, at: str = "") -> list[str]:
    """Return where two records differ: whole numbers and words at all, others by more than the tolerance."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = sorted(wanted.keys() | found.keys())
        return [d for key in keys for d in differences(wanted.get(key), found.get(key), f"{at}/{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [d for n, (a, b) in enumerate(zip(wanted, found, strict=True)) for d in differences(a, b, f"{at}/{n}")]
    if isinstance(wanted, float) and isinstance(found, float):
        same = found == pytest.approx(wanted, rel=TOLERANCE, abs=TOLERANCE, nan_ok=True)
    else:
        same = wanted == found
    return [] if same else [f"{at}: {found}, on file {wanted}"]
