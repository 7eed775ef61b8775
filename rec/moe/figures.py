"""How experts' shares are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rec.sections import Heatmap


def share_map(
    title: str, groups: Mapping[str, Sequence[float]], names: Sequence[str] = (), caption: str = ""
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
        y_axis="group of examples",
        meaning="mean share",
        low=0.0,
        wide=True,
    )
