"""The rating task's part of a report: what is predicted where which rating was given."""

from __future__ import annotations

import numpy as np

from rec.evaluation.records import column
from rec.evaluation.task import Measured
from rec.sections import Lines, LineSeries, Section, Table, Text, number

LEVELS = 10


def sections(measured: Measured) -> list[Section]:
    """Return the part; none where there is no example."""
    if not len(measured.records):
        return []
    given_B, predicted_B = (column(measured.records, name) for name in ("rating", "predicted"))
    level, place_B = np.unique(given_B, return_inverse=True)
    if len(level) > LEVELS:
        edges = np.quantile(given_B, np.linspace(0, 1, LEVELS + 1)[1:-1])
        place_B = np.digitize(given_B, edges)
    kept = np.unique(place_B)
    inside = [place_B == place for place in kept]
    x = [float(given_B[i].mean()) for i in inside]
    middle, low, high = ([float(np.quantile(predicted_B[i], q)) for i in inside] for q in (0.5, 0.1, 0.9))
    rows = [
        [
            number(x[k], 2),
            f"{int(i.sum()):,}",
            number(float(predicted_B[i].mean()), 2),
            number(low[k], 2),
            number(high[k], 2),
        ]
        for k, i in enumerate(inside)
    ]
    note = "A model that only knew the mean would predict the same whatever was given: a flat line."
    series = [
        LineSeries(name="median, 10 % to 90 %", x=x, y=middle, low=low, high=high),
        LineSeries(name="as given", x=x, y=x, style="dashed", muted=True),
    ]
    figure = Lines(title="predicted by given", series=series, x_axis="rating given", y_axis="rating predicted")
    table = Table(head=["rating given", "examples", "mean predicted", "10 %", "90 %"], rows=rows)
    return [Section(title="Predicted ratings", parts=[Text(text=note, tone="note"), figure, table])]
