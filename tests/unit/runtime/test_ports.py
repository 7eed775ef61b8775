"""A port that cannot be listened at is told before anything starts there."""

import os
import socket
from collections.abc import Iterator

import pytest

from rec.cli import main
from rec.errors import ConfigError
from rec.runtime.ports import check_port, free_port


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_taken_port_is_told_with_who_has_it(taken: int, host: str) -> None:
    with pytest.raises(ConfigError, match=rf"--port: {taken} is taken at {host} by process {os.getpid()} \(.+\)"):
        check_port(host, taken)


@pytest.mark.parametrize("port", [-1, 0, 65536, 10**10])
def test_a_port_out_of_range_is_told(port: int) -> None:
    with pytest.raises(ConfigError, match=f"--port: expected 1 to 65535, got {port}"):
        check_port("127.0.0.1", port)


@pytest.mark.parametrize(("host", "told"), [("no such host", "is no address"), ("192.0.2.1", "cannot be listened at")])
def test_an_address_that_is_not_this_machines_is_told(host: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"--host: '{host}' {told}"):
        check_port(host, free_port())


def test_a_free_port_passes_also_one_that_was_just_left(taken: int) -> None:
    port = free_port()
    check_port("127.0.0.1", port)
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        client.connect(("127.0.0.1", port))
        server.accept()[0].close()  # the server's side waits for stray packets now
    check_port("127.0.0.1", port)


def test_a_cluster_has_proxies_of_its_own(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    check_port("127.0.0.1", taken)


def test_the_command_ends_with_one_line(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nothing", "--port", str(taken)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --port: {taken} is taken at 127.0.0.1 by process {os.getpid()}")
