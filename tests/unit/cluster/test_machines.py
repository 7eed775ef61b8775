"""Nodes as they are named, and who has room on them."""

from __future__ import annotations

import pytest

from rec.cluster.machines import Machine, machines, seated
from rec.errors import ConfigError
from rec.train.config import ParallelConfig


def test_nodes_are_named_by_their_cpus_or_gpus() -> None:
    assert machines("2x4") == [Machine("0", 4), Machine("1", 4)]
    assert machines("4,2") == [Machine("0", 4), Machine("1", 2)]
    assert machines("1x8gpu, 2x4GPU") == [Machine("0", None, 8), Machine("1", None, 4), Machine("2", None, 4)]


@pytest.mark.parametrize("text", ["", "two", "2x", "0x4", "2x0", "2x4,", "2 x 4", "-1"])
def test_what_names_no_nodes_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--nodes: expected nodes and the CPUs of each, as in 2x4 .*got "):
        machines(text)


def test_the_most_workers_that_fit_are_seated() -> None:
    parallel = ParallelConfig(workers=8, min_workers=2)
    assert seated(machines("2x3"), parallel, (8, 4, 2)) == [0, 0, 0, 1]
    assert seated(machines("2x3"), ParallelConfig(workers=4, expert_parallel=2), (4,)) == [0, 0, 1, 1]


def test_a_worker_needs_all_on_one_node() -> None:
    parallel = ParallelConfig(workers=2, threads=3)
    with pytest.raises(ConfigError) as error:
        seated(machines("2x2,3"), parallel, (2,))
    assert str(error.value) == (
        "parallel.workers: the nodes (2 CPUs + 2 CPUs + 3 CPUs) have room for 1 worker of 3 CPUs each beside 1 CPU "
        "for data, expected 2; lower it, name more nodes, or let workers share with parallel.cpus_per_worker"
    )


def test_gpus_and_keys_have_to_agree() -> None:
    with pytest.raises(ConfigError, match=r"^--nodes: .*set parallel.gpu=true"):
        seated(machines("2x8gpu"), ParallelConfig(workers=2), (2,))
    with pytest.raises(ConfigError, match=r"^parallel.gpu: the nodes have no GPUs"):
        seated(machines("2x8"), ParallelConfig(workers=2, gpu=True), (2,))
    assert seated(machines("2x1gpu"), ParallelConfig(workers=2, gpu=True), (2,)) == [0, 1]
