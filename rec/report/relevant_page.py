"""The report's parts on runs whose users have several relevant items: floors, cold, modalities, pictures."""

from __future__ import annotations

import base64
import html
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rec.data.prepared import Prepared
from rec.report.figures import COLOURS, svg
from rec.report.text import interval_text, table_html

STYLE = """
.shelf{display:flex;gap:.6rem;flex-wrap:wrap;margin:.4rem 0 1.2rem}.shelf figure{margin:0;width:104px;font-size:11px}
.shelf img{width:96px;height:96px;object-fit:cover;border:3px solid #e2e8f0}.shelf .hit img{border-color:#059669}
"""


def sections(numbers: dict[str, Any], data: Prepared | None) -> list[str]:
    """Return the HTML of every part; pictures where the data set is still there."""
    if "floors" not in numbers:
        return []
    parts = []
    if numbers["synthetic_labels"]:
        parts.append("<p><b>Labels are synthetic</b>: no person has judged what is relevant. Not dietary advice.</p>")
    told = ("precision@5", "recall@5", "ndcg@5", "map@5", "ndcg@10", "recall@20", "ndcg@20", "auc")
    shown = [name for name in told if name in numbers["metrics"]]
    rows = [[name, *(f"{values[m]:.4f}" for m in shown)] for name, values in numbers["floors"].items()]
    rows.insert(0, ["this run", *(f"{numbers['metrics'][m]:.4f}" for m in shown)])
    note = f"{numbers['users']:,} users, {numbers['relevant per user']:.2f} relevant items each in the mean."
    parts += ["<h2>Beside simple rankings</h2>", f'<p class="note">{note}</p>', table_html(["ranking", *shown], rows)]
    if numbers["cold kinds"]:
        rows = [
            [name, f"{entry['users']:,}", *(interval_text(entry[m]) if m in entry else "" for m in ("ndcg@10", "auc"))]
            for name, entry in numbers["cold kinds"].items()
        ]
        parts += ["<h2>Cold users and items</h2>", table_html(["", "users", "ndcg@10", "auc"], rows)]
    if "worth" in numbers:
        parts += _worth(numbers["worth"])
    return parts + _examples(numbers["examples"], data)


def _worth(worth: dict[str, Any]) -> list[str]:
    parts = []
    for kind, title, note in (
        (
            "without",
            "What each modality is worth",
            "ndcg@10 where it is missing for all, and the loss with 95 % interval.",
        ),
        ("spoiled", "Spoiled pictures", "The same pictures after JPEG, blur, a crop, or swapped within their class."),
    ):
        rows = []
        for name, entry in worth[kind].items():
            kept = f"{entry['top 5 kept']:.0%}" if "top 5 kept" in entry else ""
            rows.append([name, f"{entry['ndcg@10']:.4f}", interval_text(entry["loss"]), kept])
        if rows:
            head = ["", "ndcg@10", "loss", "of the best 5 kept"]
            parts += [f"<h2>{title}</h2>", f'<p class="note">{note}</p>', table_html(head, rows)]
    if worth["groups"]:
        parts += ["<h2>Groups of users: what their rankings rest on, and who serves them</h2>", _by_group(worth)]
    for name, value in worth.get("needs image", {}).items():
        parts.append(
            f"<p>Who truly needs the picture (planted) is told {html.escape(name)}: AUC <b>{value:.3f}</b>.</p>"
        )
    return parts


def _by_group(worth: dict[str, Any]) -> str:
    """Return bars of reliance on each modality, and of each expert's share, per group of users."""
    groups = worth["groups"]
    names = list(groups)
    gated = "expert share" in next(iter(groups.values()))
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots(1, 2 if gated else 1, sharey=True, squeeze=False)[0]
    place = np.arange(len(names))
    modalities = list(next(iter(groups.values()))["reliance"])
    height = 0.8 / len(modalities)
    for index, modality in enumerate(modalities):
        values = [groups[name]["reliance"][modality] for name in names]
        axes[0].barh(place + (index + 0.5) * height - 0.4, values, height, color=COLOURS[index % 9], label=modality)
    axes[0].set_yticks(place, [f"{name} ({groups[name]['users']})" for name in names])
    axes[0].set(title="how far scores move without it")
    axes[0].legend(frameon=False, fontsize=7)
    if gated:
        share = np.array([groups[name]["expert share"] for name in names])
        left = np.zeros(len(names))
        for expert in range(share.shape[1]):
            colour = COLOURS[expert % 9]
            axes[1].barh(place, share[:, expert], 0.7, left=left, color=colour, label=f"expert {expert}")
            left += share[:, expert]
        axes[1].set(title="share of experts, best 10 items")
        axes[1].legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return svg(figure)


def _examples(examples: list[dict[str, Any]], data: Prepared | None) -> list[str]:
    parts = ["<h2>Some users and what they are shown</h2>", '<p class="note">A green frame: relevant.</p>']
    items = None if data is None else data.items
    for example in examples:
        told = example["user"]
        words = html.escape(str(told.get("text") or told.get("group") or ""))
        parts.append(f"<p><b>{html.escape(str(told['id']))}</b> {words}</p><div class=shelf>")
        for shown in example["items"]:
            title, picture = str(shown["item"]), ""
            if items is not None:
                row = shown["item"] - 1
                title = str(items["title"][row]) if "title" in items.column_names else str(items["id"][row])
                stored = items["image"][row].as_py() if "image" in items.column_names else None
                if isinstance(stored, bytes):
                    code = base64.b64encode(stored).decode()
                    picture = f'<img alt="" src="data:image/jpeg;base64,{code}">'
            kind = ' class="hit"' if shown["relevant"] else ""
            caption = f"{html.escape(title)}<br>{shown['score']:.3f}"
            picture = picture or '<img alt="no picture">'
            parts.append(f"<figure{kind}>{picture}<figcaption>{caption}</figcaption></figure>")
        parts.append("</div>")
    return parts
