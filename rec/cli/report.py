"""`rec report`: a run's HTML report."""

from __future__ import annotations

import argparse
from pathlib import Path

from rec.cli.run import runs
from rec.config import load
from rec.errors import RequestError
from rec.progress import tell

TEXT = "write a run's HTML report"
EXAMPLES = """examples:
  rec report rec/configs/demo.toml
  rec report out/demo/run
  rec report rec/configs/ml-100k.toml --seeds 3"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="RUN", help="TOML file of the run, or its folder")
    command.add_argument("--split", default="test", choices=("val", "test"), help="which split (default: test)")
    command.add_argument("--seeds", type=int, default=0, metavar="N", help="seeds 0 to N-1, each in out/seed-N")


def run(options: argparse.Namespace) -> None:
    """Write the report and print its path."""
    from rec.report.page import write_report
    from rec.train.job import check_same

    if Path(options.config).is_dir():
        if options.overrides:
            raise RequestError(f"report: a folder has its own keys; found {options.overrides[0]!r}, expected none")
        folder = options.config.rstrip("/")
    else:
        folder = load(options.config, options.overrides).out
        for config in runs(options):
            check_same(config)
    tell(write_report(folder, options.split, options.seeds))
