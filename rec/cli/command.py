"""How a command is made of a function, and started by the words of a command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from rec.cli.options import Quiet, Verbose, without_overrides
from rec.errors import RequestError
from rec.levels import QUIET, USUAL, VERBOSE, logger
from rec.provenance import code


@dataclass(frozen=True)
class ParsedCommand:
    """A command that its words allow, before it starts."""

    run: partial[int | None]
    """Its keywords are the options."""
    level: int
    """From which on people are told what it tells."""
    interrupted: str
    """What is true where it was interrupted."""


class Command(TyperCommand):
    """A command whose key=value words may stand anywhere, and whose examples are shown as they were written."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words."""
        own = any(one.name == "overrides" for one in self.params)
        if any((one.metavar or "").startswith("-- ") for one in self.params):
            return super().parse_args(ctx, args)  # words of another program
        taken = {name: one.nargs for one in self.params for name in one.opts if not getattr(one, "is_flag", True)}
        rest, found = without_overrides(args, taken)
        left = super().parse_args(ctx, rest)
        if own:
            ctx.params["overrides"] = [*found, *(ctx.params.get("overrides") or ())]
        elif found:
            raise RequestError(f"{ctx.command_path.removeprefix('rec ')}: takes no keys, got {found[0]!r}")
        return left

    def get_params(self, ctx: Any) -> list[Any]:
        """Return what is read in turn: not key=value words where another argument takes any number of words."""
        found = super().get_params(ctx)
        many = [one for one in found if one.param_type_name == "argument" and one.nargs < 0]
        return [one for one in found if one.name != "overrides" or len(many) == 1]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in the line of usage."""
        return ["[OPTIONS]", *(_usage(one) for one in self.params if one.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what the command takes."""
        given: list[Any] = self.params
        arguments = [(one.metavar, one.help) for one in given if one.param_type_name == "argument"]
        options = [one.get_help_record(ctx) for one in self.get_params(ctx) if one.param_type_name == "option"]
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        formatter.write(f"\n{self.epilog}\n" if self.epilog else "")


class CommandGroup(TyperGroup):
    """Commands within a command; their options may stand before their names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words."""
        first = args[0].startswith("-") if args else False
        at = next((place for place, word in enumerate(args) if first and word in self.commands), 0)
        return super().parse_args(ctx, [*args[at : at + 1], *args[:at], *args[at + 1 :]])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        formatter.write(f"\n{self.epilog}\n" if self.epilog else "")


def _usage(argument: Any) -> str:
    """Return an argument as a line of usage shows it."""
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name if argument.nargs == 1 else f"{name}..."


def _several() -> None:
    """Do nothing: what holds one command alone would otherwise be that command."""


def _version(asked: bool) -> None:
    """Tell the version and, in a git tree, the commit."""
    if asked:
        found = code()
        commit = f", commit {found['commit'][:12]}" if found["commit"] else ""
        print(f"rec {found['version']}{commit}")
        raise typer.Exit


def _first(
    version: Annotated[
        bool, typer.Option("--version", help="tell the version, and end", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Do nothing before a command of `rec`."""


def app(text: str, examples: str, metavar: str, *, first: bool = False) -> typer.Typer:
    """Return what holds commands; the first of all tells the version as well, and completes words in shells."""
    return typer.Typer(
        cls=CommandGroup,
        callback=_first if first else _several,
        help=text,
        epilog=examples,
        subcommand_metavar=metavar,
        add_completion=first,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def add(group: typer.Typer, name: str, run: Callable[..., int | None], text: str, interrupted: str, end: str) -> None:
    """Add a command that a function does, whose parameters are what it takes; `end` closes its help."""

    @wraps(run)
    def ready(*, quiet: bool, verbose: bool, **options: Any) -> ParsedCommand:
        if quiet and verbose:
            raise typer.BadParameter("not allowed with argument --quiet", param_hint="--verbose")
        return ParsedCommand(partial(run, **options), QUIET if quiet else VERBOSE if verbose else USUAL, interrupted)

    own = inspect.signature(run, eval_str=True)
    flags = [
        inspect.Parameter(flag, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for flag, kind in (("quiet", Quiet), ("verbose", Verbose))
    ]
    ready.__signature__ = own.replace(parameters=[*own.parameters.values(), *flags])  # type: ignore[attr-defined]
    group.command(name, cls=Command, help=text, short_help=text, epilog=end)(ready)


def parsed(group: typer.Typer, words: Sequence[str]) -> ParsedCommand:
    """Return the command that words name; the process ends where they ask for help, or name none."""
    try:
        found = get_command(group).main(args=list(words), prog_name="rec", standalone_mode=False)
    except typer.TyperException as error:
        of = getattr(error, "ctx", None)
        page = of.command_path if of is not None else "rec"
        logger().error(f"rec: error: {_fault(error)}{_choices(of)}; see {page} --help")
        raise SystemExit(2) from None
    if not isinstance(found, ParsedCommand):
        raise SystemExit(found)
    return found


def _choices(of: Any) -> str:
    """Return what there is where a command of a group was not found."""
    return (
        f"; there are {', '.join(of.command.list_commands(of))}"
        if isinstance(getattr(of, "command", None), CommandGroup)
        else ""
    )


def _fault(error: typer.TyperException) -> str:
    """Return in one line what is wrong with the words."""
    if isinstance(error, typer.BadParameter) and error.message and error.param is not None:
        names = error.param.opts if error.param.param_type_name == "option" else [error.param.metavar or ""]
        fault = error.message.removeprefix("Value error, ").rstrip(".")
        return f"argument {'/'.join(names)}: {fault}"
    return error.format_message().rstrip(".")
