"""`rec prepare`: the data set that a config names."""

from __future__ import annotations

import argparse

from rec.cli.run import prepare
from rec.config import load

TEXT = "make the data set that a config names"
EXAMPLES = """examples:
  rec prepare rec/configs/demo.toml
  rec prepare rec/configs/demo.toml data.source.planted.interactions=1000000
  rec prepare rec/configs/ml-100k.toml 'data.source.interactions=["ml-100k.zip"]' data.source.items=ml-100k.zip"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="CONFIG", help="TOML file of the run")


def run(options: argparse.Namespace) -> None:
    """Make it."""
    prepare(load(options.config, options.overrides))
