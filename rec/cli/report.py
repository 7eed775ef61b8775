"""`rec report`: a run's HTML report."""

from __future__ import annotations

import argparse

from rec.cli.run import count
from rec.config import RunConfig, load

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

    config = load(options.config, options.overrides)
    _check_runs(config)
    print(write_report(config.out, options.split))


def _check_runs(config: RunConfig) -> None:
    """Check that the runs to be told of are the config's, whatever their seeds."""
    from rec.evaluation.run import read_config, seed_folders
    from rec.storage import Storage
    from rec.train.job import check_same

    for folder in seed_folders(config.out):
        if Storage(folder).exists("config.json"):
            seed = config.train.seed if folder == config.out else read_config(folder).train.seed
            train = config.train.model_copy(update={"seed": seed})
            check_same(config.model_copy(update={"out": folder, "train": train}))
