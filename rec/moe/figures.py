"""How experts' shares are drawn, and what their layers are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rec.sections import Heatmap

STACKED = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)(?=\.|$)")
"""What stacks of layers are called in the names of modules, and the place in it."""


def layer_labels(names: Iterable[str]) -> dict[str, str]:
    """Return what people read for the names of mixture layers: "layer 0" of a stack, where that says which it is.

    "model.layers.0.mlp.mixture" is "layer 0"; of two mixtures in one layer, and outside of a stack, names stay.
    """
    found = {name: STACKED.findall(name) for name in names}
    label = {name: f"layer {places[0]}" if len(places) == 1 else name for name, places in found.items()}
    count = Counter(label.values())
    return {name: told if count[told] == 1 else name for name, told in label.items()}


def share_map(
    title: str,
    groups: Mapping[str, Sequence[float]],
    names: Sequence[str] = (),
    caption: str = "",
    group_axis: str = "group of examples",
) -> Heatmap:
    """Return the mean share of each expert per group of examples; experts without names are told by number."""
    count = len(next(iter(groups.values())))
    return Heatmap(
        title=title,
        caption=caption,
        matrix=list(reversed(list(groups.values()))),
        x_names=list(names) or [str(index) for index in range(count)],
        y_names=list(reversed(list(groups))),
        x_axis="expert",
        y_axis=group_axis,
        meaning="mean share",
        low=0.0,
        wide=True,
    )


def cosine_map(title: str, matrix: Sequence[Sequence[float]], caption: str = "") -> Heatmap:
    """Return the cosine of every two experts of a layer, told by number."""
    names = [str(index) for index in range(len(matrix))]
    return Heatmap(
        title=title,
        caption=caption,
        matrix=matrix,
        x_names=names,
        y_names=names,
        x_axis="expert",
        y_axis="expert",
        meaning="cosine",
        low=-1.0,
        high=1.0,
    )
