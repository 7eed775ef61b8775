"""An item that texts are written of, and what was written of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rec.data.modalities.faithfulness import Faithfulness
from rec.data.modalities.passages import Facts, Retrieved

TEMPLATE, MASKED = "template", "masked"
"""Writers that are no model: what is known of an item alone, and a text that was taken away."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item, what is known of it, and what was found of it elsewhere."""

    place: int
    """From 0, among all items."""
    facts: Facts
    retrieved: tuple[Retrieved, ...] = ()
    selected: bool = True
    """Whether a model writes of it."""
    shown: bool = True
    """Whether it is shown what was found."""

    @property
    def sources(self) -> list[str]:
        """Return the texts that support what is written: facts and passages."""
        found = [text for text in self.facts.values() if text]
        for one in self.retrieved:
            found += [one.passage.title, one.passage.year, one.passage.text]
        return [text for text in found if text]

    @property
    def passages(self) -> list[str]:
        """Return the texts that whoever writes is shown of what was found, each on one line."""
        return [" ".join(one.passage.text.split()) for one in self.retrieved if self.shown]


@dataclass(slots=True, kw_only=True)
class Written:
    """What was written of one item."""

    item: Item
    texts: dict[str, str]
    """By modality, "" where there is none."""
    writers: dict[str, str]
    """By modality: the kind of the model, "template" or "masked"."""
    faithfulness: Mapping[str, Faithfulness] = field(default_factory=dict)
    """By modality, of the texts that a model wrote, before any of them was replaced."""
    model: str = ""
    """The model that was asked, "" where none was."""
    repaired: bool = False
    """Whether its first answer was not of the form that was asked for, and it was asked again."""
    reflected: bool = False
    """Whether it was asked again because something was supported by nothing."""
    fault: str = ""
    """Why the model's answer was not taken, "" where it was."""
    input_tokens: int = 0
    output_tokens: int = 0
    """Of all that was asked and answered for this item, answers from the cache included."""
