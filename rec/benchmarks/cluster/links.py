"""Links of 1 and 10 Gbit/s, and of 1 ms, between two nodes."""

from __future__ import annotations

import math

from rec.benchmarks.cluster.bench import Bench
from rec.benchmarks.cluster.training import Way
from rec.benchmarks.row import Row
from rec.errors import ConfigError

RATES = ("1gbit", "10gbit")
WAYS = (Way(workers=2, expert_parallel=2), Way(workers=2))
DELAY = "1ms"


def measure(bench: Bench) -> list[Row]:
    """Return the times of a step, and the shares of it in collectives, by the links' rate."""
    rows: list[Row] = []
    for rate in RATES:
        for way, found in zip(WAYS, bench.of(2, WAYS, rate), strict=True):
            rows.append(Row(f"2 nodes, {rate}, {way.in_words}: step", found.step_s, "s"))
            rows.append(
                Row("  share of time in collectives, waiting for others included", found.communication_share, "")
            )
            seconds = max(found.sent) / found.steps * 8 / bits(rate)
            rows.append(Row("  a link's bytes at its rate", seconds, "s"))
    return rows + _delayed(bench)


def bits(rate: str) -> float:
    """Return the bits per second of a rate such as "1gbit"."""
    return float(rate.removesuffix("gbit")) * 1e9


def _delayed(bench: Bench) -> list[Row]:
    """Return the times of a step with delay, or that this machine cannot make one."""
    try:
        measured = bench.of(2, WAYS, delay=DELAY)
    except ConfigError as error:
        return [Row(f"2 nodes, {DELAY} of delay: not measured ({error})", math.nan, "s")]
    return [
        Row(f"2 nodes, {DELAY} of delay, {way.in_words}: step", found.step_s, "s")
        for way, found in zip(WAYS, measured, strict=True)
    ]
