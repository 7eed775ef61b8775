"""The reference of keys: what it says of a model, and that the one on file is that of the code."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from rec.cli import main
from rec.cli.keys import reference
from rec.keys_reference import meanings_of, sections, tables_within
from rec.strict import Needs, Strict

FILE = Path(__file__).parents[2] / "docs" / "keys.md"


class Wheel(Strict):
    """One wheel."""

    size: int = Field(28, ge=12, lt=30)
    """Inches."""


class Bicycle(Strict):
    """What one rides."""

    NEEDS: ClassVar[Needs] = {"charge": {"motor": [True], "colour": {"not": ["red"]}}}

    name: str
    """Of the maker, or
    anything."""
    colour: Literal["red", "blue | green"] = "red"
    """It is painted."""
    motor: bool = False
    """Whether it has one."""
    charge: float | None = None
    """Kilowatt hours."""
    wheels: dict[str, Wheel] = {}
    """By place."""
    spare: Wheel = Wheel(size=20)


class Tandem(Bicycle):
    """For two."""

    motor: bool = True


def test_a_section_tells_values_defaults_meanings_and_needs() -> None:
    first, *inner = sections("bicycle", Bicycle)
    assert first.splitlines() == [
        "`[bicycle]`: What one rides.",
        "",
        "| key | value | default | meaning |",
        "|---|---|---|---|",
        "| `name` | text | required | Of the maker, or anything. |",
        '| `colour` | `"red"`, `"blue \\| green"` | `"red"` | It is painted. |',
        "| `motor` | true or false | `false` | Whether it has one. |",
        '| `charge` | number | unset | Kilowatt hours. Only with `motor` `true` and `colour` other than `"red"`. |',
        "| `wheels` | table by name of table | `{}` | By place. |",
        "| `spare` | table |  | One wheel. |",
    ]
    assert [text.splitlines()[0] for text in inner] == [
        "`[bicycle.wheels.NAME]`: One wheel.",
        "`[bicycle.spare]`: One wheel.",
    ]
    row = "| `size` | whole number, at least 12, below 30 | `{}` | Inches. |"
    assert [text.splitlines()[-1] for text in inner] == [row.format(28), row.format(20)]


def test_a_key_that_is_only_given_another_default_keeps_its_meaning() -> None:
    assert meanings_of(Tandem)["motor"] == "Whether it has one."
    (line,) = [line for line in next(iter(sections("", Tandem))).splitlines() if line.startswith("| `motor`")]
    assert line == "| `motor` | true or false | `true` | Whether it has one. |"


def test_tables_are_found_within_options_lists_and_tables() -> None:
    assert tables_within(Wheel | None) == [("", Wheel)]
    assert tables_within(dict[str, Wheel]) == [(".NAME", Wheel)]
    assert tables_within(tuple[Wheel, ...]) == [("", Wheel)]
    assert tables_within(dict[str, int]) == []


@pytest.mark.slow
def test_the_reference_on_file_is_that_of_the_code_and_every_key_has_a_meaning() -> None:
    made = reference()
    rows = [line for line in made.splitlines() if line.startswith("| `")]
    assert not [row for row in rows if row.endswith("|  |")], "say under these keys what they are"
    assert len(rows) > 600
    assert FILE.read_text() == f"{made}\n", (
        "docs/keys.md is not that of the keys: renew it by `rec keys > docs/keys.md`"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train"], "| `epochs` | whole number, at least 1 | `1` |"),
        (["train"], "`[train.phases.NAME]`:"),
        (["model", "rec.systems.peter:PETER"], "| `feature` | true or false | `false` |"),
        (["data.read", "rec.data.sources.tables:Tables"], "`[data.read.columns]`:"),
    ],
)
def test_one_table_is_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", *words]) == 0
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["trian"], "keys: no table [trian]"),
        (["train", "rec.systems.peter:PETER"], "keys: train belongs to every run"),
        (["model", "rec.systems.peter:Peter"], "did you mean 'rec.systems.peter:PETER'?"),
        (["train", "train.epochs=3"], "keys: it reads no config; found 'train.epochs=3'"),
    ],
)
def test_what_is_no_table_is_refused(words: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", *words]) == 1
    assert fault in capsys.readouterr().err
