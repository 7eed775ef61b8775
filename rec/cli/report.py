"""`rec report`: a run's HTML report."""

from __future__ import annotations

import argparse

from rec.cli.run import count
from rec.config import load

TEXT = "write a run's HTML report"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec report rec/configs/demo.toml
  rec report rec/configs/ml-100k.toml --seeds 3"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="CONFIG", help="TOML file of the run")
    command.add_argument("--split", default="test", choices=("val", "test"), help="which split (default: test)")
    command.add_argument("--seeds", type=count, default=0, metavar="N", help="seeds 0 to N-1, each in out/seed-N")


def run(options: argparse.Namespace) -> None:
    """Write the report and print its path."""
    from rec.report.page import write_report

    print(write_report(load(options.config, options.overrides).out, options.split))
