"""Elastic runs: which numbers of workers there may be, which one is taken, and that the run is the same."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import ray

from rec.config import RunConfig, from_table, override
from rec.errors import ConfigError, TrainingError
from rec.runtime import elastic
from rec.runtime.cluster import Demand, cpus_to_start
from rec.runtime.training import train
from rec.runtime.tuning import search
from rec.storage import Storage
from rec.systems.msmrec import MSMRec
from rec.train.config import ParallelConfig
from rec.train.job import train_here
from rec.train.training_record import read_training
from tests.distributed.runtime.test_training import FAULTY, agree, history, quiet

Make = Callable[..., RunConfig]


def made(words: list[str]) -> tuple[RunConfig, MSMRec]:
    """Return a config under overrides, and its system."""
    config = override(from_table({"system": "rec.systems.msmrec:MSMRec", "out": "o", "data": {"root": "d"}}), words)
    return config, MSMRec(config.model, MSMRec.sample(4, np.random.default_rng(0))[1])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["parallel.workers=8", "parallel.min_workers=2"], (8, 4, 2)),  # of a batch of 128
        (["parallel.workers=6", "train.batch_size=36"], (6,)),
        (["parallel.workers=6", "parallel.min_workers=1", "train.batch_size=36"], (6, 4, 3, 2, 1)),
        (
            ["parallel.workers=6", "parallel.min_workers=1", "train.batch_size=36", "parallel.expert_parallel=2"],
            (6, 4, 2),
        ),
        (
            ["parallel.workers=4", "parallel.min_workers=1", "train.phases.train.batch_size=12"],
            (4, 3, 2, 1),
        ),
    ],
)
def test_numbers_of_workers_divide_batches_and_ranks_of_experts(words: list[str], found: tuple[int, ...]) -> None:
    assert elastic.sizes(*made(words)) == found


@pytest.mark.parametrize(
    ("keys", "nodes", "count"),
    [
        ({}, [{"CPU": 4.0}], 3),  # one is left for data
        ({"threads": 2}, [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        ({"cpus_per_worker": 0.1}, [{"CPU": 1.3}], 3),
        ({"gpu": True}, [{"CPU": 9.0, "GPU": 1.0}, {"CPU": 9.0}], 1),
        ({}, [], 0),
    ],
)
def test_how_many_workers_there_is_room_for(keys: dict[str, Any], nodes: list[dict[str, float]], count: int) -> None:
    assert max(0, elastic.room(ParallelConfig(workers=8, **keys), nodes)) == count


def test_the_largest_number_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = elastic.WorkerChoice(*made(["parallel.workers=8", "parallel.min_workers=2"]), Event())
    for cpus, workers in ((9.0, 8), (8.0, 4), (5.0, 4), (3.0, 2), (2.0, 2)):  # with fewer, it waits for two
        monkeypatch.setattr(elastic, "living_nodes", lambda cpus=cpus: {"one": {"CPU": cpus}})
        chosen = sizes.choose().parallel
        assert (chosen.workers, chosen.min_workers) == (workers, 0)
    monkeypatch.setattr(elastic, "living_nodes", lambda: {"one": {"CPU": 9.0}})
    assert not sizes.may_grow()  # so soon
    sizes.since_s -= sizes.config.parallel.grow_s
    assert sizes.may_grow()
    assert sizes.choose().parallel.workers == 8
    assert not sizes.may_grow()


def test_what_is_lost_is_waited_for_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of two CPUs, one of which is lost: three workers find no room, which Ray would wait for."""
    monkeypatch.setattr(elastic, "POLL_S", 0.01)
    words = ["parallel.workers=3", "train.batch_size=126"]
    there = {"head": {"CPU": 2.0}, "other": {"CPU": 2.0}}
    monkeypatch.setattr(elastic, "living_nodes", lambda: there)
    fixed, stop = elastic.WorkerChoice(*made(words), Event()), Event()
    assert fixed.choose().parallel.workers == 3
    assert not fixed.must_shrink()  # asked again so soon
    time.sleep(0.02)
    assert not fixed.must_shrink()
    lost = there.pop("other")
    time.sleep(0.02)
    assert fixed.must_shrink()
    elastic_run = elastic.WorkerChoice(*made([*words, "parallel.min_workers=1"]), Event())
    assert elastic_run.choose().parallel.workers == 1  # beside a CPU for data
    assert elastic.WorkerChoice(*made([*words, "parallel.min_workers=2"]), Event()).choose().parallel.workers == 2
    threading.Timer(0.2, there.update, [{"other": lost}]).start()
    assert fixed.choose().parallel.workers == 3  # once it is back
    del there["other"]
    fixed.wait_s = 0.1
    with pytest.raises(TrainingError, match=r"parallel.workers: the nodes that are left have room for 2, expected 3"):
        fixed.choose()
    stop.set()
    assert elastic.WorkerChoice(*made(words), stop).choose().parallel.workers == 3  # the caller ends without an attempt


