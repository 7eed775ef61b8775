"""`rec cluster`: manifests for KubeRay, and several real Ray nodes on this machine to try what a cluster does."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from typing import TYPE_CHECKING

from rec.cli.run import count, levels
from rec.errors import ConfigError, RequestError
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

node 0 is the head; node i has the address 10.203.X.(i+2), this machine 10.203.X.1"""
SIZE = re.compile(r"(\d+)(MiB|GiB)")
LEAST_STORE = 75 << 20


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    command.add_argument("--name", default="local", help="name of the cluster (default: local)")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    name = argparse.ArgumentParser(add_help=False)
    name.add_argument("--name", default=argparse.SUPPRESS, help="name of the cluster (default: local)")

    def add(action: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(action, help=text, description=text, parents=[name, levels()])

    start = add("up", "start it")
    start.add_argument("--nodes", type=count, default=2, metavar="N", help="nodes, the head one of them (default: 2)")
    start.add_argument("--cpus", type=count, default=2, metavar="N", help="logical CPUs of each node (default: 2)")
    start.add_argument("--store", type=size, default=256 << 20, help="object store of each node (default: 256MiB)")
    start.add_argument("--rate", help="rate of each node's link, each way, such as 1gbit (default: that of memory)")
    start.add_argument(
        "--delay", help="time from node to node, such as 1ms, where the kernel has netem (default: none)"
    )
    text = "empty folder where the head keeps its state: killed, it goes on from that with heal 0 (default: in memory)"
    start.add_argument("--state", metavar="DIR", help=text)
    add("down", "end it, or what is left of it")
    add("status", "tell its nodes")
    add("env", "print the exports that a client needs")
    again = "join it again; a node that was given up or killed starts anew"
    for action, text in (("cut", "cut a node's link"), ("kill", "kill its processes"), ("heal", again)):
        one = add(action, text)
        one.add_argument("node", type=int, metavar="NODE", help="its number")
        if action == "kill":
            one.add_argument(
                "--only", default="", metavar="NAME", help="those of this name, such as raylet, gcs_server"
            )
    inside = add("run", "run a command on the head")
    inside.add_argument("words", nargs="+", metavar="-- COMMAND", help="after --")
    text = "write manifests for KubeRay from one file of values"
    made = actions.add_parser("render", help=text, description=text, parents=[levels()])
    made.add_argument("path", metavar="VALUES", help="a TOML file")
    made.add_argument("--out", metavar="FOLDER", required=True, help="where they are written")
    text = "check manifests by the schemas of a cluster"
    checked = actions.add_parser("check", help=text, description=text, parents=[levels()])
    checked.add_argument("path", metavar="PATH", help="of manifests: a file or a folder")
    text = "schemas: a YAML file or a folder of KubeRay's CustomResourceDefinitions"
    checked.add_argument("--crds", metavar="PATH", required=True, help=text)


def size(text: str) -> int:
    """Return the bytes that an option is given."""
    found = SIZE.fullmatch(text)
    if not found or (value := int(found[1]) << {"MiB": 20, "GiB": 30}[found[2]]) < LEAST_STORE:
        raise argparse.ArgumentTypeError(f"expected at least 75MiB, such as 512MiB or 1GiB; got {text!r}")
    return value


def run(options: argparse.Namespace) -> int | None:
    """Do what is asked."""
    if options.overrides and options.action != "run":
        raise RequestError(f"cluster {options.action}: takes no keys, got {options.overrides[0]!r}")
    if options.action in ("render", "check"):
        tell(_rendered(options) if options.action == "render" else _checked(options.path, options.crds))
        return None
    return _local(options)


def _rendered(options: argparse.Namespace) -> str:
    """Return the paths of the manifests that are written."""
    from rec.cluster.render import render
    from rec.cluster.values import load_values

    return "\n".join(str(path) for path in render(load_values(options.path), options.out))


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


def _local(options: argparse.Namespace) -> int | None:
    """Do what is asked of nodes on this machine."""
    from rec.runtime import local_cluster as local
    from rec.runtime.local_links import require_possible

    require_possible()
    if options.action == "up":
        shape = local.Shape(
            nodes=options.nodes,
            cpus=options.cpus,
            store_bytes=options.store,
            rate=options.rate,
            delay=options.delay,
            state=None if options.state is None else os.path.abspath(options.state),
        )
        cluster = local.up(options.name, shape)
        say(f"{options.name}: {options.nodes} nodes are up; jobs are submitted to {cluster.dashboard}; for this shell:")
        print(_exports(cluster))
    elif options.action == "down":
        there = local.down(options.name)
        say(f"{options.name}: {'is down' if there else 'nothing was there'}")
    else:
        return _with(local.find(options.name), options)
    return None


def _with(cluster: LocalCluster, options: argparse.Namespace) -> int | None:
    """Do what is asked of a cluster that is there."""
    if options.action == "env":
        print(_exports(cluster))
    elif options.action == "status":
        print(_told(cluster))
    elif options.action == "cut":
        cluster.cut(options.node)
        say(f"{cluster.name}: nothing goes through the link of node {options.node} any more")
    elif options.action == "kill":
        killed = cluster.kill(options.node, options.only)
        say(f"{cluster.name}: killed {counted(len(killed), 'process', 'processes')} of node {options.node}")
    elif options.action == "heal":
        cluster.heal(options.node)
        say(f"{cluster.name}: node {options.node} is back")
    else:
        # Words such as key=value were taken for overrides of this command.
        return cluster.run([*options.words, *options.overrides])
    return None


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
