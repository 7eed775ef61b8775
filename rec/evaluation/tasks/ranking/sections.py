"""The ranking task's parts of a report: cold items and subjects, and some subjects with what they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rec.data.prepared import Prepared
from rec.evaluation.records import column, ragged
from rec.evaluation.task import Measured
from rec.evaluation.tasks.ranking.members import known_of, names_of
from rec.sections import Card, Gallery, Section, Shelf, Table, Text, spread
from rec.seeds import generator

if TYPE_CHECKING:
    from rec.evaluation.tasks.ranking.task import Ranking

EXAMPLES, SHOWN = 6, 5
COLD = (
    "Cold items are those that training saw little or nothing of; they are ranked among all items, and among cold ones "
    "alone. Cold subjects are those of whom nothing is known. Means with 95 % bootstrap intervals over subjects; auc "
    "is the share of pairs of a relevant and another item in the right order, 0.5 by chance."
)


def sections(task: Ranking, measured: Measured) -> list[Section]:
    """Return the parts."""
    found = []
    if measured.numbers["cold"]:
        rows = []
        for name, entry in measured.numbers["cold"].items():
            cells = (spread(entry.get(m), entry["subjects"]) for m in (task.headline, "auc"))
            rows.append([name, f"{entry['subjects']:,}", *cells])
        table = Table(head=["ranked", "subjects", task.headline, "auc"], rows=rows)
        found.append(Section(title="Cold items and subjects", parts=[Text(text=COLD, tone="note"), table]))
    if shelves := [shelf(measured, place) for place in chosen(measured)]:
        marked = any(card.marked for shelf in shelves for card in shelf.cards)
        told = "✓ marks what was to be found" if marked else "none of these was to be found"
        text = f"The {SHOWN} items with the highest scores for a few subjects, drawn at random; {told}."
        note = Text(text=text, tone="note")
        parts: list[Any] = [note, Gallery(shelves=shelves, mark="relevant")]
        found.append(Section(title="Some subjects and what they are shown", parts=parts))
    return found


def chosen(measured: Measured) -> list[int]:
    """Return the places of the examples to show."""
    places = generator(0, "examples").permutation(len(measured.records))[:EXAMPLES]
    return [int(place) for place in np.sort(places)]


def shelf(measured: Measured, place: int) -> Shelf:
    """Return one subject and its best items."""
    records = measured.records.slice(place, 1)
    target = set(ragged(records, "target")[0].tolist())
    user = int(column(records, "subject")[0])
    entity, index = measured.system.subject, np.array([user])
    told = {n: known_of(measured.data, entity, n, index)[0].as_py() for n in names_of(measured.data, entity)}
    words = str(told.get("text") or (f"group {told['group']}" if told.get("group") else ""))
    cards = []
    best = zip(column(records, "top")[0, :SHOWN].tolist(), column(records, "top_score")[0, :SHOWN], strict=True)
    for item, score in best:
        if item > 0:
            caption, picture = described(measured.data, measured.system.entity, item)
            cards.append(Card(caption=[caption, f"score {score:.3f}"], picture=picture, marked=item in target))
    return Shelf(lead=str(told.get("id", user)), detail=words, cards=cards)


def described(data: Prepared, entity: str, item: int) -> tuple[str, bytes | None]:
    """Return what people call an item, and its picture."""
    names = names_of(data, entity)
    told = {n: known_of(data, entity, n, np.array([item]))[0].as_py() for n in ("id", "title", "image") if n in names}
    picture = told.get("image")
    return str(told.get("title") or told.get("id", item)), picture if isinstance(picture, bytes) else None
