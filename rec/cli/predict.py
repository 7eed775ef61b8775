"""`rec predict`: answers to a split or a table of requests."""

from __future__ import annotations

from typing import Annotated

from rec.cli.options import Overrides, Run, Split, option
from rec.levels import say

TEXT = "write answers to a split or a table of requests, and what `rec evaluate` reads of them"
INTERRUPTED = "the same command goes on with the parts that are missing"
EXAMPLES = """examples:
  rec predict rec/configs/ml-1m.toml --k 100 parallel.workers=8
  rec evaluate rec/configs/ml-1m.toml --predictions out/ml-1m/run/predictions/test
  rec predict rec/configs/demo.toml --requests people.csv --to answers --strict"""


def run(
    run: Run,
    overrides: Overrides = None,
    requests: Annotated[
        str | None,
        option(
            "--requests",
            help="answer the rows of a .parquet, .csv or .jsonl with the system's columns in raw ids, "
            "in place of a split",
            metavar="TABLE",
        ),
    ] = None,
    to: Annotated[
        str | None, option("--to", help="where to (default: the run's folder, predictions/SPLIT)", metavar="FOLDER")
    ] = None,
    k: Annotated[int, option("--k", help="length of answers that are lists (default: 10)", metavar="N")] = 10,
    strict: Annotated[bool, option("--strict", help="exit with 1 where a row of the table has no answer")] = False,
    split: Split = "test",
) -> int:
    """Write answers; return the exit code."""
    from rec.evaluation.predict import order_of, predict, summary
    from rec.evaluation.run import load_run

    order = order_of(load_run(run, overrides or ()), k=k, requests=requests, to=to, split=split)
    if order.config.parallel.workers:
        from rec.runtime.cluster import starting
        from rec.runtime.predict import predict_on_ray as run_parts

        say(f"{order.folder}: {starting()}, for {order.config.parallel.workers} workers")
    else:
        from rec.evaluation.predictor import predict_here as run_parts
    manifest = predict(order, run_parts, say)
    say("\n".join(summary(manifest, order.folder)))
    return int(strict and manifest["errors"] > 0)
