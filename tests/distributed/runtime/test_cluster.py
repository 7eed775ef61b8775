"""Private runtimes: several in one process, nothing left behind."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import ray
from ray.core.generated.autoscaler_pb2 import ClusterConfig

from rec.errors import ConfigError
from rec.json_text import json_text
from rec.runtime import cluster
from rec.runtime.cluster import FOLDER, Demand, require_cluster
from rec.runtime.proxies import _largest
from rec.serving.config import ServeConfig
from rec.train.config import ParallelConfig

CODE = """
import ray
from rec.runtime.cluster import runtime
for _ in range(2):
    with runtime(1):
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
"""


@pytest.mark.ray
@pytest.mark.slow
def test_two_runtimes_in_one_process_leave_nothing_behind(tmp_path: Path) -> None:
    stale = Path(tempfile.gettempdir()) / f"{FOLDER}{2**22 + 1}-gone"  # above the largest process number of Linux
    stale.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", CODE], env=environment, cwd=Path(__file__).parents[3])
    assert process.wait(timeout=150) == 0
    assert list(tmp_path.iterdir()) == []
    assert not stale.exists()
    assert not list(Path(tempfile.gettempdir()).glob(f"{FOLDER}{process.pid}-*"))


def test_what_an_autoscaler_may_start_counts_and_what_it_never_can_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClusterConfig()
    config.node_group_configs.add(resources={"CPU": 8}, max_count=2, name="large")
    config.node_group_configs.add(resources={"CPU": 4, "GPU": 1}, max_count=-1, name="gpu")  # no limit
    monkeypatch.setattr(cluster, "living_nodes", lambda: {"head": {"CPU": 2.0}})
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: config)
    require_cluster(Demand.by_workers(ParallelConfig(workers=2, threads=8)))
    require_cluster(Demand.by_workers(ParallelConfig(workers=40, threads=4, gpu=True)))
    with pytest.raises(ConfigError, match=r"room for 2 workers of 8 CPUs each, expected 3: .* 1 node of 2 CPUs"):
        require_cluster(Demand.by_workers(ParallelConfig(workers=3, threads=8)))
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: None)
    with pytest.raises(ConfigError, match=r"parallel.workers: the cluster has 2 CPUs, expected at least 16"):
        require_cluster(Demand.by_workers(ParallelConfig(workers=2, threads=8)))


def test_replicas_need_no_cpu_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "living_nodes", lambda: {"head": {"CPU": 2.0}})
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: None)
    require_cluster(_largest([ServeConfig(replicas=2)]))
    with pytest.raises(ConfigError, match=r"expected at least 2 for workers and 1 for data"):
        require_cluster(Demand.by_workers(ParallelConfig(workers=2, threads=1)))


@pytest.mark.parametrize("job", ["trials", "replicas"])
def test_what_fits_in_all_but_on_no_node_is_refused_for_every_job(monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    monkeypatch.setattr(cluster, "living_nodes", lambda: {"one": {"CPU": 3.0}, "two": {"CPU": 3.0}})
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: None)
    if job == "replicas":
        demand = _largest([ServeConfig(replicas=1), ServeConfig(replicas=1, cpus_per_replica=4.0)])
    else:
        demand = Demand(4.0, 0.0, "tune.concurrent", "lower it", "workers of trials", each={"CPU": 4.0}, count=1)
    with pytest.raises(ConfigError, match=r"room for 0 .* of 4 CPUs each, expected 1: .* there are 2 nodes of 3 CPUs"):
        require_cluster(demand)


def test_what_a_submitted_job_was_given_is_not_contradicted(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    monkeypatch.delenv(cluster.JOB, raising=False)
    assert cluster.beside_the_jobs(ours) == ours
    for told, left in (
        ({"runtime_env": {"working_dir": "/w", "env_vars": {"OMP_NUM_THREADS": "4"}}}, {"DS_ACCELERATOR": "cpu"}),
        ({"runtime_env": {"working_dir": "/w"}, "metadata": {}}, ours),
        ({"runtime_env": None}, ours),
    ):
        monkeypatch.setenv(cluster.JOB, json_text(told))
        assert cluster.beside_the_jobs(ours) == left
