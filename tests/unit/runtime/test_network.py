"""Workers choose the interface of their own node."""

import os
import socket
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import ray

from rec.runtime.cluster import worker_environment
from rec.runtime.network import INTERFACE, choose_interface, interface_of
from rec.train.config import ParallelConfig


def test_the_interface_of_an_address_is_found() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.77") == "lo"  # nobody's here: gloo's own guess is no better


def test_an_interface_is_the_one_of_the_node_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"ib7": "198.51.100.7", "eno1": "198.51.100.8"}
    entries = {
        name: [SimpleNamespace(family=family, address=address) for family, address in pairs]
        for name, pairs in {name: [(socket.AF_INET6, "::1"), (socket.AF_INET, a)] for name, a in there.items()}.items()
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: entries)
    for name, address in there.items():
        monkeypatch.delenv(INTERFACE, raising=False)
        monkeypatch.setattr(ray.util, "get_node_ip_address", lambda address=address: address)
        choose_interface()
        assert os.environ[INTERFACE] == name
    monkeypatch.setenv(INTERFACE, "chosen0")  # by who runs the node
    choose_interface()
    assert os.environ[INTERFACE] == "chosen0"
    monkeypatch.delenv(INTERFACE)


def test_the_driver_sends_no_interface() -> None:
    for gpu in (False, True):
        assert INTERFACE not in worker_environment(ParallelConfig(workers=2, gpu=gpu))
