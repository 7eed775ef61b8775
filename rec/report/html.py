"""A report as one HTML file without outside parts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rec.data.members import media_type
from rec.report.columns import filled, numeric, parted, worded
from rec.report.drawing import THEMED, draw, has_values
from rec.sections import Bars, Code, Gallery, Heatmap, Lines, Part, Picture, Section, Table, Text

CONTENTS_FROM = 6
"""Number of sections from which a page has a table of contents."""


def page(
    title: str,
    lead: str,
    sections: Sequence[Section],
    *,
    facts: Sequence[tuple[str, str]] = (),
    notices: Sequence[str] = (),
    command: str = "",
    command_does: str = "To repeat this:",
) -> str:
    """Return the page of a report.

    `lead` says in words what was found; `notices` are warnings above everything else, as that data are generated;
    `facts` are pairs of a name and a value under the lead (data, split, cost); `command` repeats what is reported, or
    does what `command_does` says.
    """
    found = [_section(section, index) for index, section in enumerate(sections, start=1)]
    environment = Environment(
        loader=PackageLoader("rec.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(
        title=title,
        lead=lead,
        facts=facts,
        notices=notices,
        command=command,
        command_does=command_does,
        sections=found,
        contents=found if len(found) >= CONTENTS_FROM else [],
        colours=THEMED,
    )
    return text.encode("utf-8", "replace").decode()


def _section(section: Section, index: int) -> dict[str, Any]:
    slug = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
    blocks: list[dict[str, Any]] = []
    for drawn, group in groupby(section.parts, lambda part: isinstance(part, Bars | Lines | Heatmap)):
        parts = list(group)
        if drawn:
            blocks.append({"kind": "figures", "figures": _figures(parts)})
        else:
            blocks += [_block(piece) for part in parts for piece in _pieces(part)]
    return {"title": section.title, "id": f"s{index}-{slug}", "folded": section.folded, "blocks": blocks}


def _figures(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Return figures in a row, each across the page where it is alone or asks for it."""
    found = [part for part in parts if isinstance(part, Bars | Lines | Heatmap)]
    figures = []
    for part in found:
        wide = part.wide or len(found) == 1
        there = has_values(part)
        drawn = draw(part, wide) if there else None
        # What is drawn across a page cannot be read on a phone: there it is drawn anew, with the same letters.
        small = draw(part, wide=False) if there and wide else None
        figures.append({"title": part.title, "caption": part.caption, "wide": wide, "svg": drawn, "small": small})
    return figures


def _pieces(part: Part) -> Sequence[Part]:
    """Return a part as it is laid out: a table that is too wide in several."""
    return parted(filled(part)) if isinstance(part, Table) else [part]


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"kind": "text", "text": part.text, "tone": part.tone}
    if isinstance(part, Code):
        return {"kind": "code", "text": part.text}
    if isinstance(part, Table):
        return {"kind": "table", "table": part, "right": numeric(part), "worded": worded(part)}
    if isinstance(part, Picture):
        return {"kind": "picture", "title": part.title, "caption": part.caption, "source": _source(part.content)}
    assert isinstance(part, Gallery)
    return _gallery(part)


def _gallery(part: Gallery) -> dict[str, Any]:
    pictures = any(card.picture for shelf in part.shelves for card in shelf.cards)
    shelves = [
        {
            "lead": shelf.lead,
            "detail": shelf.detail,
            "cards": [
                {"caption": card.caption, "marked": card.marked, "source": _source(card.picture or b"")}
                for card in shelf.cards
            ],
        }
        for shelf in part.shelves
    ]
    return {"kind": "gallery", "shelves": shelves, "mark": part.mark, "pictures": pictures}


def _source(content: bytes) -> str | None:
    """Return a picture as the address of an `img`, in which no script runs."""
    kind = media_type(content)
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}" if kind else None
