"""What a step costs by a model that is fitted to small clusters, checked on larger ones, and asked about GPUs.

On this machine all nodes share a few cores, so that no time of a step can scale. What can be fitted is work:
CPU-seconds per example, per rank and step, and per byte that crosses. Bytes follow from `rec.cluster.traffic`. Both are
fitted on one and two nodes and predict four, which are measured as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from rec.benchmarks.cluster.bench import Bench
from rec.benchmarks.cluster.projection import projected
from rec.benchmarks.cluster.training import BATCH, BLOCKS, EXPERTS, PER_ROW, WIDTH, StepCosts, Way
from rec.benchmarks.row import Row
from rec.cluster.traffic import Mixture, StepTraffic, traffic
from rec.sections import counted

FITTED: dict[int, tuple[Way, ...]] = {
    1: (Way(workers=1), Way(workers=1, batch=BATCH // 4), Way(workers=2), Way(workers=2, expert_parallel=2)),
    2: (Way(workers=2), Way(workers=2, batch=BATCH // 2), Way(workers=2, expert_parallel=2)),
}
HELD_OUT: dict[int, tuple[Way, ...]] = {
    4: (Way(workers=4), Way(workers=4, batch=BATCH // 4), Way(workers=4, expert_parallel=4)),
}
"""Ways to train by number of nodes."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What is fitted, in CPU-seconds."""

    example: float
    rank_step: float
    """Of a rank and step, whatever its batch: the update, calls of collectives, Ray's part."""
    byte: float
    """Of a byte that crosses between ranks, on one node or two."""

    def step_s(self, way: Way, moved: float) -> float:
        """Return the CPU-seconds of a step of all ranks in which so many bytes go from rank to rank."""
        return way.workers * (way.batch * self.example + self.rank_step) + moved * self.byte


def measure(bench: Bench) -> list[Row]:
    """Return what is fitted, how far it is off where it was not fitted, and what it says of GPUs."""
    known = [found for nodes, ways in FITTED.items() for found in bench.of(nodes, ways)]
    held = [found for nodes, ways in HELD_OUT.items() for found in bench.of(nodes, ways)]
    costs = fitted(known)
    rows = [
        Row("fitted on 1 and 2 nodes: CPU time per example", costs.example, "s"),
        Row("  CPU time per rank and step", costs.rank_step, "s"),
        Row("  CPU time per byte from rank to rank", costs.byte, "s"),
    ]
    worst = max(abs(costs.step_s(found.way, moved(found)) / step_cpu_s(found) - 1) for found in known)
    rows.append(Row("  largest error where it was fitted", worst, ""))
    for found in held:
        name = f"held out: {counted(found.nodes, 'node')}, {found.way.in_words}"
        told = costs.step_s(found.way, moved(found))
        text = f"{name}: CPU time per step as predicted, limit: measured"
        rows.append(Row(text, told, "s", step_cpu_s(found)))
        rows.append(Row("  error", abs(told / step_cpu_s(found) - 1), ""))
        crossing = traffic(work_of(found), range(found.way.workers)).crossing
        rows.append(Row("  bytes per step as predicted, limit: measured", crossing, "B", found.bytes_per_step))
        rows.append(Row("  error", abs(crossing / found.bytes_per_step - 1), ""))
    return rows + projected()


def fitted(known: Sequence[StepCosts]) -> Costs:
    """Return the costs that fit measurements best, each of which counts by its relative error; none is negative."""
    taken = np.array([step_cpu_s(found) for found in known])
    parts = np.array([(found.way.workers * found.way.batch, found.way.workers, moved(found)) for found in known])
    scale = parts.max(0)
    found, _ = nnls(parts / scale / taken[:, None], np.ones(len(known)))
    return Costs(*(found / scale).tolist())


def step_cpu_s(found: StepCosts) -> float:
    """Return the CPU-seconds of a step as measured."""
    return found.cpu_per_sample * found.samples / found.steps


def moved(found: StepCosts) -> float:
    """Return the bytes of a step from rank to rank, wherever they are."""
    told = traffic(work_of(found), [0] * found.way.workers)
    return told.inside(0)


def work_of(found: StepCosts) -> StepTraffic:
    """Return what a step of a run moves."""
    way, parts = found.way, found.ranks[0]["parts"]
    rows = found.rows_per_step / way.workers
    mixture = Mixture(rows=rows, choices=PER_ROW, experts=EXPERTS, width=WIDTH)
    return StepTraffic(
        dense=parts["shared"][0],
        experts=parts["experts"][0] * way.expert_parallel,
        expert_parallel=way.expert_parallel,
        zero_stage=way.zero_stage,
        owners_alone=True,
        mixtures=(mixture,) * BLOCKS if way.expert_parallel > 1 else (),
    )
