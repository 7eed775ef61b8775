"""Texts by template over what is known of an item: offline, and the same every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rec.data.modalities.config import CONTEXT
from rec.data.modalities.items import TEMPLATE, Item, Written
from rec.data.modalities.passages import Facts
from rec.data.texts import TEMPLATES


class Templates:
    """A template per modality: a config's own, else that of films, else one that tells nothing."""

    def __init__(self, names: Sequence[str], own: Mapping[str, str]) -> None:
        fills: dict[str, Callable[[Facts], str]] = {name: partial(_filled, text) for name, text in own.items()}
        self._fills = {name: (TEMPLATES | fills).get(name, _nothing) for name in names}

    def texts(self, item: Item, names: Sequence[str] | None = None) -> dict[str, str]:
        """Return the texts of an item by modality, of some or of all; "" where nothing is known that one could tell."""
        facts = {**item.facts, CONTEXT: " ".join(item.passages)}
        return {name: " ".join(self._fills[name](facts).split()) for name in names or self._fills}

    def columns(self, facts: Sequence[Facts]) -> dict[str, list[str]]:
        """Return the texts of some items by modality, in the order of the items; none may quote passages."""
        return {name: [" ".join(fill(one).split()) for one in facts] for name, fill in self._fills.items()}

    def written(self, item: Item) -> Written:
        """Return what templates write of an item."""
        texts = self.texts(item)
        return Written(item=item, texts=texts, writers=dict.fromkeys(texts, TEMPLATE))


def _nothing(facts: Facts) -> str:
    return ""


def _filled(template: str, facts: Facts) -> str:
    return template.format_map(facts)
