"""`rec keys`: every key of the TOML files, with values, default and meaning."""

from __future__ import annotations

from typing import Annotated

from rec.cli.options import Overrides, argument
from rec.errors import RequestError
from rec.progress import tell

TEXT = "tell every key: values, default, meaning"
INTERRUPTED = "nothing was written"
EXAMPLES = """examples:
  rec keys                                        # all: docs/keys.md
  rec keys train                                  # the keys of [train] and of the tables in it
  rec keys model rec.systems.msmrec:MSMRec        # those of a system's [model]; yours as well
  rec keys data.read rec.data.sources.tables:Tables"""
START = """# Keys

Made from the keys' models by `rec keys`, not by hand; `rec keys > docs/keys.md` renews it. A TOML file of a run holds
these tables; every key may be given on the command line: `rec train mine.toml train.epochs=3`. Unknown keys, values
of another kind, and keys that have no effect beside the others are refused. Words: [glossary.md](glossary.md)."""


def run(
    table: Annotated[str, argument("TABLE", "such as train or data.filter")] = "",
    owner: Annotated[str, argument("CLASS", "the system or source: module:Class")] = "",
    overrides: Overrides = None,
) -> None:
    """Print the reference, or one table and those within."""
    if overrides:
        raise RequestError(f"keys: it reads no config; found {overrides[0]!r}, expected none")
    tell(_of(table, owner) if table else reference())


def reference() -> str:
    """Return the whole reference as Markdown: a run's tables, then those of systems, sources and clusters."""
    from rec.cluster.values import Values
    from rec.config import RunConfig
    from rec.keys_reference import sections
    from rec.shipped import shipped_for
    from rec.strict import resolve

    parts = [START, "## A run", *sections("", RunConfig)]
    for head, table, key in (("The systems", "model", "system"), ("The sources", "data.read", "data.source")):
        parts.append(f"## {head}")
        for path in shipped_for(key):
            parts += [f"### {path}", *sections(table, resolve(path, key).Config)]
    parts += ["## Values of `rec cluster render`", *sections("", Values)]
    return "\n\n".join(parts)


def _of(table: str, owner: str) -> str:
    """Return the sections of one table and of those within it."""
    from rec.config import RunConfig
    from rec.keys_reference import sections
    from rec.strict import resolve

    if owner:
        owners = {"model": "system", "data.read": "data.source"}
        if table not in owners:
            raise RequestError(f"keys: {table} belongs to every run; only {' and '.join(owners)} take a class")
        return "\n\n".join(sections(table, resolve(owner, owners[table]).Config))
    every = sections("", RunConfig)
    found = [text for text in every if text.startswith((f"`[{table}]`", f"`[{table}."))]
    if not found:
        names = [text.partition("]")[0].removeprefix("`[") for text in every if text.startswith("`[")]
        raise RequestError(
            f"keys: no table [{table}]; there are {', '.join(names)}; model and data.read need a class as well, as in "
            "`rec keys model rec.systems.msmrec:MSMRec`"
        )
    return "\n\n".join(found)
