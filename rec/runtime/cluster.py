"""Connecting to a Ray cluster, or starting a private one that leaves nothing behind."""

from __future__ import annotations

import importlib
import logging
import math
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psutil
import ray

from rec.errors import ConfigError
from rec.keys import ParallelConfig
from rec.runtime.served import FOLDER, sweep
from rec.sections import counted

PRIVATE = "REC_PRIVATE_RUNTIME"
"""Set in the environment of every process of a private runtime."""
SPARE_CPUS = 1
"""Logical CPUs beside the workers' own: Ray Data's tasks run there. Ray starts a process per CPU at once."""
QUIET = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
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
) -> Iterator[None]:
    """Be connected to Ray inside: to the cluster that RAY_ADDRESS names, else to a private one on this machine.

    The private one has its own folder, a random token, no dashboard, and `cpus` + 1 logical CPUs; it ends here.

    Args:
        cpus: Logical CPUs for the job's workers.
        environment: What all processes of a private runtime are to have in their environment beside `QUIET`: Ray
            shares no process between tasks and actors that differ in it.
        meanwhile: Modules to import in a thread while Ray starts; none of Ray's own.
        metrics_port: Where a private runtime shows its metrics to Prometheus; None leaves the choice to Ray.
    """
    if ray.is_initialized():
        yield
        return
    threading.Thread(target=_import, args=(meanwhile,), daemon=True, name="imports").start()
    before = {name: os.environ.get(name) for name in (*QUIET, PRIVATE)}
    os.environ.update({name: value for name, value in QUIET.items() if before[name] is None})
    folder = None
    try:
        if os.environ.get("RAY_ADDRESS"):
            # A submitted job may have an environment of its own, which a second one must not contradict.
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            sweep()
            folder = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-")
            os.environ[PRIVATE] = "1"
            # Ray turns token authentication on by itself; with a token of our own it writes none into the home folder.
            # It reads the token once per process, so a second runtime has to have the first one's.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray.init(
                num_cpus=math.ceil(cpus) + SPARE_CPUS,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=1 << 30,
                _temp_dir=folder,
                _metrics_export_port=metrics_port,
                runtime_env={"env_vars": {PRIVATE: "1", **QUIET, **(environment or {})}},
            )
        quiet_data()
        yield
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)


def worker_environment(parallel: ParallelConfig) -> dict[str, str]:
    """Return what a training job's processes are to have in their environment."""
    environment = {"OMP_NUM_THREADS": str(parallel.threads), "TOKENIZERS_PARALLELISM": "false"}
    if not parallel.gpu:
        environment["DS_ACCELERATOR"] = "cpu"
        environment["GLOO_SOCKET_IFNAME"] = interface_of(ray.util.get_node_ip_address())
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
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.train").setLevel(logging.ERROR)


def require_cpus(cpus: float) -> None:
    """Check that the cluster can ever hold what is asked for, the CPU that moves data included.

    Raises:
        ConfigError: it cannot.
    """
    total = ray.cluster_resources().get("CPU", 0.0)
    if total < cpus + 1:
        raise ConfigError(
            f"parallel.workers: the cluster has {counted(total, 'CPU')}, expected at least {cpus:g} for workers and 1 "
            "for data"
        )


def interface_of(address: str) -> str:
    """Return the network interface that owns an address: gloo guesses wrong where the host name is 127.0.0.1."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.family == socket.AF_INET and entry.address == address for entry in entries):
            return str(name)
    return "lo"
