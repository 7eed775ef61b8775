"""A Ray with Serve's proxies: a private one on this machine, or a cluster, with one on each node that has replicas."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray

from rec.cluster.manifests import ANSWER, served
from rec.errors import ConfigError, one_line
from rec.levels import of_libraries
from rec.progress import Progress
from rec.runtime.cluster import MOST_TOLD, Demand, runtime
from rec.runtime.errors_log import LOG, NAME
from rec.runtime.ports import check_port, free_port
from rec.runtime.served import FOLDER, PROXY, TOKEN, ServedState, end_proxies
from rec.serving.config import ServeConfig

REMEDY = "lower it, or serve.cpus_per_replica and serve.gpus_per_replica"


@contextmanager
def serving_runtime(configs: Sequence[ServeConfig], host: str, port: int) -> Iterator[ServedState]:
    """Be connected to a runtime with Serve's proxies at `host:port` inside.

    Raises:
        ConfigError: a token is asked for and the environment holds none, or the address cannot be listened at.
    """
    environment = {"OMP_NUM_THREADS": "1"}
    if any(config.token for config in configs):
        if not os.environ.get(TOKEN):
            raise ConfigError(f"serve.token: set {TOKEN} in the environment to the token that clients send")
        environment[TOKEN] = os.environ[TOKEN]
    check_port(host, port)
    most = [max(config.replicas, config.max_replicas) for config in configs]
    # An upgrade runs new replicas beside the old ones.
    cpus = sum(2 * count * config.cpus_per_replica for count, config in zip(most, configs, strict=True))
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-serve-"))
    on_cluster, private = bool(os.environ.get("RAY_ADDRESS")), not ray.is_initialized()
    # Ray adds 57 characters to the path of a socket, which may have 97 in all.
    short = None if on_cluster else tempfile.mkdtemp(prefix="rec-", dir="/tmp")
    proxy = PROXY | served(max(config.deadline_ms for config in configs)) | (_own_files(short) if short else {})
    own = {name: value for name, value in proxy.items() if name not in os.environ}
    os.environ.update(own)
    metrics_port = None if on_cluster else free_port()
    # Serve sets the level of its logger itself, whenever it starts.
    logging.getLogger("ray.serve").addFilter(_is_let_through)
    try:
        told = environment | {name: os.environ[name] for name in proxy}
        demand = _largest(configs)
        environment |= {LOG: str(folder / NAME)}
        with runtime(cpus, environment, metrics_port=metrics_port, demand=demand, on_cluster=told):
            from ray import serve

            before = set() if private and not on_cluster else set(serve.status().applications)
            with Progress("starting Ray Serve and its proxies"):
                try:
                    serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
                except ray.exceptions.RayError as error:
                    cause = one_line(str(error))[:MOST_TOLD]
                    raise ConfigError(f"rec serve: Ray Serve's proxies do not start: {cause}") from error
            content = {
                "address": ray.get_runtime_context().gcs_address,
                "token": os.environ.get("RAY_AUTH_TOKEN", ""),
                "metrics_port": metrics_port,
                "proxies": short,
                "answer_s": int(os.environ[ANSWER]),
                "apps": {},
            }
            state = ServedState(folder, content)
            state.write()
            try:
                yield state
            finally:
                if on_cluster or not private:
                    _withdraw(before)
    finally:
        if short:
            end_proxies(short)
        shutil.rmtree(folder, ignore_errors=True)
        for name in own:
            os.environ.pop(name, None)


def addresses() -> list[str]:
    """Return the addresses of the nodes that have a proxy."""
    from ray import serve

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    return sorted(nodes[node] for node in serve.status().proxies if node in nodes)


def _own_files(folder: str) -> dict[str, str]:
    """Return where the proxy of a private runtime has its files and ports: others may run on the same machine."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }


def _largest(configs: Sequence[ServeConfig]) -> Demand:
    """Return what the artifact that takes most demands from the start: several may share the machine's CPUs."""
    gpus = sum(config.replicas * config.gpus_per_replica for config in configs)
    most = max(configs, key=lambda config: config.replicas * config.cpus_per_replica)
    cpus = most.replicas * most.cpus_per_replica
    each = {"CPU": most.cpus_per_replica, "GPU": most.gpus_per_replica}
    of, key = "replicas", "serve.gpus_per_replica"
    return Demand(cpus, gpus, "serve.replicas", REMEDY, of, key, each, most.replicas, data_cpus=0)


def _is_let_through(record: logging.LogRecord) -> bool:
    return record.levelno >= of_libraries()


def _withdraw(before: set[str]) -> None:
    """Take what was deployed since off a cluster that goes on, and Serve itself where nobody else uses it."""
    from ray import serve

    if not before:
        serve.shutdown()
        return
    for name in set(serve.status().applications) - before:
        serve.delete(name)
