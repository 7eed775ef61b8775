"""`rec results`: pages that put runs side by side."""

from __future__ import annotations

import re
from typing import Annotated

from rec.cli.options import argument, option
from rec.errors import RequestError
from rec.progress import tell

TEXT = "write a page on all runs below some folders, from their own files alone"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec results out/ml-100k
  rec results out/ml-100k out/ml-1m --name movielens
  rec results out/baby --baseline lightgcn --to pages"""
NAME = re.compile(r"[\w.-]+")


def run(
    folders: Annotated[list[str], argument("FOLDER", "folders with runs, at any depth")],
    name: Annotated[
        str, option("--name", help="of the page (default: the last part of the first FOLDER)", metavar="NAME")
    ] = "",
    to: Annotated[str, option("--to", help="where to (default: results)", metavar="FOLDER")] = "results",
    baseline: Annotated[
        str,
        option(
            "--baseline",
            help="compare others with this line: its label, or a folder of its runs (default: the best by "
            "the first metric)",
            metavar="LINE",
        ),
    ] = "",
) -> None:
    """Write the page and print its paths."""
    from rec.report.results.page import write_results

    name = name or folders[0].rstrip("/").rpartition("/")[2].lstrip(".") or "runs"
    if not NAME.fullmatch(name):
        raise RequestError(f"--name: expected letters, digits, '.', '_' and '-', got {name!r}")
    tell("\n".join(write_results(folders, name, to, baseline)))
