"""What commands take: options and arguments that several have, and key=value words between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from rec.errors import RequestError


def option(*names: str, help: str, **more: Any) -> Any:
    """Return an option whose help tells the default itself."""
    return typer.Option(*names, help=help, show_default=False, **more)


def argument(metavar: str, help: str, **more: Any) -> Any:
    """Return an argument whose help tells the default itself."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, **more)


def count(text: str | int) -> int:
    """Return the whole number of at least 1 that an option is given, a default as it is."""
    if isinstance(text, int):
        return text
    if not text.isdigit() or not int(text):
        raise typer.BadParameter(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def share(text: str | float) -> float:
    """Return the share from 0 to 1 that an option is given."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise typer.BadParameter(f"expected a share from 0 to 1, got {text!r}")
    return found


def port(text: str | int) -> int:
    """Return the port that an option is given, a default as it is."""
    if isinstance(text, int):
        return text
    if not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise typer.BadParameter(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def is_override(word: str) -> bool:
    """Return whether a word is key=value: a dotted key, parts of which may stand in quotes, and what it is set to."""
    key, mark, _ = word.partition("=")
    starts = key[:1].islower() or key[:1] == "_"
    return bool(mark) and starts and all(letter.isalnum() or letter in '_.@"-' for letter in key)


def override(text: str) -> str:
    """Return the key=value that an argument is given."""
    if not is_override(text):
        raise typer.BadParameter(f"expected key=value, got {text!r}")
    return text


def without_overrides(words: Sequence[str], taken: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Return the words that are no key=value, and those that are.

    What an option takes stays with it, and what follows `--` as it is.

    Args:
        words: Of a command line, after the command's name.
        taken: How many words each option takes.
    """
    rest, found, left = list[str](), list[str](), iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif is_override(word):
            found.append(word)
        else:
            rest += [word, *(value for _, value in zip(range(taken.get(word, 0)), left, strict=False))]
    return rest, found


def at_most_one(**given: object) -> None:
    """Check that at most one of some options is given.

    Raises:
        RequestError: two are.
    """
    found = [f"--{name}" for name, value in given.items() if value]
    if len(found) > 1:
        raise RequestError(f"{found[1]}: not allowed with argument {found[0]}")


Overrides = Annotated[
    list[str] | None, argument("KEY=VALUE", "keys of the config, anywhere among the words", parser=override)
]
Config = Annotated[str, argument("CONFIG", "TOML file of the run")]
Run = Annotated[str, argument("RUN", "TOML file of the run, or its folder")]
Seeds = Annotated[int, option("--seeds", help="seeds 0 to N-1, each in out/seed-N", metavar="N", parser=count)]
Split = Annotated[Literal["val", "test"], option("--split", help="which split (default: test)")]
Quiet = Annotated[bool, option("--quiet", "-q", help="tell results and errors alone: no notes, no progress")]
Verbose = Annotated[
    bool, option("--verbose", "-v", help="tell where errors come from as well, and what Ray's loggers say")
]
