"""`rec sweep`: the variants that a system declares."""

from __future__ import annotations

import argparse
from functools import partial

from rec.cli.run import count, prepare, say, train
from rec.config import load
from rec.progress import tell

TEXT = "train and measure the variants that a system declares, and print them side by side"
INTERRUPTED = "the same command goes on; variants that are measured are kept"
EXAMPLES = """examples:
  rec sweep rec/configs/food.toml --seeds 3
  rec sweep rec/configs/food.toml --seeds 3 --only "full; text only; image only" parallel.workers=0
  rec sweep rec/configs/food.toml --list"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="CONFIG", help="TOML file of the run")
    command.add_argument("--only", default="", metavar="A; B", help="these variants alone (default: all)")
    command.add_argument("--list", action="store_true", help="list the variants and their overrides")
    command.add_argument("--seeds", type=count, default=0, metavar="N", help="seeds 0 to N-1, each in out/seed-N")


def run(options: argparse.Namespace) -> None:
    """Train, measure and print every variant."""
    from rec.report.sweep import sweep, variants

    config = load(options.config, options.overrides)
    only = [name.strip() for name in options.only.split(";") if name.strip()]
    found = variants(config, only)
    if options.list:
        for name, words in found.items():
            tell(f"{name}: {' '.join(words)}")
        return
    prepare(config)
    tell(sweep(config, only, max(1, options.seeds), partial(train, file=options.config), say))
