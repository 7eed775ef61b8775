"""The benchmark of clusters: what it makes of what is measured; test_streaming_nodes.py has real nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.benchmarks import cluster
from rec.benchmarks.cluster.counters import KINDS, Counters, CounterSample
from rec.benchmarks.cluster.links import bits
from rec.benchmarks.cluster.metrics import read
from rec.benchmarks.cluster.model import fitted, moved
from rec.benchmarks.cluster.projection import GPUS, Load, Machines, step
from rec.benchmarks.cluster.scaling import rows_of
from rec.benchmarks.cluster.training import StepCosts, Way
from rec.benchmarks.parts import chosen
from rec.errors import RequestError

PARTS = {"shared": [1000, 4000], "experts": [500, 2000]}


def measured(way: Way, cpu_s: float = 1.0, sent: float = 0.0) -> StepCosts:
    rank: dict[str, Any] = {"parts": PARTS, "passed": 10 * way.steps, "rows_bytes": 40 * way.steps, "seconds": {}}
    cpu = dict.fromkeys(KINDS, 0.0) | {"Ray": cpu_s * way.steps}
    ranks = (rank,) * way.workers
    return StepCosts(way=way, nodes=1, steps=way.steps, seconds=1.0, sent=(sent,), cpu=cpu, idle_cpu=0.0, ranks=ranks)


def test_parts_that_do_not_exist_are_refused() -> None:
    assert chosen("cluster", cluster.PARTS, ["model", "scaling"]) == ["scaling", "model"]
    with pytest.raises(RequestError, match="--only other: no such part of cluster"):
        chosen("cluster", cluster.PARTS, ["other"])


def test_counters_are_told_between_samples() -> None:
    counters = Counters(None, [CounterSample(10.0, (0, 100)), CounterSample(20.0, (50, 300))])  # type: ignore[arg-type]
    assert counters.bytes_between(12.0, 18.0) == [30.0, 120.0]


def test_costs_that_made_the_measurements_are_found() -> None:
    ways = [Way(workers=1), Way(workers=2), Way(workers=2, batch=7), Way(workers=2, expert_parallel=2)]
    costs = (0.003, 0.2, 1e-6)

    def cpu_s(way: Way) -> float:
        return way.workers * (way.batch * costs[0] + costs[1]) + costs[2] * moved(measured(way))

    found = fitted([measured(way, cpu_s(way)) for way in ways])
    assert (found.example, found.rank_step, found.byte) == pytest.approx(costs)


def test_what_must_cross_is_each_part_once_to_its_owner_and_back_and_the_rows_that_had_to_go() -> None:
    found = measured(Way(workers=2, expert_parallel=2))
    assert found.least_bytes == 2 * 4000 + 2 * 40


def test_a_run_stands_beside_one_node_and_beside_what_must_cross() -> None:
    one = measured(Way(workers=1))
    two = replace(measured(Way(workers=2), cpu_s=3.0), nodes=2, sent=(9e6, 7e6))
    alone, both = rows_of("one node", one, one), {row.name.strip(): row for row in rows_of("two", two, one, 1.15)}
    assert [row.limit for row in alone] == [None] * 4
    cpu = next(row for name, row in both.items() if name.startswith("CPU time per sample, limit: 1 node"))
    assert cpu.value / cpu.limit == pytest.approx(3.0 / 2)  # three times the time for twice the samples
    sent = both["bytes on all links per step, limit: what must cross"]
    assert (sent.value, sent.limit) == (pytest.approx(16e6 / two.steps), two.least_bytes)
    assert both["bytes of the busiest link per step, one way"].value == pytest.approx(9e6 / two.steps)


def test_more_gpus_take_no_less_time_and_experts_inside_nodes_save_some() -> None:
    machines, load = Machines(), Load()
    assert step(1, 1, machines, load).network == 0.0
    times = [step(gpus, 1, machines, load).seconds for gpus in (1, *GPUS)]
    assert times == sorted(times)
    for gpus in GPUS:
        assert step(gpus, 8, machines, load).seconds < step(gpus, 1, machines, load).seconds


def test_a_page_of_metrics_is_read_with_its_labels() -> None:
    page = '# HELP a_b is\na_b{x="1",y="a\\"b"} 2.5e+03\nc 1\n'
    assert list(read(page)) == [("a_b", {"x": "1", "y": 'a\\"b'}, 2500.0), ("c", {}, 1.0)]


def test_rates_are_bits() -> None:
    assert bits("10gbit") == 1e10
