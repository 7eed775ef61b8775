"""What a proxy does when a replica's node is cut off or hangs: HAProxy by Ray Serve's own template, without Ray."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.benchmarks.clients import asking
from rec.cluster.manifests import served
from rec.errors import ConfigError
from rec.runtime.local_links import Links, require_possible

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
BEFORE_S, AFTER_S = 4.0, 12.0
CONFIGURE = """
import sys
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig, get_haproxy_binary
from ray.serve.config import HTTPOptions
folder, far = sys.argv[1:]
servers = [ServerConfig("near", "127.0.0.1", 30000), ServerConfig("far", far, 30000)]
files = {"socket_path": f"{folder}/socket", "server_state_base": folder, "server_state_file": f"{folder}/state"}
config = HAProxyConfig(http_options=HTTPOptions(host="0.0.0.0", port=8000), metrics_enabled=False, **files)
backends = {"http-model": BackendConfig(name="http-model", path_prefix="/", app_name="model", servers=servers)}
HAProxyApi(cfg=config, backend_configs=backends, config_file_path=f"{folder}/cfg")._generate_config_file_internal()
print(get_haproxy_binary())
"""
REPLICA = """
import asyncio

async def answer(reader, writer):
    while True:
        head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode().lower()
        if "content-length:" in head:
            await reader.readexactly(int(head.split("content-length:")[1].split("\\r\\n")[0]))
        await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")

async def serve():
    await (await asyncio.start_server(answer, "0.0.0.0", 30000)).serve_forever()

asyncio.run(serve())
"""


@pytest.fixture
def links() -> Iterator[Links]:
    """Two namespaces with what a test starts in them; gone at the end."""
    try:
        require_possible()
    except ConfigError as error:
        pytest.skip(str(error))
    found = Links(f"p{os.getpid()}")
    yield found
    found.remove()


def reachable(address: str, port: int) -> None:
    """Wait until something listens."""
    deadline_s = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline_s, f"nothing at {address}:{port}"
            time.sleep(0.1)


def cut(links: Links) -> None:
    links.set(1, "down")


def hang(links: Links) -> None:
    for pid in links.pids(links.namespace(1)):
        os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("lose", [cut, hang])
def test_requests_to_a_silent_replica_are_answered_by_another_one(
    links: Links, tmp_path: Path, lose: Callable[[Links], None]
) -> None:
    subnet = links.make(2, None, None)
    words = [sys.executable, "-c", CONFIGURE, str(tmp_path), f"{subnet}.3"]
    made = subprocess.run(words, env={**os.environ, **served(2000.0)}, capture_output=True, text=True, check=True)
    proxy = [made.stdout.splitlines()[-1], "-db", "-f", str(tmp_path / "cfg")]
    replica = [sys.executable, "-c", REPLICA]
    for node, command in ((0, replica), (1, replica), (0, proxy)):
        subprocess.Popen(["ip", "netns", "exec", links.namespace(node), *command], stderr=subprocess.DEVNULL)
        reachable(f"{subnet}.{node + 2}", 8000 if command is proxy else 30000)
    bodies = tmp_path / "bodies"
    bodies.write_text("{}\n")
    with asking([f"http://{subnet}.2:8000/"], bodies, 16, 40.0) as clients:
        time.sleep(BEFORE_S)
        lost_s = time.monotonic()
        lose(links)
        time.sleep(AFTER_S)
    seen = clients.end()
    slow = [answer.start_s - lost_s for answer in seen.answers if answer.seconds > 2]
    assert seen.unanswered == []
    assert len(seen.answers) > 100
    assert 0 < len(slow) <= 24  # 3 s each, and no more of them once the replica is known to be silent
    assert max(slow) < 9.5
