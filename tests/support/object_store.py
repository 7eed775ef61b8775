"""A real S3 server, and a proxy before it that fails, stalls or is gone when it is told to."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from pyarrow import fs

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
REFUSAL = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def options(port: int, host: str = "127.0.0.1") -> str:
    """Return what follows the path of a URI of the server at a port."""
    return f"?endpoint_override={host}:{port}&scheme=http"


@contextlib.contextmanager
def running() -> Iterator[int]:
    """Yield the port of a server with an empty bucket, reachable by every address of this machine."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(port)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **KEYS, "OMP_NUM_THREADS": "1"},
    )
    try:
        end_s = time.monotonic() + 60
        while time.monotonic() < end_s and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        store = fs.S3FileSystem(
            access_key="test", secret_key="test", endpoint_override=f"http://127.0.0.1:{port}", region="us-east-1",
            allow_bucket_creation=True,
        )  # fmt: skip
        store.create_dir(BUCKET)
        yield port
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def reachable() -> Iterator[int]:
    """Yield the port of a server whose keys are in the environment meanwhile."""
    before = dict(os.environ)
    os.environ.update(KEYS)
    with running() as port:
        yield port
    os.environ.clear()
    os.environ.update(before)


class Proxy:
    """Carries connections to a port of this machine while `mode` is "pass".

    "fail" answers every request with 503, "stall" takes connections and is silent, "gone" ends them at once. Whoever is
    connected when the mode changes is cut off.
    """

    def __init__(self, port: int) -> None:
        self.target, self.mode = port, "pass"
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=128)
        self.port = int(self.listener.getsockname()[1])
        self.refused = 0
        self.closed = False
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.closed, self.mode = True, "closed"
        self.listener.close()

    def _serve(self) -> None:
        while not self.closed:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client, self.mode), daemon=True).start()

    def _carry(self, client: socket.socket, mode: str) -> None:
        with client, contextlib.suppress(OSError):
            self.refused += mode != "pass"
            if mode == "fail":
                client.recv(1 << 16)
                client.sendall(REFUSAL)
            elif mode == "stall":
                while self.mode == mode:
                    time.sleep(0.05)
            elif mode == "pass":
                with socket.create_connection(("127.0.0.1", self.target)) as server:
                    self._pass(client, server)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as either:
            either.register(client, selectors.EVENT_READ, server)
            either.register(server, selectors.EVENT_READ, client)
            while self.mode == "pass":
                for ready, _ in either.select(0.1):
                    data = ready.fileobj.recv(1 << 16)
                    if not data:
                        return
                    ready.data.sendall(data)
