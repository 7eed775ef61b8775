"""What a report tells of systems whose answers rest on modalities and experts: ablations and reliance, by group.

Columns of records: `without/NAME` a metric where a modality is missing for all, `spoiled/NAME` the same with spoiled
inputs, `overlap/NAME` the share of the best items that stays, `reliance/NAME` how far scores move or how much a
modality counts, `expert share` (B, E) the share of each expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rec.evaluation.bootstrap import paired
from rec.evaluation.records import column
from rec.evaluation.task import Measured
from rec.sections import Bars, BarSeries, Section, Table, Text, interval, number
from rec.seeds import generator


def ablations(measured: Measured, metric: str, kind: str) -> dict[str, Any]:
    """Return per column `KIND/NAME` the metric there, and what is lost beside the whole model, with its interval."""
    records, value = measured.records, measured.values[metric]
    there, rng = ~np.isnan(value), generator(measured.seed, "bootstrap", kind)
    found: dict[str, Any] = {}
    for key in (name for name in records.column_names if name.startswith(f"{kind}/")):
        name, other = key.removeprefix(f"{kind}/"), column(records, key)
        entry: dict[str, Any] = {metric: None, "loss": dict.fromkeys(("mean", "low", "high"))}
        if there.any():
            entry[metric] = float(other[there].mean())
            entry["loss"] = paired(value[there], other[there], measured.config.bootstrap, rng).difference.plain()
        if f"overlap/{name}" in records.column_names:
            entry["kept"] = float(column(records, f"overlap/{name}").mean())
        found[name] = entry
    return found


def ablation_section(title: str, note: str, metric: str, found: Mapping[str, Any]) -> list[Section]:
    """Return the table of ablations; nothing where there are none."""
    if not found:
        return []
    kept = any("kept" in entry for entry in found.values())
    rows = [
        [
            name,
            number(entry[metric]),
            interval(**entry["loss"]),
            *([f"{entry['kept']:.0%}" if "kept" in entry else "-"] if kept else []),
        ]
        for name, entry in found.items()
    ]
    head = ["", metric, "loss (95 % interval)", *(["best items that stay"] if kept else [])]
    return [Section(title=title, parts=[Text(text=note, tone="note"), Table(head=head, rows=rows)])]


def by_group(measured: Measured) -> dict[str, Any]:
    """Return, per group of examples, the mean reliance on each modality and the mean share of each expert."""
    records = measured.records
    reliances = [name for name in records.column_names if name.startswith("reliance/")]
    found: dict[str, Any] = {}
    for label, inside in measured.groups.each():
        entry: dict[str, Any] = {"examples": int(inside.sum())}
        entry["reliance"] = {n.removeprefix("reliance/"): float(column(records, n)[inside].mean()) for n in reliances}
        if "expert share" in records.column_names:
            entry["expert share"] = column(records, "expert share")[inside].mean(0).tolist()
        found[label] = entry
    return found


def reliance_sections(
    measured: Measured, shares: str, reliance: str = "share in the items to be found"
) -> list[Section]:
    """Return bars of reliance on each modality, and of each expert's share, per group; `shares` says of what."""
    groups = by_group(measured)
    if not groups or not next(iter(groups.values()))["reliance"]:
        return []
    labels = [f"{name} ({entry['examples']:,})" for name, entry in groups.items()]
    names = list(next(iter(groups.values()))["reliance"])
    parts: list[Any] = [
        Bars(
            title=f"reliance on each modality: {reliance}",
            groups=labels,
            series=[BarSeries(name=n, values=[g["reliance"][n] for g in groups.values()]) for n in names],
            axis=reliance,
            horizontal=True,
        )
    ]
    gated = [entry["expert share"] for entry in groups.values() if "expert share" in entry]
    if gated:
        share_GE = np.array(gated)
        series = [BarSeries(name=f"expert {e}", values=share_GE[:, e]) for e in range(share_GE.shape[1])]
        bars = Bars(title=shares, groups=labels, series=series, axis="share", horizontal=True, stacked=True)
        parts.append(bars)
    return [Section(title="What groups rely on, and which experts serve them", parts=parts)]
