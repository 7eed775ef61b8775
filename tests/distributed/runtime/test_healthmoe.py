"""HealthMoE on Ray: prepared and trained as in one process, experts and encoders under DeepSpeed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.config import RunConfig
from rec.data.prepared import Prepared
from rec.errors import ConfigError
from rec.runtime.prepare import prepare
from rec.runtime.training import train
from rec.storage import Storage
from rec.train.job import train_here
from tests.conftest import TINY_HEALTHMOE, food_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]
EXACT = {"negatives": 0, "positives": 64, "mixture": {"experts": 4, "per_row": 2, "noise": False}}
"""Nothing is drawn, so that losses depend on the rows alone."""


def quiet(_: Any) -> None:
    """Say nothing."""


def test_ray_and_one_process_prepare_the_same(ray_runtime: None, food: Prepared, tmp_path: Path) -> None:
    config = food_config(tmp_path)
    assert config.encode is not None
    shared = config.encode.model_copy(update={"actors": 2, "cpus_per_actor": 0.5})
    there = prepare(config.model_copy(update={"encode": shared}), quiet, ["pairs"]).seen_as("pairs")
    left = ("config", "files", "folder")
    assert {k: v for k, v in food.manifest.items() if k not in left} == {
        k: v for k, v in there.manifest.items() if k not in left
    }
    names = [entry["name"] for entry in food.manifest["files"]]
    assert names == [entry["name"] for entry in there.manifest["files"]]
    for name in names:
        if name.endswith(".npy"):
            np.testing.assert_array_equal(food.array(name[:-4]), there.array(name[:-4]), err_msg=name)
    assert all(food.rows(split).equals(there.rows(split)) for split in ("train", "val", "test"))
    assert food.items.equals(there.items)


def test_an_encoder_that_does_not_load_is_the_drivers_error(ray_runtime: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no text model that loads here"):
        prepare(food_config(tmp_path, encode={"text": {"encoder": str(tmp_path / "nothing")}}), quiet)


@pytest.mark.parametrize("workers", [1, 2])
def test_expert_parallel_training_gives_the_losses_of_one_process(
    ray_runtime: None, food_run: Callable[..., RunConfig], tmp_path: Path, workers: int
) -> None:
    model = TINY_HEALTHMOE | EXACT
    here = train_here(food_run(out=str(tmp_path / "here"), model=model), quiet, quiet).history
    parallel = {"workers": workers, "expert_parallel": workers}
    config = food_run(out=str(tmp_path / "there"), model=model, parallel=parallel)
    train(config, quiet, quiet)
    there = json.loads(Storage(config.out).read("history.json"))
    assert [h["total_step"] for h in there] == [h["total_step"] for h in here]
    for a, b in zip(there, here, strict=True):
        assert a["loss/ss"] == pytest.approx(b["loss/ss"], rel=2e-4)
        assert a["loss/balance/0"] == pytest.approx(b["loss/balance/0"], rel=0.01)
        assert a["ndcg@10"] == pytest.approx(b["ndcg@10"], abs=0.02)
