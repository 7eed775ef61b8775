"""`rec predict`: answers to a split or a table of requests."""

from __future__ import annotations

import argparse

from rec.levels import say

TEXT = "write answers to a split or a table of requests, and what `rec evaluate` reads of them"
INTERRUPTED = "the same command goes on with the parts that are missing"
EXAMPLES = """examples:
  rec predict rec/configs/ml-1m.toml --k 100 parallel.workers=8
  rec evaluate rec/configs/ml-1m.toml --predictions out/ml-1m/run/predictions/test
  rec predict rec/configs/demo.toml --requests people.csv --to answers --strict"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="RUN", help="TOML file of the run, or its folder")
    text = "answer the rows of a .parquet, .csv or .jsonl with the system's columns in raw ids, in place of a split"
    command.add_argument("--requests", metavar="TABLE", help=text)
    command.add_argument("--to", metavar="FOLDER", help="where to (default: the run's folder, predictions/SPLIT)")
    command.add_argument("--k", type=int, default=10, help="length of answers that are lists (default: 10)")
    command.add_argument("--strict", action="store_true", help="exit with 1 where a row of the table has no answer")
    command.add_argument("--split", default="test", choices=("val", "test"), help="which split (default: test)")


def run(options: argparse.Namespace) -> int:
    """Write answers; return the exit code."""
    from rec.evaluation.predict import order_of, predict, summary
    from rec.evaluation.run import load_run

    order = order_of(load_run(options.config, options.overrides), options)
    if order.config.parallel.workers:
        from rec.runtime.cluster import starting
        from rec.runtime.predict import predict_on_ray as run_parts

        say(f"{order.folder}: {starting()}, for {order.config.parallel.workers} workers")
    else:
        from rec.evaluation.predictor import predict_here as run_parts
    manifest = predict(order, run_parts, say)
    say("\n".join(summary(manifest, order.folder)))
    return int(options.strict and manifest["errors"] > 0)
