"""`rec cluster`: manifests for KubeRay, and several real Ray nodes on this machine to try what a cluster does."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rec.cli.command import add, app
from rec.cli.options import argument, count, option
from rec.errors import ConfigError
from rec.levels import say
from rec.progress import tell
from rec.sections import counted

if TYPE_CHECKING:
    from rec.runtime.local_cluster import LocalCluster

TEXT = "run several real Ray nodes on this Linux machine (as root), or write and check manifests for KubeRay"
INTERRUPTED = "rec cluster down ends what is left"
EXAMPLES = """examples:
  rec cluster up --nodes 2 --cpus 2 --rate 1gbit --store 512MiB
  eval "$(rec cluster env)"              # the addresses and the token, for rec submit and ray job
  rec submit train rec/configs/demo.toml parallel.workers=3 parallel.min_workers=1
  rec cluster cut 1                      # nothing goes through the link of node 1
  rec cluster run -- rec train rec/configs/demo.toml parallel.workers=3
  rec cluster heal 1
  rec cluster kill 1                     # its machine dies; rec cluster heal 1 starts it again
  rec cluster status
  rec cluster down                       # after a crash too
  rec cluster render cluster/values.toml --out cluster/kuberay
  kubectl get crd rayclusters.ray.io rayjobs.ray.io rayservices.ray.io -o yaml > crds.yaml
  rec cluster check cluster/kuberay --crds crds.yaml

actions on nodes take --name, the cluster's (default: local); all take -q, --quiet and -v, --verbose
node 0 is the head; node i has the address 10.203.X.(i+2), this machine 10.203.X.1"""
SIZE = re.compile(r"(\d+)(MiB|GiB)")
LEAST_STORE = 75 << 20


def size(text: str | int) -> int:
    """Return the bytes that an option is given, a default as it is."""
    if isinstance(text, int):
        return text
    found = SIZE.fullmatch(text)
    if not found or (value := int(found[1]) << {"MiB": 20, "GiB": 30}[found[2]]) < LEAST_STORE:
        raise typer.BadParameter(f"expected at least 75MiB, such as 512MiB or 1GiB; got {text!r}")
    return value


Name = Annotated[str, option("--name", help="name of the cluster (default: local)", metavar="NAME")]
Node = Annotated[int, argument("NODE", "its number")]


def up(
    name: Name = "local",
    nodes: Annotated[
        int, option("--nodes", help="nodes, the head one of them (default: 2)", metavar="N", parser=count)
    ] = 2,
    cpus: Annotated[
        int, option("--cpus", help="logical CPUs of each node (default: 2)", metavar="N", parser=count)
    ] = 2,
    store: Annotated[
        int, option("--store", help="object store of each node (default: 256MiB)", metavar="SIZE", parser=size)
    ] = 256 << 20,
    rate: Annotated[
        str | None,
        option(
            "--rate", help="rate of each node's link, each way, such as 1gbit (default: that of memory)", metavar="RATE"
        ),
    ] = None,
    delay: Annotated[
        str | None,
        option(
            "--delay",
            help="time from node to node, such as 1ms, where the kernel has netem (default: none)",
            metavar="TIME",
        ),
    ] = None,
    state: Annotated[
        str | None,
        option(
            "--state",
            help="empty folder where the head keeps its state: killed, it goes on from that with heal 0 (default: in "
            "memory)",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Start a cluster."""
    from rec.runtime import local_cluster as local
    from rec.runtime.local_links import require_possible

    require_possible()
    folder = None if state is None else os.path.abspath(state)
    shape = local.Shape(nodes=nodes, cpus=cpus, store_bytes=store, rate=rate, delay=delay, state=folder)
    cluster = local.up(name, shape)
    say(f"{name}: {nodes} nodes are up; jobs are submitted to {cluster.dashboard}; for this shell:")
    print(_exports(cluster))


def down(name: Name = "local") -> None:
    """End a cluster, or what is left of it."""
    from rec.runtime import local_cluster as local
    from rec.runtime.local_links import require_possible

    require_possible()
    say(f"{name}: {'is down' if local.down(name) else 'nothing was there'}")


