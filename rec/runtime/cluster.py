"""Connecting to a Ray cluster, or starting a private one that leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import ray

from rec.errors import ConfigError, one_line
from rec.levels import of_libraries
from rec.progress import Progress
from rec.provenance import cores
from rec.runtime.served import FOLDER, sweep
from rec.sections import counted
from rec.train.config import ParallelConfig

PRIVATE = "REC_PRIVATE_RUNTIME"
"""Set in the environment of every process of a private runtime."""
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray tells a submitted job's driver of the job."""
SPARE_CPUS = 1
"""Logical CPUs beside the workers' own: Ray Data's tasks run there. Ray starts a process per CPU at once."""
PATIENCE_S = 2.0
"""Longest wait for processes that have been told to end."""
MOST_TOLD = 200
"""Characters that are told of an error of Ray's."""
QUIET = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray Train looks at its workers so often: for a lost one or the end it waits half of that.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def runtime(
    cpus: float,
    environment: Mapping[str, str] | None = None,
    meanwhile: Sequence[str] = (),
    metrics_port: int | None = None,
    demand: Demand | None = None,
    on_cluster: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Be connected to Ray inside: to the cluster that RAY_ADDRESS names, else to a private one on this machine.

    The private one has its own folder, a random token, no dashboard, and `cpus` + 1 logical CPUs; it ends here.

    Args:
        cpus: Logical CPUs for the job's workers.
        environment: What all processes are to have in their environment beside `QUIET`: Ray shares no process between
            tasks and actors that differ in it, and starts a new one for each.
        meanwhile: Modules to import in a thread while Ray starts; none of Ray's own.
        metrics_port: Where a private runtime shows its metrics to Prometheus; None leaves the choice to Ray.
        demand: What has to be there, of the machine or of the cluster.
        on_cluster: What processes that this one starts on a cluster are to have in their environment in its place.

    Raises:
        ConfigError: the machine or the cluster has less than is demanded, or no cluster answers.
    """
    if ray.is_initialized():
        require_cluster(demand)
        yield
        return
    if not os.environ.get("RAY_ADDRESS"):
        require_machine(demand)
    threading.Thread(target=_import, args=(meanwhile,), daemon=True, name="imports").start()
    before = {name: os.environ.get(name) for name in (*QUIET, PRIVATE, "PYTHONPATH")}
    os.environ.update({name: value for name, value in QUIET.items() if before[name] is None})
    folder, others = None, set(psutil.Process().children(recursive=True))
    try:
        if os.environ.get("RAY_ADDRESS"):
            with Progress(starting()):
                connect({**QUIET, **environment} if on_cluster is None and environment else on_cluster)
            require_cluster(demand)
        else:
            sweep()
            folder = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-")
            _start_private(folder, cpus, environment or {}, metrics_port)
        quiet_data()
        yield
    finally:
        started = set(psutil.Process().children(recursive=True)) - others if folder is not None else set()
        ray.shutdown()
        _end(started)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _start_private(folder: str, cpus: float, environment: Mapping[str, str], metrics_port: int | None) -> None:
    """Start a runtime of this process's own, whose files lie in a folder."""
    os.environ[PRIVATE] = "1"
    # Workers import what this process can, such as a system that lies beside its TOML file.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    # Ray turns token authentication on by itself; with a token of our own it writes none into the home folder.
    # It reads the token once per process, so a second runtime has to have the first one's.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with own_signals(), Progress(starting()):
        ray.init(
            num_cpus=math.ceil(cpus) + SPARE_CPUS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=of_libraries(),
            object_store_memory=1 << 30,
            _temp_dir=folder,
            _metrics_export_port=metrics_port,
            runtime_env={"env_vars": {PRIVATE: "1", **QUIET, **environment}},
        )


def starting() -> str:
    """Return what a command waits for before anything runs on Ray."""
    if ray.is_initialized():
        return "running on the Ray that is there"
    address = os.environ.get("RAY_ADDRESS")
    return f"connecting to the Ray cluster at {address}" if address else "starting Ray on this machine"


def _end(started: set[psutil.Process]) -> None:
    """End what a private runtime has started and left: agents outlive a start that was interrupted."""
    _, left = psutil.wait_procs(list(started), timeout=PATIENCE_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=PATIENCE_S)


def connect(environment: Mapping[str, str] | None = None) -> None:
    """Connect to the cluster that RAY_ADDRESS names; what this process starts there has an environment of its own.

    Raises:
        ConfigError: none answers there.
    """
    try:
        with own_signals():
            given = {"env_vars": beside_the_jobs(environment)} if environment else None
            ray.init(log_to_driver=False, logging_level=of_libraries(), runtime_env=given)
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = one_line(str(error))[:MOST_TOLD]
        raise ConfigError(f"RAY_ADDRESS: no cluster answers at {os.environ['RAY_ADDRESS']!r} ({told})") from error


def beside_the_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a submitted job's own environment does not tell: Ray refuses a second one that says otherwise."""
    job = json.loads(os.environ.get(JOB) or "{}").get("runtime_env") or {}
    return {name: value for name, value in environment.items() if name not in (job.get("env_vars") or {})}


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep what this process does at SIGTERM: Ray's own handler would end it with another exit code."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)


def worker_environment(parallel: ParallelConfig) -> dict[str, str]:
    """Return what a training job's processes are to have in their environment."""
    environment = {"OMP_NUM_THREADS": str(parallel.threads), "TOKENIZERS_PARALLELISM": "false"}
    if not parallel.gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


def quiet_data() -> None:
    """Turn off Ray Data's own progress bars and logs in this process, and the actors that read Parquet footers.

    Those pay for themselves with thousands of files; with tens they are five processes to start.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.use_datasource_v2 = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(of_libraries())
    logging.getLogger("ray.train").setLevel(of_libraries())


def cpus_to_start(parallel: ParallelConfig) -> float:
    """Return the CPUs of a private runtime for a run: those of all workers, or as many as this machine has cores."""
    fewest = parallel.fewest * parallel.worker_resources["CPU"]
    return min(parallel.cpus, max(fewest, float(cores()))) if parallel.min_workers else parallel.cpus


@dataclass(frozen=True, slots=True)
class Demand:
    """What a job cannot do without."""

    cpus: float
    gpus: float
    key: str
    """The key that asks for it."""
    remedy: str
    """What else the user may do."""
    of: str = "workers"
    """What needs it."""
    gpu_key: str = ""
    """The key that asks for GPUs, where it is another one."""
    each: Mapping[str, float] = field(default_factory=dict)
    """What one of them needs on a node of its own choice; empty where they differ."""
    count: int = 0
    """How many there are of them."""
    data_cpus: int = 1
    """CPUs that move data beside them."""

    @classmethod
    def by_workers(cls, parallel: ParallelConfig) -> Demand:
        """Return what the workers of a run demand: the fewest that it starts with."""
        count = max(1, parallel.fewest)
        gpus = count * parallel.worker_resources.get("GPU", 0.0)
        several = count > 1
        return cls(
            count * parallel.worker_resources["CPU"],
            gpus,
            "parallel.workers" if several else "parallel.threads",
            f"lower it, or {'let workers share' if several else 'ask for less'} with parallel.cpus_per_worker",
            gpu_key="parallel.workers" if several else "parallel.gpu",
            each=parallel.worker_resources,
            count=count,
        )


def require_machine(demand: Demand | None) -> None:
    """Check that this machine has what is demanded.

    Raises:
        ConfigError: it has not.
    """
    if demand is None:
        return
    _require(demand, demand.cpus, float(cores()), "this machine", "")
    if demand.gpus:
        import torch

        _require_gpus(demand, float(torch.cuda.device_count()), "this machine")


def require_cluster(demand: Demand | None) -> None:
    """Check that the cluster has what is demanded, and what moves data beside it.

    Raises:
        ConfigError: it has not.
    """
    if demand is None:
        return
    nodes = [*living_nodes().values(), *nodes_to_come(demand)]
    there = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    more = f" and {demand.data_cpus} for data" if demand.data_cpus else ""
    _require(demand, demand.cpus + demand.data_cpus, there["CPU"], "the cluster", more)
    _require_gpus(demand, there["GPU"], "the cluster")
    _require_nodes(demand, nodes)


def living_nodes() -> dict[str, Mapping[str, float]]:
    """Return the resources of each node of the cluster that is alive and stays, by its id."""
    leaving = leaving_nodes()
    nodes = ray.nodes()
    return {one["NodeID"]: one["Resources"] for one in nodes if one["Alive"] and one["NodeID"] not in leaving}


def nodes_to_come(demand: Demand) -> Sequence[Mapping[str, float]]:
    """Return the resources of nodes that an autoscaler may start, at most as many of a kind as a demand could use.

    Those of a kind that live already count again: this is for what a cluster can never have.
    """
    config = ray._private.state.state.get_cluster_config()
    if config is None:
        return []
    most = max(demand.count, math.ceil(demand.cpus), math.ceil(demand.gpus)) + 1
    found: list[Mapping[str, float]] = []
    for group in config.node_group_configs:
        count = most if group.max_count < 0 else min(group.max_count, most)
        found += [{name: float(amount) for name, amount in group.resources.items()}] * count
    return found


def leaving_nodes() -> Collection[str]:
    """Return the ids of nodes that will be taken away: they were told to end, or the autoscaler has had notice."""
    # Ray has no public name for it; its own autoscaler and Ray Data ask here too.
    found: Collection[str] = ray._private.state.state.get_draining_nodes()
    return found


def fitting(each: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """Return how many that need `each` of some resources fit, none of them on two nodes."""
    needed = {name: amount for name, amount in each.items() if amount}
    # Ray counts in ten-thousandths.
    room = (
        min(round(node.get(name, 0.0) * 10_000) // round(amount * 10_000) for name, amount in needed.items())
        for node in nodes
    )
    return sum(room)


def _require_nodes(demand: Demand, nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that what is enough in all is not too scattered: Ray would wait for ever."""
    if not demand.each or (there := fitting(demand.each, nodes)) >= demand.count:
        return
    names = [name for name, amount in demand.each.items() if amount]
    told = " and ".join(counted(demand.each[name], name) for name in names)
    raise ConfigError(
        f"{demand.key}: the nodes of the cluster have room for {there} {demand.of} of {told} each, expected "
        f"{demand.count}: one needs all of it on one node, and {_in_words(nodes, names)}; {demand.remedy}"
    )


def _in_words(nodes: Sequence[Mapping[str, float]], names: Sequence[str]) -> str:
    """Return what nodes have of some resources."""
    kinds = Counter(" and ".join(counted(node.get(name, 0.0), name) for name in names) for node in nodes)
    return "there are " + ", ".join(f"{counted(count, 'node')} of {kind}" for kind, count in kinds.items())


def together(demand: Demand) -> int:
    """Return how many jobs of one demand living nodes have room for at the same time, with a CPU left for data."""
    nodes = living_nodes().values()
    room = int((sum(node.get("CPU", 0.0) for node in nodes) - 1) / demand.cpus)
    return min(room, fitting(demand.each, nodes) // demand.count)


def refuse_shared_gpus(parallel: ParallelConfig) -> None:
    """Check that no two ranks of a run would train on one GPU.

    Raises:
        ConfigError: they would.
    """
    if parallel.gpu and parallel.workers > 1 and 0 < parallel.gpus_per_worker < 1:
        raise ConfigError(
            f"parallel.gpus_per_worker: {parallel.gpus_per_worker:g} with parallel.workers={parallel.workers} puts "
            "several ranks on one GPU, which NCCL refuses; leave it out, or set parallel.workers=1 to share a GPU "
            "between trials"
        )


def _require(demand: Demand, cpus: float, there: float, where: str, more: str) -> None:
    if there < cpus:
        wanted = f"{demand.cpus:g} for {demand.of}{more}"
        raise ConfigError(
            f"{demand.key}: {where} has {counted(there, 'CPU')}, expected at least {wanted}; {demand.remedy}"
        )


def _require_gpus(demand: Demand, there: float, where: str) -> None:
    if there < demand.gpus:
        raise ConfigError(
            f"{demand.gpu_key or demand.key}: {where} has {counted(there, 'GPU')}, expected at least {demand.gpus:g} "
            f"for {demand.of}; ask for fewer, or compute on CPUs"
        )
