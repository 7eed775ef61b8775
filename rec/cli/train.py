"""`rec train`: a run, or the rest of it."""

from __future__ import annotations

from rec.cli.options import Config, Overrides, Seeds
from rec.cli.run import runs, train

TEXT = "train, or go on where the run stands"
INTERRUPTED = "the same command goes on from the last checkpoint, or starts again where there is none yet"
EXAMPLES = """examples:
  rec train rec/configs/demo.toml
  rec train rec/configs/ml-100k.toml --seeds 3 parallel.workers=0 parallel.threads=2
  rec train rec/configs/ml-100k.toml out=out/sasrec model.gate=none
  rec train rec/configs/ml-100k.toml out=out/shuffled model.texts=shuffled"""


def run(config: Config, overrides: Overrides = None, seeds: Seeds = 0) -> None:
    """Train every run."""
    for one in runs(config, overrides, seeds):
        train(one, config)
