"""The HTML report of a run: one file without outside parts."""

from __future__ import annotations

import html
from typing import Any

from rec.config import RunConfig, to_json
from rec.data.prepared import Prepared
from rec.errors import DataError
from rec.report import figures, relevant_page
from rec.report.evaluation import read_config, seed_folders, summarise
from rec.report.text import table_html
from rec.storage import Storage

SHOWN = tuple(
    "hit@10 ndcg@10 mrr@10 hit@50 hit@100 precision@5 recall@10 recall@20 ndcg@20 map@5 auc coverage@10".split()
)
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;max-width:860px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}
td,th{padding:.25rem .8rem;border-bottom:1px solid #e2e8f0;text-align:right}
td:first-child,th:first-child{text-align:left}
svg{max-width:100%;height:auto}pre{background:#f8fafc;padding:1rem;overflow:auto;font-size:12px}.note{color:#64748b}
"""


def write_report(folder: str, split: str = "test") -> str:
    """Write `report.html` into a run's folder and return its path.

    Raises:
        DataError: the run was not evaluated.
    """
    folders = seed_folders(folder)
    results = []
    for part in folders:
        name = f"evaluation/{split}/metrics.json"
        if not Storage(part).exists(name):
            raise DataError(f"{part}: not evaluated on {split}; run `rec evaluate` first")
        results.append(Storage(part).read_json(name))
    config = read_config(folders[0])
    history = Storage(folders[0]).read_json("history.json")
    storage = Storage(folder)
    storage.write("report.html", _page(config, results, history, split).encode())
    return storage.uri_of("report.html")


def _page(config: RunConfig, results: list[dict[str, Any]], history: list[dict[str, Any]], split: str) -> str:
    first = results[0]
    name = config.system.rsplit(":", 1)[-1]
    ties = "ties in an order drawn for each user" if "floors" in first else "ties counted half"
    parts = [
        f"<h1>{html.escape(name)} on {html.escape(config.data.root)}</h1>",
        f'<p class="note">{first["users"]:,} users, {split} split, full ranking of all items, {ties}; checkpoint '
        f"chosen by validation {html.escape(config.train.metric)}; {len(results)} seed(s).</p>",
        "<h2>Metrics</h2>",
        _metrics(results),
        figures.metric_bars(first["metrics"], first["popularity"], [n for n in SHOWN if n in first["popularity"]]),
        *relevant_page.sections(first, _data(config)),
        "<h2>Learning curves</h2>",
        figures.learning_curves(history, config.train.metric),
        "<h2>Groups of users</h2>",
        _groups(first),
    ]
    gated = {k: g for k, g in first["groups"].items() if "gate" in g}
    if gated:
        parts += [
            "<h2>Modality weights per group</h2>",
            '<p class="note">Mean gate weight over a user\'s history, 95 % bootstrap interval over users; the dotted '
            "line is equal use.</p>",
            figures.gate_by_group(gated, _names(first)),
            "<h2>Modality weights over time</h2>",
            '<p class="note">The same over the first and the second half of each user\'s history.</p>',
            figures.gate_by_group(first["gate_in_time"], _names(first)),
            "<h2>Modality weights over training</h2>",
            figures.gate_over_epochs(history, _names(first)),
        ]
    for layer, final in first["experts"].items():
        parts += [f"<h2>Experts of {html.escape(layer)}</h2>", figures.expert_health(history, layer, final)]
    if "recovery" in first:
        parts += ["<h2>Planted preferences</h2>", _recovery(first["recovery"])]
    parts += ["<h2>Config</h2>", f"<pre>{html.escape(to_json(config))}</pre>"]
    body = "\n".join(parts)
    style = STYLE + relevant_page.STYLE
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{style}</style>{body}</html>"


def _data(config: RunConfig) -> Prepared | None:
    """Return the run's data set, None where it is no longer there."""
    try:
        return Prepared.open(config.data.root)
    except DataError:
        return None


def _names(first: dict[str, Any]) -> list[str]:
    count = len(next(g["gate"] for g in first["groups"].values() if "gate" in g))
    names = list(first["modalities"])
    return names if len(names) == count else [f"texts {k + 1}" for k in range(count)]


def _metrics(results: list[dict[str, Any]]) -> str:
    summary = summarise(results)
    rows = []
    for name in (n for n in SHOWN if n in summary):
        spread = f"{summary[name]['mean']:.4f}"
        if len(results) > 1:
            spread += f" ± {summary[name]['sd']:.4f}"
        elif name in results[0]["interval"]:
            found = results[0]["interval"][name]
            spread += f" ({found['low']:.4f} to {found['high']:.4f})"
        baseline = results[0]["popularity"].get(name)
        rows.append([name, spread, "" if baseline is None else f"{baseline:.4f}"])
    return table_html(["metric", "this run", "popularity"], rows)


def _groups(first: dict[str, Any]) -> str:
    rows = []
    for name, entry in first["groups"].items():
        cells = [
            f"{entry[m]['mean']:.4f} ({entry[m]['low']:.4f} to {entry[m]['high']:.4f})" for m in ("hit@10", "ndcg@10")
        ]
        halves = entry.get("halves")
        drift = f"{halves['in_time']:.3f} / {halves['every_other']:.3f}" if halves else ""
        rows.append([name, f"{entry['users']:,}", *cells, drift])
    if "cold" in first:
        cold = first["cold"]
        rows.append(["cold items", f"{cold['users']:,}", f"{cold['hit@10']:.4f}", f"{cold['ndcg@10']:.4f}", ""])
    head = ["group", "users", "hit@10", "ndcg@10", "gate distance of halves: in time / every other item"]
    return table_html(head, rows)


def _recovery(found: dict[str, float]) -> str:
    return (
        f"<p>The modality with the highest weight, relative to the average user, is one that the user truly follows "
        f"for <b>{found['found']:.1%}</b> of users; guessing would give {found['chance']:.1%}. Correlation of weights "
        f"with the truth: {found['correlation']:.3f}.</p>"
    )
