"""Ports of this machine: free ones, and whether one may be listened at before anything is started there."""

from __future__ import annotations

import errno
import os
import socket

import psutil

from rec.errors import ConfigError


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def chosen_host() -> str:
    """Return where proxies listen if nobody says so: on a cluster at every address, as each node has its own."""
    return "0.0.0.0" if os.environ.get("RAY_ADDRESS") else "127.0.0.1"


def check_port(host: str, port: int) -> None:
    """Check that an address can be listened at, where that is on this machine: proxies of a cluster have their own.

    Raises:
        ConfigError: it is not this machine's, or its port is taken, out of range or not this user's to take.
    """
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port: expected 1 to 65535, got {port}")
    if os.environ.get("RAY_ADDRESS"):
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host: {host!r} is no address ({error})") from error
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                probe.listen()
            except OSError as error:
                raise ConfigError(_told(host, port, error)) from error


def _told(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port: {port} is taken at {host}{_holder(port)}; end that, or choose another --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port: {port} may not be listened at by this user; choose one from 1024 on"
    return f"--host: {host!r} cannot be listened at ({error.strerror}); 127.0.0.1 is this machine, 0.0.0.0 every way in"


def _holder(port: int) -> str:
    """Return which process listens on a port, empty where this user cannot see it."""
    try:
        there = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return ""
    for one in there:
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid is not None:
            try:
                return f" by process {one.pid} ({psutil.Process(one.pid).name()})"
            except psutil.Error:
                return f" by process {one.pid}"
    return ""
