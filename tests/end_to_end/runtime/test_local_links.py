"""Networks of clusters on one machine: what goes through, two at once, and what a killed starter leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from rec.errors import ConfigError
from rec.runtime import local_cluster, local_links
from rec.runtime.local_cluster import Shape
from rec.runtime.local_links import Links

POSSIBLE = sys.platform.startswith("linux") and not os.geteuid() and all(map(shutil.which, local_links.TOOLS))
needs_root = pytest.mark.skipif(not POSSIBLE, reason="needs Linux, root, ip and tc")
SERVE = ["python3", "-m", "http.server", "8000"]


@pytest.fixture
def links() -> Iterator[Callable[[str], Links]]:
    made: list[Links] = []

    def make(name: str) -> Links:
        made.append(Links(name))
        return made[-1]

    yield make
    for one in made:
        one.remove()


def inside(links: Links, node: int, *words: str) -> list[str]:
    return ["ip", "netns", "exec", links.namespace(node), *words]


def reaches(links: Links, node: int, address: str) -> bool:
    code = f"import urllib.request as u; u.urlopen('http://{address}:8000', timeout=1)"
    end_s = time.monotonic() + 5
    while time.monotonic() < end_s:
        if not subprocess.run(inside(links, node, "python3", "-c", code), capture_output=True, check=False).returncode:
            return True
    return False


@needs_root
def test_nodes_reach_each_other_until_a_link_is_cut(links: Callable[[str], Links]) -> None:
    one = links("one")
    address = f"{one.make(2, '1gbit', None)}.3"
    subprocess.Popen(inside(one, 1, *SERVE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert reaches(one, 0, address)
    assert one.is_up(1)
    one.set(1, "down")
    assert not one.is_up(1)
    assert not reaches(one, 0, address)
    one.set(1, "up")
    assert reaches(one, 0, address)


@needs_root
def test_a_link_has_its_rate(links: Callable[[str], Links]) -> None:
    slow = links("slow")
    slow.make(2, "8mbit", None)
    told = subprocess.run(inside(slow, 0, "tc", "qdisc", "show", "dev", "eth0"), capture_output=True, text=True)
    assert "rate 8Mbit" in told.stdout


@needs_root
def test_two_clusters_do_not_collide_and_end_apart(links: Callable[[str], Links]) -> None:
    one, two = links("one"), links("one1")
    assert one.make(2, None, None) != two.make(2, None, None)
    server = subprocess.Popen(inside(one, 1, *SERVE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert len(one.namespaces()) == len(two.namespaces()) == 2
    assert one.remove()
    assert not psutil.pid_exists(server.pid)
    assert (one.namespaces(), one.devices()) == ([], [])
    assert len(two.devices()) == 3
    assert not one.remove()


@needs_root
def test_what_a_killed_starter_left_is_found_by_name() -> None:
    code = (
        "import os, signal\nfrom rec.runtime import local_cluster as local\n"
        "local.LocalCluster.start = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nlocal.up('left', local.Shape())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert "left" in local_cluster.names()
    with pytest.raises(ConfigError, match="'left' is there already, or was left; rec cluster down --name left ends it"):
        local_cluster.up("left", Shape())
    assert local_cluster.down("left")
    assert not local_cluster.down("left")
    assert "left" not in local_cluster.names()
    with pytest.raises(ConfigError, match="no cluster 'left' is there"):
        local_cluster.find("left")


@pytest.mark.parametrize(
    ("rate", "delay", "told"),
    [
        ("fast", None, r"--rate: expected a number with kbit, mbit or gbit, such as 1gbit; got 'fast'"),
        ("1000", None, r"--rate: expected a number"),
        (None, "soon", r"--delay: expected a number with us, ms or s, such as 1ms; got 'soon'"),
    ],
)
def test_rates_and_delays_that_cannot_be_read_are_refused(rate: str | None, delay: str | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Links("none").make(2, rate, delay)


@pytest.mark.parametrize("name", ["", "Two", "a-b", "1st", "morethantwelve", "../x"])
def test_names_that_paths_and_devices_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--name: expected a letter"):
        local_cluster.find(name)


def test_where_it_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_links.sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="needs Linux"):
        local_links.require_possible()
    monkeypatch.setattr(local_links.sys, "platform", "linux")
    monkeypatch.setattr(local_links.os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="needs root"):
        local_links.require_possible()
    monkeypatch.setattr(local_links.os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="the command 'ip' is missing; install iproute2"):
        local_links.require_possible()
