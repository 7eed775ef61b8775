"""Expert health of a trained run: who is routed where, and how alike experts are.

Letters: N rows, B examples of a batch, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.evaluation.history import EPOCHS, epochs
from rec.evaluation.records import Records, column
from rec.evaluation.task import Groups
from rec.moe.figures import cosine_map, layer_labels, share_map
from rec.moe.health import similarity
from rec.moe.layer import Mixed, MixtureOfExperts, layers_of
from rec.sections import Event, Heatmap, Lines, LineSeries, Section, Text

NOTE = (
    "A mixture layer holds several small networks, the experts; its router sends each row to one or a few of them. "
    "Load is an expert's share of all assignments. Entropy of use is 1 where all experts are used evenly and 0 where "
    "one does everything; entropy of decisions is 1 where the router is undecided and 0 where it is sure. Dropped is "
    "the share of assignments for which an expert had no room, never used the share of experts that no row came to."
)
ALIKE = "Cosine between their weights: 1 the same, 0 nothing in common."
COLUMN = "routed/"
"""Start of the names of records' columns with each example's mean share of every expert of a layer."""


class Routed:
    """Notes each example's mean share of every expert while batches pass through a model."""

    def __init__(self, module: nn.Module) -> None:
        self.batch: Batch | None = None
        self.shares: dict[str, Tensor] = {}
        for name, layer in layers_of(module):
            if not layer.replicated:
                layer.register_forward_hook(lambda layer, _, mixed, name=name: self._note(name, layer, mixed))

    def watch(self, batch: Batch | None) -> None:
        """Note what this batch's passes do, None: nothing."""
        self.batch, self.shares = batch, {}

    def columns(self) -> dict[str, Tensor]:
        """Return what was noted of the batch, as columns of its records."""
        return {f"{COLUMN}{name}": share_BE for name, share_BE in self.shares.items()}

    def _note(self, name: str, layer: MixtureOfExperts, mixed: Mixed) -> None:
        if self.batch is None:
            return
        share_NE, examples = mixed.routing.dense().double(), len(self.batch)
        owner_N = self.batch.owners() if layer.owner_N is None else layer.owner_N
        if owner_N is None:
            owner_N = torch.arange(examples)
        if len(owner_N) != len(share_NE):
            return  # rows that belong to no one example
        owner_N = owner_N.to(share_NE.device)
        total_BE = share_NE.new_zeros(examples, share_NE.shape[1]).index_add_(0, owner_N, share_NE)
        count_B = torch.bincount(owner_N, minlength=examples).clamp(min=1)
        self.shares[name] = total_BE / count_B[:, None]


def numbers(module: nn.Module, records: Records, groups: Groups) -> dict[str, Any]:
    """Return per layer the mean share of each expert per group of examples, and the cosine between experts."""
    found: dict[str, Any] = {}
    for name, layer in layers_of(module):
        entry: dict[str, Any] = {"groups": {}}
        weights = [p.detach() for p in layer.experts.parameters() if p.shape[:1] == (layer.num_experts,)]
        if weights:
            entry["similarity"] = similarity(torch.cat([weight.flatten(1) for weight in weights], 1)).tolist()
        if f"{COLUMN}{name}" in records.column_names:
            share_BE = column(records, f"{COLUMN}{name}")
            entry["groups"] = {label: share_BE[inside].mean(0).tolist() for label, inside in groups.each()}
            entry["groups"] = entry["groups"] or {"all": share_BE.mean(0).tolist()}
        found[name] = entry
    return found


def sections(experts: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return a section per layer: load and health over training, shares per group, and how alike experts are."""
    found: list[Section] = []
    label = layer_labels(experts)
    for layer, final in experts.items():
        # A phase that does not pass the layer tells nothing of it.
        told = [
            (epoch, record)
            for epoch, record in zip(epochs(history), history, strict=True)
            if any(record.get(f"moe/{layer}/load", ()))
        ]
        parts: list[Any] = [Text(text=NOTE, tone="note")]
        if told:
            x, evaluations = [epoch for epoch, _ in told], [record for _, record in told]
            parts += [_load(layer, x, evaluations), _health(layer, x, evaluations)]
        if final["groups"]:
            parts.append(share_map("who is sent where: mean share of assignments", final["groups"]))
        if "similarity" in final:
            parts.append(cosine_map("how alike experts are", final["similarity"], ALIKE))
        found.append(Section(title=f"Experts of {label[layer]}", parts=parts, folded=len(found) > 0))
    return found


def _names(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def _load(layer: str, x: Sequence[int], history: Sequence[Mapping[str, Any]]) -> Heatmap:
    load_ET = np.array([record[f"moe/{layer}/load"] for record in history]).T
    return Heatmap(
        title="load over training",
        matrix=load_ET,
        x_names=[str(number) for number in x],
        y_names=_names(len(load_ET)),
        x_axis=EPOCHS,
        y_axis="expert",
        meaning="share of assignments",
        low=0.0,
        high=max(float(load_ET.max()), 2 / len(load_ET)),
    )


def _health(layer: str, x: Sequence[int], history: Sequence[Mapping[str, Any]]) -> Lines:
    """Return the layer's health; what a layer tells beside it is drawn as dashed lines, its switch as an event."""
    experts = len(history[0][f"moe/{layer}/load"])

    def values(key: str) -> list[float]:
        return [record.get(f"moe/{layer}/{key}", float("nan")) for record in history]

    names = (
        ("use_entropy", "entropy of use"),
        ("decision_entropy", "entropy of decisions"),
        ("dropped_share", "dropped"),
    )
    series = [LineSeries(name=label, x=x, y=values(key)) for key, label in names]
    series.append(LineSeries(name="never used", x=x, y=np.array(values("unused")) / experts))
    known = {"load", "largest_share", "unused", *(key for key, _ in names)}
    told = [key.removeprefix(f"moe/{layer}/") for key in history[-1] if key.startswith(f"moe/{layer}/")]
    events = []
    for key in (key for key in told if key not in known):
        if key.endswith("_at"):
            reached = [number for number, value in zip(x, values(key), strict=True) if value >= 0]
            events += [Event(x=int(reached[0]), name=key.removesuffix("_at"))] if reached else []
        else:
            series.append(LineSeries(name=key.replace("_", " "), x=x, y=values(key), style="dashed"))
    return Lines(
        title="health over training",
        series=series,
        x_axis=EPOCHS,
        y_axis="share or entropy",
        events=events,
        low=0.0,
        high=1.0,
    )