def status(name: Name = "local") -> None:
    """Print a cluster's nodes."""
    print(_told(_found(name)))


def env(name: Name = "local") -> None:
    """Print what a shell needs to submit jobs."""
    print(_exports(_found(name)))


def cut(node: Node, name: Name = "local") -> None:
    """Cut a node's link."""
    _found(name).cut(node)
    say(f"{name}: nothing goes through the link of node {node} any more")


def kill(
    node: Node,
    name: Name = "local",
    only: Annotated[str, option("--only", help="those of this name, such as raylet, gcs_server", metavar="NAME")] = "",
) -> None:
    """Kill a node's processes."""
    killed = _found(name).kill(node, only)
    say(f"{name}: killed {counted(len(killed), 'process', 'processes')} of node {node}")


def heal(node: Node, name: Name = "local") -> None:
    """Join a node again."""
    _found(name).heal(node)
    say(f"{name}: node {node} is back")


def run(words: Annotated[list[str], argument("-- COMMAND", "after --")], name: Name = "local") -> int:
    """Run a command on the head."""
    return _found(name).run(words)


def render(
    path: Annotated[str, argument("VALUES", "a TOML file")],
    out: Annotated[str, option("--out", help="where they are written", metavar="FOLDER")],
) -> None:
    """Write manifests, and print their paths."""
    from rec.cluster.render import render
    from rec.cluster.values import load_values

    tell("\n".join(str(file) for file in render(load_values(path), out)))


def check(
    path: Annotated[str, argument("PATH", "of manifests: a file or a folder")],
    crds: Annotated[
        str,
        option(
            "--crds",
            help="schemas: a YAML file or a folder of KubeRay's CustomResourceDefinitions",
            metavar="PATH",
        ),
    ],
) -> None:
    """Check manifests, and print how many are well."""
    tell(_checked(path, crds))


ACTIONS: dict[str, tuple[Callable[..., int | None], str]] = {
    "up": (up, "start it"),
    "down": (down, "end it, or what is left of it"),
    "status": (status, "tell its nodes"),
    "env": (env, "print the exports that a client needs"),
    "cut": (cut, "cut a node's link"),
    "kill": (kill, "kill its processes"),
    "heal": (heal, "join it again; a node that was given up or killed starts anew"),
    "run": (run, "run a command on the head"),
    "render": (render, "write manifests for KubeRay from one file of values"),
    "check": (check, "check manifests by the schemas of a cluster"),
}


def actions() -> typer.Typer:
    """Return the commands within this one."""
    made = app(TEXT, EXAMPLES, "ACTION")
    for name, (action, text) in ACTIONS.items():
        add(made, name, action, text, INTERRUPTED, "")
    return made


def _found(name: str) -> LocalCluster:
    """Return the cluster of a name."""
    from rec.runtime import local_cluster as local
    from rec.runtime.local_links import require_possible

    require_possible()
    return local.find(name)


def _checked(path: str, crds: str) -> str:
    """Return how many manifests are well.

    Raises:
        ConfigError: something is wrong with one.
    """
    from rec.cluster.schemas import faults, read_crds, read_documents

    schemas, manifests = read_crds(crds), read_documents(path)
    found = [
        f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}: {fault}"
        for manifest in manifests
        for fault in faults(manifest, schemas)
    ]
    if found:
        raise ConfigError("\n".join(found))
    return f"{path}: {len(manifests)} manifests are as {crds} wants them"


def _exports(cluster: LocalCluster) -> str:
    return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in cluster.client.items())


def _told(cluster: LocalCluster) -> str:
    """Return a line per node."""
    states, lines = cluster.states(), []
    for node in range(cluster.shape.nodes):
        link = "up" if cluster.links.is_up(node) else "cut"
        state = states.get(node, "unknown: the head does not answer" if not states else "not there").lower()
        lines.append(f"node {node}  {cluster.address(node)}  link {link}  {state}")
    return "\n".join([f"{cluster.name}: jobs at {cluster.dashboard}", *lines])
