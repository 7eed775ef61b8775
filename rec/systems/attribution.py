"""What a report tells of systems whose answers rest on modalities and experts: ablations and reliance, by group.

Columns of records: `without/NAME` a metric where a modality is missing for all, `spoiled/NAME` the same with spoiled
inputs, `overlap/NAME` the share of the best items that stays, `reliance/NAME` how far scores move or how much a
modality counts, `expert share` (B, E) the share of each expert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rec.evaluation.bootstrap import paired
from rec.evaluation.records import column
from rec.evaluation.task import Measured
from rec.moe.figures import share_map
from rec.sections import Bars, BarSeries, Heatmap, Section, Table, Text, interval, number, sentence
from rec.seeds import generator

RELIANCE = "reliance on each modality"
MOST_BARS = 6
"""Groups up to which bars can be compared."""


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
    measured: Measured,
    shares: str,
    reliance: str = "share in the items to be found",
    experts: Sequence[str] = (),
) -> list[Section]:
    """Return the reliance on each modality, and each expert's share, per group.

    Args:
        measured: The measurement.
        shares: Of what the experts' shares are.
        reliance: What reliance is.
        experts: Names, where they have some.
    """
    groups = by_group(measured)
    if not groups or not next(iter(groups.values()))["reliance"]:
        return []
    labels = [f"{name} ({entry['examples']:,})" for name, entry in groups.items()]
    note = Text(
        text=sentence(f"Reliance on a modality is {reliance}; in brackets, how many examples a group has"), tone="note"
    )
    parts: list[Any] = [note, _reliance(labels, [entry["reliance"] for entry in groups.values()])]
    gated = {
        name: entry["expert share"]
        for name, entry in zip(labels, groups.values(), strict=True)
        if "expert share" in entry
    }
    if gated:
        caption = "Shares add up to less than 1 where the chosen experts' probabilities are taken as they are."
        parts.append(share_map(shares, gated, experts, caption))
    return [Section(title="What groups rely on, and which experts serve them", parts=parts)]


def _reliance(labels: Sequence[str], groups: Sequence[Mapping[str, float]]) -> Bars | Heatmap:
    """Return bars, or a map where there are too many of them to compare."""
    names = list(groups[0])
    if len(labels) <= MOST_BARS:
        series = [BarSeries(name=name, values=[group[name] for group in groups]) for name in names]
        return Bars(title=RELIANCE, groups=labels, series=series, axis="reliance", group_axis="group", wide=True)
    return Heatmap(
        title=RELIANCE,
        matrix=[[group[name] for name in names] for group in reversed(groups)],
        x_names=names,
        y_names=list(reversed(labels)),
        x_axis="modality",
        y_axis="group of examples",
        meaning="reliance",
        low=0.0,
        wide=True,
    )
