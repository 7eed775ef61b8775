"""`rec sweep`: the variants that a system declares."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from rec.cli.options import Config, Overrides, count, option, share
from rec.cli.run import prepare, train
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
  rec sweep rec/configs/food-guidelines.toml --verdict --seeds 5  # does the mixture pay?
  rec sweep rec/configs/food-guidelines.toml --verdict --only "dense, total width" --seeds 3"""


def run(
    config: Config,
    overrides: Overrides = None,
    only: Annotated[str, option("--only", help="these variants alone (default: all)", metavar="A; B")] = "",
    list_: Annotated[bool, option("--list", help="list the variants and their overrides")] = False,
    seeds: Annotated[
        int,
        option(
            "--seeds",
            help="seeds 0 to N-1, each in a folder seed-N (default: 1; with --verdict at most so many, 5)",
            metavar="N",
            parser=count,
        ),
    ] = 0,
    judged: Annotated[
        bool,
        option(
            "--verdict",
            help="in the place of variants, train dense networks, gates that do not learn, and more and fewer experts, "
            "until it is clear whether the mixture pays",
        ),
    ] = False,
    margin: Annotated[
        float,
        option(
            "--margin",
            help=f"of the metric, below which --verdict takes a difference for none (default: {MARGIN:g})",
            metavar="SHARE",
            parser=share,
        ),
    ] = MARGIN,
) -> None:
    """Train, measure and print every variant, or what tells whether the mixture pays."""
    from rec.report.sweep import sweep, variants
    from rec.report.verdict import judged_runs, verdict

    base = load(config, overrides or ())
    names = [name.strip() for name in only.split(";") if name.strip()]
    found = {one.name: one.words for one in judged_runs(base, names)} if judged else dict(variants(base, names))
    if list_:
        for name, words in found.items():
            tell(f"{name}: {' '.join(words)}")
        return
    prepare(base)
    training = partial(train, file=config)
    if judged:
        tell(verdict(base, names, seeds or SEEDS, margin, training, say))
    else:
        tell(sweep(base, names, max(1, seeds), training, say))
