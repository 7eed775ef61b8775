"""A cluster of real nodes on this machine, shared by the tests of a module: idle, it would slow those of others."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

from rec.errors import ConfigError
from rec.runtime.local_cluster import LocalCluster, Shape, down, names, running
from rec.runtime.local_links import require_possible


@pytest.fixture(scope="module")
def local_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two Ray nodes of two CPUs, each in its own network namespace; whoever cuts a link joins it again, or heals what
    was killed. The head has its state on disk."""
    try:
        require_possible()
    except ConfigError as error:
        pytest.skip(str(error))
    for name in names():  # of test runs that were killed
        if name[0] == "t" and name[1:].isdigit() and not psutil.pid_exists(int(name[1:])):
            down(name)
    with running(f"t{os.getpid()}", Shape(rate="1gbit", state=str(tmp_path_factory.mktemp("state")))) as cluster:
        yield cluster