def test_the_fewest_are_demanded_and_a_machine_gives_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rec.runtime.cluster.cores", lambda: 4)
    parallel = ParallelConfig(workers=16, min_workers=2, threads=2)
    assert Demand.by_workers(parallel).cpus == 4.0
    assert cpus_to_start(parallel) == 4.0
    assert cpus_to_start(ParallelConfig(workers=16, min_workers=3, threads=2)) == 6.0  # and is refused
    assert cpus_to_start(ParallelConfig(workers=3)) == 3.0


def test_numbers_that_cannot_hold_are_refused(run_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"min_workers: at most workers \(2\), or 0; got 3"):
        run_config(parallel={"workers": 2, "min_workers": 3})
    with pytest.raises(ConfigError, match=r"parallel.min_workers: has no effect with parallel.workers=0"):
        override(run_config(), ["parallel.min_workers=3"])
    with pytest.raises(ConfigError, match=r"parallel.min_workers: has no effect in a search"):
        search(run_config(parallel={"workers": 2, "min_workers": 1}), quiet)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_shrinks_with_the_cluster_and_grows_again(
    ray_runtime: None, run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster has 4 CPUs; it is as if nodes were lost while a worker is killed, and there again later."""
    marker = tmp_path / "marker"

    def nodes() -> dict[str, dict[str, float]]:
        lost = not marker.exists() and sum(event["kind"] == "workers" for event in events) == 1
        return {"one": {"CPU": 2.0 if lost else 4.0}}

    monkeypatch.setattr(elastic, "living_nodes", nodes)
    said: list[str] = []
    events: list[dict[str, Any]] = []
    keys = {"train": {"epochs": 2, "checkpoint_steps": 4, "clip_norm": 1.0}}
    marker.write_text("1")
    model = {"dropout": 0.0, "fault": "kill@loss:6", "marker": str(marker)}
    config = run_config(system=FAULTY, model=model, parallel={"workers": 8, "min_workers": 1, "grow_s": 0}, **keys)
    train(config, events.append, said.append)
    assert [event["workers"] for event in events if event["kind"] == "workers"] == [2, 1, 2]
    assert any("2 of at most 8 workers: the cluster has no room for more" in line for line in said), said
    assert any("room for more workers; going on from the last checkpoint" in line for line in said), said
    command = read_training(Storage(config.out))["commands"][-1]  # type: ignore[index]
    assert command["workers"] == len(command["machines"]) == 2
    alone = run_config(out=str(tmp_path / "expected"), model={"dropout": 0.0}, **keys)
    agree(history(config), train_here(alone, quiet, quiet).history)


@pytest.mark.ray
def test_what_a_killed_actor_has_reserved_is_free_again(ray_runtime: None) -> None:
    def whole() -> float:
        return float(ray.available_resources().get("CPU", 0.0))

    class Holder:
        def hold(self) -> int:
            self.group = ray.util.placement_group([{"CPU": 2}])
            ray.get(self.group.ready())
            return os.getpid()

    before = whole()
    mine = ray.util.placement_group([{"CPU": 1}])
    ray.get(mine.ready())
    elastic.release()  # what no actor has made stays, as a search's place for its trials
    assert whole() == before - 1
    ray.util.remove_placement_group(mine)
    deadline_s = time.monotonic() + 20
    while whole() != before and time.monotonic() < deadline_s:
        time.sleep(0.2)
    holder = ray.remote(num_cpus=0)(Holder).remote()
    process = ray.get(holder.hold.remote())
    elastic.release()  # whoever lives keeps what it has
    assert whole() == before - 2
    os.kill(process, signal.SIGKILL)
    deadline_s = time.monotonic() + 20
    while whole() != before and time.monotonic() < deadline_s:
        elastic.release()
        time.sleep(0.2)
    assert whole() == before
