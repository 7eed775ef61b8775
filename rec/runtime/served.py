"""What `rec serve` runs on this machine, for other processes to find; imports no Ray.

Ray reads how to authenticate when it is imported, so a process that connects to a private runtime has to know its token
before.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from rec.cluster.manifests import SERVED
from rec.errors import RequestError
from rec.json_text import json_text

if TYPE_CHECKING:
    from rec.serving.artifact import Artifact

FOLDER = "rec-ray-"
"""Start of the names of private runtimes' folders; the process that owns one follows."""
STATE = "serving.json"
TOKEN = "REC_SERVE_TOKEN"
"""Where the environment holds the token that clients send."""
PROXY = {
    **SERVED,
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
    # Ray ends proxies that are not there after 5 s, and starts them again: on a busy node that would never end.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # The loop that answers never blocks, as the model has a thread of its own: no second loop to hand requests to.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}


class ServedState:
    """What a private runtime serves, in a file that only its owner may read."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder, self.content = folder, content

    @property
    def apps(self) -> dict[str, Any]:
        """Per name: artifact, overrides and route."""
        found: dict[str, Any] = self.content["apps"]
        return found

    @property
    def metrics_port(self) -> int | None:
        """Where Prometheus finds the metrics; None on a cluster, each of whose nodes has a port of its own."""
        found: int | None = self.content["metrics_port"]
        return found

    @property
    def on_cluster(self) -> bool:
        """Whether a cluster of others serves, with a proxy on several nodes."""
        return self.content["proxies"] is None

    @property
    def answer_s(self) -> int:
        """Seconds that proxies wait for a replica."""
        return int(self.content["answer_s"])

    def add(self, artifact: Artifact, overrides: Mapping[str, Any], route: str) -> None:
        """Note one more application."""
        self.apps[artifact.name] = {"artifact": artifact.place, "overrides": dict(overrides), "route": route}
        self.write()

    def write(self) -> None:
        """Write the file."""
        temporary = self.folder / f"{STATE}.tmp"
        temporary.touch(mode=0o600)
        temporary.write_text(json_text(self.content))
        temporary.rename(self.folder / STATE)


def newest() -> ServedState:
    """Return the newest `rec serve` of this machine, and set the environment in which Ray may connect to it.

    Where RAY_ADDRESS names a cluster, only what serves there counts.

    Raises:
        RequestError: there is none.
    """
    paths = Path(tempfile.gettempdir()).glob(f"{FOLDER}*-serve-*/{STATE}")
    found = [path for path in paths if psutil.pid_exists(_owner(path.parent) or -1)]
    if not found:
        raise RequestError("no `rec serve` runs on this machine; on a cluster, change serve.yaml and `serve deploy` it")
    states = [ServedState(path.parent, json.loads(path.read_text())) for path in sorted(found, key=_changed_s)]
    there = [state for state in states if state.content["address"] == os.environ.get("RAY_ADDRESS")]
    state = (there or states)[-1]
    os.environ.update(PROXY, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=state.content["token"])
    return state


def _changed_s(path: Path) -> float:
    return path.stat().st_mtime


def end_proxies(folder: str) -> None:
    """End the proxies whose files lie in a folder, and delete it: they are no children of Ray's and outlive it."""
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(f"{folder}/") for word in process.info["cmdline"] or []):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders of private runtimes whose drivers were killed, and end the proxies that they had started."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        owner = _owner(folder)
        if owner is None or psutil.pid_exists(owner):
            continue
        if (folder / STATE).exists() and (proxies := json.loads((folder / STATE).read_text())["proxies"]):
            end_proxies(proxies)
        shutil.rmtree(folder, ignore_errors=True)


def _owner(folder: Path) -> int | None:
    """Return the process that owns a private runtime's folder, None where the name tells none."""
    owner = folder.name.removeprefix(FOLDER).split("-")[0]
    return int(owner) if owner.isdigit() else None
