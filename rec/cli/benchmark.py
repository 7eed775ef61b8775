"""`rec benchmark`: speed beside its limit."""

from __future__ import annotations

import argparse

from rec.cli.run import count, writable
from rec.errors import RequestError
from rec.levels import say

TEXT = "measure speed beside its limit"
INTERRUPTED = "what was measured is lost"
PARTED = ("scale", "serve", "cluster", "modalities")
"""Benchmarks with parts."""
EXAMPLES = """examples:
  rec benchmark evaluate
  rec benchmark train --json train.json --data out/ml-1m/data
  rec benchmark moe --json moe.json
  rec benchmark serve --minutes 2
  rec benchmark serve --only nodes
  rec benchmark encoders --images 20000
  rec benchmark graph --data out/baby/data
  rec benchmark visits --json visits.json
  rec benchmark writer --json writer.json
  rec benchmark scale --only saves,tables
  rec benchmark cluster --only scaling,model --json cluster.json    # as root: it starts Ray nodes
  rec benchmark modalities --only busy,failing
  rec benchmark gpu --json gpu.json
  rec benchmark chaos --seed 1 --faults 10 --minutes 20
  rec benchmark prepare --interactions 10000000"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    names = ("train", "evaluate", "prepare", "moe", "tune", "encoders", "graph", "visits", "writer")
    known = (*names, *PARTED, "gpu", "chaos")
    command.add_argument("name", choices=known, metavar="NAME", help=f"one of {', '.join(known)}")
    command.add_argument("--json", metavar="FILE", help="write the rows there as well")
    command.add_argument("--data", metavar="ROOT", help="prepared data set (default: one of ML-1M's size is made)")
    command.add_argument("--interactions", type=count, default=10_000_000, help="for prepare (default: 10000000)")
    command.add_argument("--trials", type=count, default=64, help="for tune (default: 64)")
    command.add_argument(
        "--minutes", type=float, default=10, help="of faults, for serve; most, for chaos (default: 10)"
    )
    command.add_argument("--faults", type=count, default=10, help="for chaos (default: 10)")
    command.add_argument("--seed", type=int, default=0, help="of the order of faults, for chaos (default: 0)")
    command.add_argument("--items", type=count, default=1_000_000, help="for graph's neighbours (default: 1000000)")
    text = "largest generated graph whose steps are measured, from 10^5 on (default: 1000000)"
    command.add_argument("--edges", type=count, default=1_000_000, metavar="N", help=text)
    command.add_argument("--images", type=count, default=100_000, help="for encoders' memory (default: 100000)")
    text = "of a generated cohort, for visits (default: 2000000)"
    command.add_argument("--prescriptions", type=count, default=2_000_000, metavar="N", help=text)
    command.add_argument(
        "--pairs", type=count, default=1_000_000, help="generated reviews, for writer (default: 1000000)"
    )
    text = f"parts of {' or '.join(PARTED)}, separated by commas (default: all)"
    command.add_argument("--only", type=_parts, default=(), metavar="PARTS", help=text)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def run(options: argparse.Namespace) -> int:
    """Measure, print and return the exit code."""
    from rec.benchmarks.run import run
    from rec.benchmarks.work import Work

    writable(options.json)
    if options.only and options.name not in PARTED:
        raise RequestError(f"--only: {options.name} has no parts; {', '.join(PARTED)} have")
    sizes = ("interactions", "trials", "minutes", "images", "items", "edges", "prescriptions", "pairs")
    more = ("only", "faults", "seed")
    work = Work(say=say, data=options.data, **{name: getattr(options, name) for name in (*sizes, *more)})
    return run(options.name, work, options.json)
