"""`rec benchmark`: speed beside its limit."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from rec.cli.options import argument, count, option
from rec.cli.run import writable
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


def number(name: str, text: str) -> Any:
    """Return an option that takes a count."""
    return option(name, help=text, metavar="N", parser=count)


Name = Literal[
    "train", "evaluate", "prepare", "moe", "tune", "encoders", "graph", "visits", "writer",
    "scale", "serve", "cluster", "modalities", "gpu", "chaos",
]  # fmt: skip


def run(
    name: Annotated[Name, argument("NAME", f"one of {', '.join(get_args(Name))}")],
    json: Annotated[str | None, option("--json", help="write the rows there as well", metavar="FILE")] = None,
    data: Annotated[
        str | None, option("--data", help="prepared data set (default: one of ML-1M's size is made)", metavar="ROOT")
    ] = None,
    interactions: Annotated[int, number("--interactions", "for prepare (default: 10000000)")] = 10_000_000,
    trials: Annotated[int, number("--trials", "for tune (default: 64)")] = 64,
    minutes: Annotated[
        float, option("--minutes", help="of faults, for serve; most, for chaos (default: 10)", metavar="N")
    ] = 10,
    faults: Annotated[int, number("--faults", "for chaos (default: 10)")] = 10,
    seed: Annotated[int, option("--seed", help="of the order of faults, for chaos (default: 0)", metavar="N")] = 0,
    items: Annotated[int, number("--items", "for graph's neighbours (default: 1000000)")] = 1_000_000,
    edges: Annotated[
        int,
        number("--edges", "largest generated graph whose steps are measured, from 10^5 on (default: 1000000)"),
    ] = 1_000_000,
    images: Annotated[int, number("--images", "for encoders' memory (default: 100000)")] = 100_000,
    prescriptions: Annotated[
        int,
        number("--prescriptions", "of a generated cohort, for visits (default: 2000000)"),
    ] = 2_000_000,
    pairs: Annotated[int, number("--pairs", "generated reviews, for writer (default: 1000000)")] = 1_000_000,
    only: Annotated[
        str,
        option("--only", help=f"parts of {' or '.join(PARTED)}, separated by commas (default: all)", metavar="PARTS"),
    ] = "",
) -> int:
    """Measure, print and return the exit code."""
    sizes = {"interactions": interactions, "trials": trials, "minutes": minutes, "images": images, "items": items}
    sizes |= {"edges": edges, "prescriptions": prescriptions, "pairs": pairs, "faults": faults, "seed": seed}
    return _measured(name, json, data, tuple(part for part in only.split(",") if part), sizes)


def _measured(name: str, json: str | None, data: str | None, only: tuple[str, ...], sizes: dict[str, Any]) -> int:
    from rec.benchmarks.run import run
    from rec.benchmarks.work import Work

    writable(json)
    if only and name not in PARTED:
        raise RequestError(f"--only: {name} has no parts; {', '.join(PARTED)} have")
    return run(name, Work(say=say, data=data, only=only, **sizes), json)
