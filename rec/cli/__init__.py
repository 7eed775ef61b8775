"""The `rec` command: one module per subcommand."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial

from rec.cli import (
    benchmark,
    cluster,
    columns,
    evaluate,
    export,
    keys,
    modalities,
    plan,
    predict,
    prepare,
    report,
    results,
    serve,
    submit,
    sweep,
    train,
    tune,
    upgrade,
)
from rec.cli.ends import ended
from rec.cli.run import levels
from rec.levels import USUAL, at

OVERRIDE = re.compile(r"^[a-z_][\w.@\"-]*=")
COMMANDS = {
    "prepare": prepare,
    "columns": columns,
    "keys": keys,
    "modalities": modalities,
    "train": train,
    "tune": tune,
    "evaluate": evaluate,
    "predict": predict,
    "sweep": sweep,
    "report": report,
    "results": results,
    "export": export,
    "serve": serve,
    "upgrade": upgrade,
    "plan": plan,
    "submit": submit,
    "cluster": cluster,
    "benchmark": benchmark,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code. An error is one line, the last one."""
    given = list(sys.argv[1:] if argv is None else argv)
    overrides = [word for word in given if OVERRIDE.match(word)]
    options = parser().parse_args([word for word in given if not OVERRIDE.match(word)])
    options.overrides = overrides
    command = COMMANDS[options.command]
    with at(getattr(options, "level", USUAL)):
        return ended(partial(command.run, options), given, command.INTERRUPTED)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="rec",
        description="Train, tune, evaluate, compare and serve multimodal mixture-of-experts recommenders on Ray.",
        epilog="Config keys are overridden by key=value words anywhere after the subcommand.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    for name, module in COMMANDS.items():
        text = module.TEXT
        command = commands.add_parser(
            name, help=text, description=text, epilog=module.EXAMPLES, formatter_class=raw, parents=[levels()]
        )
        module.add_options(command)
    return top
