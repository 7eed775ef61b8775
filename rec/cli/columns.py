"""`rec columns`: what a system reads, and what a prepared data set offers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rec.cli.options import Overrides, argument
from rec.errors import DataError, RequestError
from rec.progress import tell, terminal_width

TEXT = "list columns, tables and tasks of a system, and what a prepared data set offers"
INTERRUPTED = "nothing was written"
EXAMPLES = """examples:
  rec columns rec/configs/demo.toml          # the system's, and the data set's once it is prepared
  rec columns rec/configs/demo.toml model.gate=none
  rec columns mine.toml system=mine:Mine     # a system of your own, in mine.py beside mine.toml
  rec columns out/demo/data                  # a prepared data set alone"""


def run(
    config: Annotated[str, argument("CONFIG", "TOML file of a run, its folder, or the folder of a prepared data set")],
    overrides: Overrides = None,
) -> None:
    """Print the tables."""
    from rec.data.prepared import Prepared
    from rec.data.writing import MANIFEST
    from rec.evaluation.run import load_run
    from rec.report.terminal import render
    from rec.train.inputs import data_sections, system_sections

    if (Path(config) / MANIFEST).is_file():
        if overrides:
            raise RequestError(f"columns: a data set has no keys; found {overrides[0]!r}, expected none")
        tell(render(data_sections(Prepared.open(config)), terminal_width()).rstrip("\n"))
        return
    run_config = load_run(config, overrides or ())
    data, missing = None, ""
    try:
        data = Prepared.open(run_config.data.root)
    except DataError as error:
        missing = f"\n\n{error}"
    sections = [*system_sections(run_config, data), *(data_sections(data) if data else [])]
    tell(render(sections, terminal_width()).rstrip("\n") + missing)
