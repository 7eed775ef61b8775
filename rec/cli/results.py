"""`rec results`: pages that put runs side by side."""

from __future__ import annotations

import argparse
import re

from rec.errors import RequestError
from rec.progress import tell

TEXT = "write a page on all runs below some folders, from their own files alone"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec results out/ml-100k
  rec results out/ml-100k out/ml-1m --name movielens
  rec results out/baby --baseline lightgcn --to pages"""
NAME = re.compile(r"[\w.-]+")


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("folders", metavar="FOLDER", nargs="+", help="folders with runs, at any depth")
    command.add_argument("--name", default="", help="of the page (default: the last part of the first FOLDER)")
    command.add_argument("--to", metavar="FOLDER", default="results", help="where to (default: results)")
    text = "compare others with this line: its label, or a folder of its runs (default: the best by the first metric)"
    command.add_argument("--baseline", metavar="LINE", default="", help=text)


def run(options: argparse.Namespace) -> None:
    """Write the page and print its paths."""
    from rec.report.results.page import write_results

    if options.overrides:
        raise RequestError(f"results: takes no keys, got {options.overrides[0]!r}")
    name = options.name or options.folders[0].rstrip("/").rpartition("/")[2].lstrip(".") or "runs"
    if not NAME.fullmatch(name):
        raise RequestError(f"--name: expected letters, digits, '.', '_' and '-', got {name!r}")
    tell("\n".join(write_results(options.folders, name, options.to, options.baseline)))
