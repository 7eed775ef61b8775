"""`rec train`: a run, or the rest of it."""

from __future__ import annotations

import argparse

from rec.cli.run import count, runs, train

TEXT = "train, or go on where the run stands"
INTERRUPTED = "the same command goes on from the last checkpoint, or starts again where there is none yet"
EXAMPLES = """examples:
  rec train rec/configs/demo.toml
  rec train rec/configs/ml-100k.toml --seeds 3 parallel.workers=0 parallel.threads=2
  rec train rec/configs/ml-100k.toml out=out/sasrec model.gate=none
  rec train rec/configs/ml-100k.toml out=out/shuffled model.texts=shuffled"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="CONFIG", help="TOML file of the run")
    command.add_argument("--seeds", type=count, default=0, metavar="N", help="seeds 0 to N-1, each in out/seed-N")


def run(options: argparse.Namespace) -> None:
    """Train every run."""
    for config in runs(options):
        train(config, options.config)
