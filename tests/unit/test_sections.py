"""Sections as data: what they hold, what they refuse, and their way through JSON."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from rec.errors import DataError
from rec.sections import (
    Bars,
    BarSeries,
    Card,
    Code,
    Event,
    Gallery,
    Heatmap,
    Lines,
    LineSeries,
    Mark,
    Picture,
    Section,
    Shelf,
    Table,
    Text,
    floats,
    from_plain,
    interval,
    number,
    to_plain,
)
from tests.support.pages import full

NAN = float("nan")


def one_of_each() -> Section:
    bars = [BarSeries(name="a", values=[1.0, None], low=[0.5, NAN], high=[2.0, None], muted=True)]
    line = LineSeries(
        name="a", x=[1, 2], y=np.array([0.5, np.nan]), low=[0, 0], high=[1, 1], style="dashed", muted=True
    )
    return Section(
        title="Everything",
        folded=True,
        parts=[
            Text(text="<b>", tone="warning"),
            Table(head=["a", "b"], rows=[["1", "2"]], caption="c"),
            Bars(title="b", groups=["x", "y"], series=bars, axis="s", reference=0.5, reference_name="r", wide=True),
            Lines(
                title="l",
                series=[line],
                x_axis="epoch",
                y_axis="share",
                marks=[Mark(x=1, y=NAN, name="best")],
                events=[Event(x=2, name="switch")],
            ),
            Heatmap(
                title="h",
                matrix=np.array([[1, np.inf]]),
                x_names=["1", "2"],
                y_names=["0"],
                x_axis="epoch",
                y_axis="expert",
                meaning="share",
            ),
            Gallery(
                shelves=[Shelf(lead="u", cards=[Card(caption=["t"], picture=bytes(range(256)), marked=True)])],
                mark="ok",
            ),
            Picture(title="p", content=b"<svg/>"),
            Code(text="a = 1\n"),
        ],
    )


@pytest.mark.parametrize("sections", [[one_of_each()], full(), []])
def test_sections_come_back_from_json(sections: list[Section]) -> None:
    text = json.dumps(to_plain(sections), allow_nan=False)
    assert from_plain(json.loads(text)) == tuple(sections)


def test_values_at_their_default_are_not_written() -> None:
    assert to_plain([Section(title="a", parts=[Text(text="b")])]) == [
        {"kind": "Section", "title": "a", "parts": [{"kind": "Text", "text": "b"}]}
    ]


def test_what_is_not_finite_becomes_a_gap() -> None:
    series = BarSeries(name="a", values=np.array([1.5, np.nan, np.inf], dtype=np.float32))
    assert series.values == (1.5, None, None)
    np.testing.assert_array_equal(floats(series.values), [1.5, np.nan, np.nan])


@pytest.mark.parametrize(
    ("found", "expected"),
    [(0.12345, "0.1235"), (-0.00001, "0.0000"), (12345.6, "12,345.6000"), (NAN, "-"), (None, "-"), (-np.inf, "-")],
)
def test_number(found: float | None, expected: str) -> None:
    assert number(found) == expected


def test_interval() -> None:
    assert interval(0.5, 0.25, 0.75, digits=2) == "0.50 (0.25 to 0.75)"
    assert interval(0.5, None, NAN, digits=2) == "0.50"
    assert interval(NAN, 0.1, 0.2) == "-"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Table(head=["a", "b"], rows=[["1", "2"], ["1"]]), "row 1 has 1 cells, expected 2"),
        (lambda: Table(head=["a"], rows=[[1.0]]), "found the cell 1.0, expected text"),  # type: ignore[list-item]
        (
            lambda: Bars(title="t", groups=["x"], series=[BarSeries(name="s", values=[1, 2])], axis="a"),
            "2 values in 's', expected one for each of 1 groups",
        ),
        (lambda: BarSeries(name="s", values=[1], low=[0]), "one end of the interval is missing"),
        (lambda: BarSeries(name="s", values=[1], low=[0], high=[1, 2]), "high 2, expected 1 values"),
        (
            lambda: Bars(
                title="t",
                groups=["x"],
                series=[BarSeries(name="s", values=[1], low=[0], high=[2])],
                axis="a",
                stacked=True,
            ),
            "stacked bars cannot show",
        ),
        (lambda: LineSeries(name="s", x=[1, 2], y=[1]), "1 values of y, expected 2"),
        (lambda: LineSeries(name="s", x=[1], y=[1], style="wavy"), "found 'wavy', expected one of"),  # type: ignore[arg-type]
        (
            lambda: Lines(title="t", series=[LineSeries(name="s", x=[0], y=[1])], x_axis="", y_axis="", x_log=True),
            "x is not above 0",
        ),
        (
            lambda: Heatmap(
                title="t", matrix=[[1, 2], [1]], x_names=["a"], y_names=["b"], x_axis="", y_axis="", meaning=""
            ),
            "expected 1 rows of 1",
        ),
        (lambda: Section(title="t", parts=["text"]), "found a part of str"),  # type: ignore[list-item]
        (lambda: Text(text="a", tone="loud"), "found 'loud'"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_refused(build: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build()


@pytest.mark.parametrize(
    "plain",
    [
        {"kind": "Section"},
        "text",
        [{"kind": "Text", "text": "a"}],
        [{"kind": "os.system", "text": "a"}],
        [{"kind": "Section", "title": "a", "parts": [{"kind": "Text", "words": "a"}]}],
        [
            {
                "kind": "Section",
                "title": "a",
                "parts": [{"kind": "Picture", "title": "", "content": {"kind": "bytes", "base64": "%"}}],
            }
        ],
        [{"kind": "Section", "title": "a", "parts": 3}],
        [{"title": "a"}],
        [{"kind": ["Section"], "title": "a"}],
    ],
)
def test_other_json_is_refused(plain: Any) -> None:
    with pytest.raises(DataError, match="sections"):
        from_plain(plain)


def test_importing_sections_is_light() -> None:
    code = "import rec.sections, sys; assert not {'torch', 'matplotlib', 'jinja2', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
