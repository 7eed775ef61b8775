"""How a report tells what gates and experts are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rec.moe.figures import cosine_map, layer_labels, share_map
from rec.sections import Heatmap, Section, Table, Text, counted, interval, number, sentence

Numbers = Mapping[str, Any]
DRAWN = 4
"""Layers that are drawn; tables have all."""


def notes(numbers: Numbers) -> list[str]:
    """Return the numbers in words."""
    layers = numbers["layers"].values()
    told = [f"gates: {numbers['why_no_swap']}"] if numbers["why_no_swap"] else []
    if swap := numbers.get("swap"):
        sample = f"{counted(numbers['reviews'], 'review')} of the split"
        told.append(f"a wrong gate on purpose {_cost(swap['wrong']['difference'])}, over {sample}")
        told.append(f"the heaviest gate for all {_cost(swap['heaviest']['difference'])}")
    if layers:
        found, shuffled = (float(np.mean([entry[name] for entry in layers])) for name in ("information", "shuffled"))
        if any(entry["most"] for entry in layers):
            told.append(
                f"a token's cluster tells {number(found)} nats of its expert in the mean over layers, "
                f"{number(shuffled)} where clusters are given to other reviews"
            )
        alike = [between(entry["similarity"]) for entry in layers]
        if known := [value for value in alike if value is not None]:
            mean = number(float(np.mean(known)), 3)
            told.append(f"what two experts of a layer make of the same tokens has a cosine of {mean} in the mean")
        if worse := [expert["difference"]["mean"] for entry in layers for expert in entry["off"]]:
            told.append(
                f"without one expert reviews cost {number(min(worse))} to {number(max(worse))} nats per token more"
            )
    return told


def _cost(difference: Numbers) -> str:
    """Return in words what something costs beside the right gate: 0.02 (0.01 to 0.03) is a cost, with its interval."""
    ends = f"{number(difference['mean'])} nats per token (95 % interval {number(difference['low'])} to "
    ends += f"{number(difference['high'])})"
    if difference["low"] > 0:
        return f"costs {ends}"
    if difference["high"] < 0:
        return f"is better than the right one: {ends}"
    return f"is not clearly different from the right one: {ends}"


def between(similarity: Sequence[Sequence[float]]) -> float | None:
    """Return the mean similarity of two different experts, None where there is one."""
    matrix = np.array(similarity)
    apart = ~np.eye(len(matrix), dtype=bool)
    return float(matrix[apart].mean()) if apart.any() else None


def sections(numbers: Numbers) -> list[Section]:
    """Return the parts of a report; of a model without experts, the one that says so."""
    told = Text(text=sentence("; ".join(notes(numbers))))
    parts: list[Any] = [told]
    if swap := numbers.get("swap"):
        note = (
            "The same held-out reviews are scored with their own gate and with others: negative log likelihood in nats "
            f"per token, {counted(numbers['reviews'], 'review')} of the split, differences with their 95 % interval, "
            "reviews drawn in pairs. Above 0 the right gate is better."
        )
        parts = [Text(text=note, tone="note"), told, *_swapped(swap)]
    found = [Section(title="The right gate and the wrong ones", parts=parts)]
    if layers := numbers["layers"]:
        label = layer_labels(layers)
        found += [_use(layers, label), _differ(numbers, label)]
    return found


def _swapped(swap: Numbers) -> list[Any]:
    heaviest = swap["heaviest"]
    entries = {
        "a wrong gate, in the mean": swap["wrong"],
        f"gate {heaviest['gate']}, the heaviest, for all": heaviest,
        **{f"gate {entry['gate']}, for pairs of others": entry for entry in swap["gates"]},
    }
    rows = [
        [name, f"{entry['reviews']:,}", number(entry["nll"]), number(entry["right"]), _ends(entry["difference"])]
        for name, entry in entries.items()
    ]
    table = Table(head=["gate", "reviews", "nll per token", "with the right gate", "difference"], rows=rows)
    matrix = np.array([[np.nan if value is None else value for value in row] for row in swap["by_cluster"]])
    gates = [str(gate) for gate in range(len(matrix))]
    figure = Heatmap(
        title="what each gate costs pairs of each cluster",
        matrix=matrix[::-1],
        x_names=gates,
        y_names=gates[::-1],
        x_axis="gate that is used",
        y_axis="the pair's own",
        meaning="nats per token above the right gate",
    )
    return [table, figure]


def _ends(difference: Numbers | None) -> str:
    return number(None) if difference is None else interval(**difference)


def _drawn(layers: Numbers) -> list[str]:
    """Return the layers that are drawn, from the first to the last."""
    names = list(layers)
    return [names[place] for place in np.unique(np.linspace(0, len(names) - 1, min(DRAWN, len(names))).astype(int))]


def _use(layers: Numbers, label: Mapping[str, str]) -> Section:
    note = (
        "Share of the slots of tokens, those of prompts and texts, that each expert gets: by the gate of the pair, and "
        "by how much the user wrote. What a token's cluster tells of its expert is their mutual information in nats: "
        "0 where all clusters use experts alike, at most the entropy of clusters; beside it the same with clusters "
        "given to other reviews, which is what chance gives."
    )
    head = ["layer", "what a cluster tells of the expert", "clusters of other reviews", "at most"]
    rows = [
        [label[name], *(number(entry[key]) for key in ("information", "shuffled", "most"))]
        for name, entry in layers.items()
    ]
    figures = []
    for name in _drawn(layers):
        by_cluster = {f"cluster {cluster}": share for cluster, share in layers[name]["clusters"].items()}
        figures.append(share_map(f"{label[name]}: experts by cluster", by_cluster, group_axis="cluster"))
        figures.append(share_map(f"{label[name]}: experts by group of users", layers[name]["groups"]))
    return Section(title="Experts by cluster and group", parts=[Text(text=note, tone="note"),
                                                                Table(head=head, rows=rows), *figures])  # fmt: skip


def _differ(numbers: Numbers, label: Mapping[str, str]) -> Section:
    layers = numbers["layers"]
    note = (
        "Experts of a layer are asked about the same tokens: the cosine between what two of them give, in the mean "
        "over tokens; 1 is the same. Then each is switched off, so that its share goes to the next choices of each "
        f"token: nats per token that {counted(numbers['off_reviews'], 'review')} cost more, with the 95 % interval. An "
        "expert that costs nothing is not needed."
    )
    rows = [
        [f"{label[name]}, expert {one['expert']}", number(entry["share"][one["expert"]], 3), _ends(one["difference"])]
        for name, entry in layers.items()
        for one in entry["off"]
    ]
    figures = [
        cosine_map(f"{label[name]}: how alike what experts give is", layers[name]["similarity"])
        for name in _drawn(layers)
    ]
    head = ["switched off", "share of slots", "nats per token more"]
    tables = [Table(head=head, rows=rows)] if rows else []
    return Section(title="How much experts differ", parts=[Text(text=note, tone="note"), *tables, *figures])
