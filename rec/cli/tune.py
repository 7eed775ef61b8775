"""`rec tune`: a search on validation."""

from __future__ import annotations

from typing import Annotated

from rec.cli.options import Config, Overrides, option
from rec.config import load
from rec.levels import say
from rec.progress import tell

TEXT = "search hyperparameters on validation, or go on with the search in `out`"
INTERRUPTED = "the same command goes on with the search"
EXAMPLES = """examples:
  rec tune rec/configs/demo.toml 'tune.use=["optimiser", "gate"]' tune.trials=20 \\
    out=out/demo/search
  rec tune mine.toml tune.search=random tune.scheduler=none tune.max_hours=2
  rec tune mine.toml tune.scheduler=pbt tune.trials=8 \\
    'tune.space={"train.learning_rate" = {log = [1e-4, 1e-2]}}'
  rec tune mine.toml 'tune.objectives={load_balance = "max"}' \\
    'tune.use=["router"]' model.feedforward_mixture.experts=8
  rec tune mine.toml --spaces"""


def run(
    config: Config,
    overrides: Overrides = None,
    spaces: Annotated[bool, option("--spaces", help="list the ready-made spaces of the config's system")] = False,
) -> None:
    """Search, or list the ready-made spaces."""
    from rec.tuning.search import ready_spaces

    base = load(config, overrides or ())
    if spaces:
        for name, space in ready_spaces(base).items():
            lines = [f"  {key}: {' '.join(f'{w} = {value}' for w, value in e.items())}" for key, e in space.items()]
            tell("\n".join([f"{name}:", *lines]))
        return
    from rec.runtime.tuning import search

    tell(search(base, say))
