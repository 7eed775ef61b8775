"""`rec prepare`: the data set that a config names."""

from __future__ import annotations

from typing import Annotated

from rec.cli.options import Config, Overrides, option
from rec.cli.run import prepare
from rec.config import load

TEXT = "make the data set that a config names"
INTERRUPTED = "nothing new is in place; the same command goes on with what is done"
EXAMPLES = """examples:
  rec prepare rec/configs/demo.toml
  rec prepare rec/configs/demo.toml data.read.interactions=1000000
  rec prepare rec/configs/ml-100k.toml data.read.folder=ml-100k.zip
  rec prepare mine.toml --again    # items were added: only their texts are written and encoded

own tables, Parquet or text, in any layout (docs/data.md tells all keys):
  [data]
  root = "out/mine/data"
  [data.read]
  records = ["events.csv"]         # a row per event of a user and an item
  items = "items.parquet"          # a row per item; leave it out where items are their ids alone
  columns = { user = "who", item = "sku", time = "at", title = "name", item_text = ["description"] }
  [data.encode.text]               # texts as numbers
  encoder = "tfidf"

what is there already, made from the same config, is kept, unless --again is said; input
that cannot be used leaves it as it was"""


def run(
    config: Config,
    overrides: Overrides = None,
    again: Annotated[
        bool,
        option(
            "--again",
            help="read the inputs again though the data set is there; texts that have not changed keep their vectors",
        ),
    ] = False,
) -> None:
    """Make it."""
    prepare(load(config, overrides or ()), again=again)
