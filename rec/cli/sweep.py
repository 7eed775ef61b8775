"""`rec sweep`: the variants that a system declares."""

from __future__ import annotations

import argparse
from functools import partial

from rec.cli.run import count, prepare, share, train
from rec.config import load
from rec.levels import say
from rec.progress import tell

TEXT = "train and measure variants of a run, and print them side by side"
INTERRUPTED = "the same command goes on; variants that are measured are kept"
SEEDS, MARGIN = 5, 0.01
EXAMPLES = """examples:
  rec sweep rec/configs/food.toml --seeds 3
  rec sweep rec/configs/food.toml --seeds 3 --only "full; text only; image only" parallel.workers=0
  rec sweep rec/configs/food.toml --list
  rec sweep rec/configs/food.toml --verdict --seeds 5 parallel.workers=0  # does the mixture pay?
  rec sweep rec/configs/food.toml --verdict --only "dense, active width; random gate" --seeds 3"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="CONFIG", help="TOML file of the run")
    command.add_argument("--only", default="", metavar="A; B", help="these variants alone (default: all)")
    command.add_argument("--list", action="store_true", help="list the variants and their overrides")
    command.add_argument(
        "--seeds",
        type=count,
        default=0,
        metavar="N",
        help="seeds 0 to N-1, each in a folder seed-N (default: 1; with --verdict at most so many, 5)",
    )
    command.add_argument(
        "--verdict",
        action="store_true",
        help="in the place of variants, train dense networks, gates that do not learn, and more and fewer experts, "
        "until it is clear whether the mixture pays",
    )
    command.add_argument(
        "--margin",
        type=share,
        default=MARGIN,
        metavar="SHARE",
        help=f"of the metric, below which --verdict takes a difference for none (default: {MARGIN:g})",
    )


def run(options: argparse.Namespace) -> None:
    """Train, measure and print every variant, or what tells whether the mixture pays."""
    from rec.report.sweep import sweep, variants
    from rec.report.verdict import judged_runs, verdict

    config = load(options.config, options.overrides)
    only = [name.strip() for name in options.only.split(";") if name.strip()]
    if options.verdict:
        found = {one.name: one.words for one in judged_runs(config, only)}
    else:
        found = dict(variants(config, only))
    if options.list:
        for name, words in found.items():
            tell(f"{name}: {' '.join(words)}")
        return
    prepare(config)
    training = partial(train, file=options.config)
    if options.verdict:
        tell(verdict(config, only, options.seeds or SEEDS, options.margin, training, say))
    else:
        tell(sweep(config, only, max(1, options.seeds), training, say))
