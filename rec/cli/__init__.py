"""The `rec` command: one module per subcommand."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

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
from rec.cli.command import add, app, parsed
from rec.cli.ends import FAILED, ended
from rec.errors import RecError
from rec.levels import at, logger

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
    try:
        named = next((word for word in given if not word.startswith("-")), None)
        job = parsed(commands(named if named in COMMANDS else None), given)
    except RecError as error:
        logger().error(f"error: {error}")
        return FAILED
    with at(job.level):
        return ended(job.run, given, job.interrupted)


def commands(only: str | None = None) -> typer.Typer:
    """Return the whole command line, or what one command needs of it: to make all takes 0.03 s of processor time."""
    text = "Train, tune, evaluate, compare and serve multimodal mixture-of-experts recommenders on Ray."
    end = "Config keys are overridden by key=value words anywhere after the subcommand."
    made = app(text, end, "COMMAND", first=True)
    for name in COMMANDS if only is None else [only]:
        module = COMMANDS[name]
        if module is cluster:
            made.add_typer(cluster.actions(), name=name, short_help=module.TEXT)
        else:
            add(made, name, module.run, module.TEXT, module.INTERRUPTED, module.EXAMPLES)
    return made
