"""`rec report`: a run's HTML report."""

from __future__ import annotations

import argparse

from rec.cli.run import count
from rec.config import RunConfig, load
from rec.errors import RequestError
from rec.filesystems import is_folder
from rec.progress import tell

TEXT = "write a run's HTML report"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec report rec/configs/demo.toml
  rec report out/demo/run
  rec report rec/configs/ml-100k.toml --seeds 3
  rec report rec/configs/ml-1m.toml --user 390 --user 1752"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="RUN", help="TOML file of the run, or its folder")
    command.add_argument("--split", default="test", choices=("val", "test"), help="which split (default: test)")
    command.add_argument("--seeds", type=count, default=0, metavar="N", help="seeds 0 to N-1, each in out/seed-N")
    command.add_argument(
        "--user", action="append", default=[], metavar="ID", help="tell of this user alone as well; may be repeated"
    )


def run(options: argparse.Namespace) -> None:
    """Write the report and print its path."""
    from rec.report.page import write_report

    if is_folder(options.config):
        if options.overrides:
            raise RequestError(f"report: a folder has its own keys; found {options.overrides[0]!r}, expected none")
        folder = options.config.rstrip("/")
    else:
        config = load(options.config, options.overrides)
        folder = config.out
        _check_runs(config, options.seeds)
    tell(write_report(folder, options.split, options.seeds, options.user))


def _check_runs(config: RunConfig, seeds: int) -> None:
    """Check that the runs to be told of are the config's, whatever their seeds."""
    from rec.evaluation.run import read_config, seed_folders
    from rec.storage import Storage
    from rec.train.job import check_same, require_trained

    for folder in seed_folders(config.out, seeds):
        require_trained(folder)
        if Storage(folder).exists("config.json"):
            seed = config.train.seed if folder == config.out else read_config(folder).train.seed
            train = config.train.model_copy(update={"seed": seed})
            check_same(config.model_copy(update={"out": folder, "train": train}))
