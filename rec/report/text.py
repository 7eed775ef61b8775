"""Tables and sentences for a terminal and for HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns: the first to the left, the others to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )


def told_of_relevant(numbers: dict[str, Any]) -> str:
    """Return what evaluation tells beside metrics where users have several relevant items; empty elsewhere."""
    if "floors" not in numbers:
        return ""
    lines = [f"{numbers['users']} users with {numbers['relevant per user']:.2f} relevant items each, in the mean"]
    if numbers["synthetic_labels"]:
        lines.append("labels are synthetic: nobody has judged what is relevant")
    lines.append("equal scores are put in an order drawn for each user")
    floors = [f"{name} {values['ndcg@10']:.4f}" for name, values in numbers["floors"].items()]
    lines.append(f"beside it, ndcg@10: {', '.join(floors)}")
    for name, entry in numbers["cold kinds"].items():
        lines.append(f"{name}: ndcg@10 {interval_text(entry['ndcg@10'])}, {entry['users']} users")
    worth = numbers.get("worth", {"without": {}, "spoiled": {}})
    for kind, words in (("without", "without"), ("spoiled", "pictures spoiled by")):
        for name, entry in worth[kind].items():
            kept = f", top 5 kept {entry['top 5 kept']:.0%}" if "top 5 kept" in entry else ""
            lines.append(f"{words} {name}: ndcg@10 {entry['ndcg@10']:.4f}, loss {interval_text(entry['loss'])}{kept}")
    for name, value in worth.get("needs image", {}).items():
        lines.append(f"who truly needs the picture is told {name} with an AUC of {value:.3f}")
    return "\n".join(lines) + "\n"


def interval_text(entry: dict[str, float]) -> str:
    """Return a mean with its interval."""
    return f"{entry['mean']:.4f} ({entry['low']:.4f} to {entry['high']:.4f})"


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table."""
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    lines = ["<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows]
    return f"<table><tr>{cells}</tr>{''.join(lines)}</table>"
