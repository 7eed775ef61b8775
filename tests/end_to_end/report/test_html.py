"""The page and its figures: every kind of part, escaped, without outside parts, the same bytes each time."""

import base64
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.report.drawing import COLOURS, draw, limits
from rec.report.html import page
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
    Part,
    Picture,
    Section,
    Shelf,
    Table,
    Text,
)
from tests.support import pages

pytestmark = pytest.mark.slow

HOSTILE = '<script>alert(1)</script>"\'&{{ 7*7 }}$\\frac{$_x\x00 style="fill: #2563eb"'
NONE = [None, float("nan")]


class Tags(HTMLParser):
    """All tags with their attributes, and what is open at the end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def labels(drawn: str) -> list[str]:
    """Return the texts of a figure."""
    return [
        "".join(node.itertext())
        for node in ET.fromstring(drawn).iter()
        if node.tag.endswith("}text") or node.tag == "text"
    ]


def bars_of(drawn: str, colour: str) -> list[tuple[float, float]]:
    """Return width and height of each bar of a colour, in points; the legend's patch comes last."""
    found = []
    for d, style in re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', drawn):
        if f"fill: var(--s{COLOURS.index(colour)}" in style and "z" in d:
            point = np.array(re.findall(r"-?\d+\.?\d*", d), dtype=float).reshape(-1, 2)
            found.append(tuple(np.ptp(point, axis=0)))
    return found


def line(values: Any, name: str = "a", **rest: Any) -> Lines:
    series = LineSeries(name=name, x=np.arange(1, len(values) + 1), y=values)
    return Lines(title="t", series=[series], x_axis="epoch", y_axis="share", **rest)


@pytest.fixture(scope="module")
def full_page() -> str:
    return page("Title", "Lead", pages.full(), facts=[("Data", "x")], notices=["Generated."], command="rec train")


def test_the_page_has_every_part_and_nothing_from_outside(full_page: str) -> None:
    text, tags = full_page, Tags(full_page)
    names = [tag for tag, _ in tags.found]
    assert names.count("svg") == 18, "17, and the wide one again for narrow screens"
    assert {"table", "details", "nav", "figcaption", "pre", "dl", "img"} <= set(names)
    assert not {"script", "link", "iframe", "object"} & set(names)
    for tag, attributes in tags.found:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), (tag, attributes)
    assert not re.findall(r"url\((?!#)|@import", text)
    assert "nan" not in re.findall(r"[a-z]+", " ".join(tags.words).lower())


def test_ids_of_sections_are_the_targets_of_the_contents(full_page: str) -> None:
    tags = Tags(full_page)
    ids = [a["id"] for tag, a in tags.found if tag == "section"]
    assert [a["href"] for tag, a in tags.found if tag == "a"] == [f"#{i}" for i in ids]
    assert len(set(ids)) == len(ids) == 9
    assert "<nav" not in page("t", "", pages.full()[:5]), "few sections need no contents"


def test_the_same_sections_give_the_same_bytes_in_another_process(full_page: str) -> None:
    code = (
        "import sys; from tests.support.pages import full; from rec.report.html import page;"
        "text = page('Title', 'Lead', full(), facts=[('Data', 'x')], notices=['Generated.'], command='rec train');"
        "sys.stdout.buffer.write(text.encode())"
    )
    root = Path(__file__).resolve().parents[3]
    again = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)
    assert again.stdout.decode() == full_page


def test_hostile_words_stay_words() -> None:
    parts: list[Part] = [
        Text(text=HOSTILE, tone="note"),
        Table(head=[HOSTILE, "b"], rows=[[HOSTILE, HOSTILE]], caption=HOSTILE),
        Bars(
            title=HOSTILE,
            caption=HOSTILE,
            groups=[HOSTILE],
            series=[BarSeries(name=HOSTILE, values=[1]), BarSeries(name="_b", values=[2])],
            axis=HOSTILE,
            group_axis=HOSTILE,
        ),
        line([1, 2], HOSTILE, marks=[Mark(x=1, y=1, name=HOSTILE)], events=[Event(x=1, name=HOSTILE)]),
        Heatmap(
            title=HOSTILE,
            matrix=[[1]],
            x_names=[HOSTILE],
            y_names=[HOSTILE],
            x_axis=HOSTILE,
            y_axis="",
            meaning=HOSTILE,
        ),
        Gallery(
            shelves=[Shelf(lead=HOSTILE, detail=HOSTILE, cards=[Card(caption=[HOSTILE], marked=True)])], mark=HOSTILE
        ),
        Picture(title=HOSTILE, caption=HOSTILE, content=b'<svg onload="alert(1)"/>'),
        Code(text=HOSTILE),
    ]
    text = page(
        HOSTILE,
        HOSTILE,
        [Section(title=HOSTILE, parts=parts, folded=folded) for folded in (False, True)] * 3,
        facts=[(HOSTILE, HOSTILE)],
        notices=[HOSTILE],
        command=HOSTILE,
    )
    tags = Tags(text)
    assert "script" not in [tag for tag, _ in tags.found]
    assert not any(name.startswith("on") for _, attributes in tags.found for name in attributes)
    assert "{{ 7*7 }}" in text
    assert '"fill: #2563eb"' in "".join(tags.words), "a colour in words is not themed"


def test_bars_are_as_long_as_their_values() -> None:
    values = [1.0, 3.0, None, 2.0]
    for horizontal in (False, True):
        series = [BarSeries(name="a", values=values), BarSeries(name="b", values=[1, 1, 1, 1])]
        part = Bars(title="t", groups=list("wxyz"), series=series, axis="items", horizontal=horizontal)
        drawn = draw(part, wide=False)
        long = [size[0 if horizontal else 1] for size in bars_of(drawn, COLOURS[0])]
        np.testing.assert_allclose(np.array(long[:-1]) / long[0], [1, 3, 0, 2], rtol=1e-3)
        assert "-" in labels(drawn), "the gap is told"


def test_stacked_bars_add_up() -> None:
    series = [BarSeries(name="a", values=[0.2, 0.5]), BarSeries(name="b", values=[0.8, 0.5])]
    drawn = draw(Bars(title="t", groups=["x", "y"], series=series, axis="share", horizontal=True, stacked=True), True)
    first, second = bars_of(drawn, COLOURS[0]), bars_of(drawn, COLOURS[1])
    assert first[0][0] + second[0][0] == pytest.approx(first[1][0] + second[1][0], rel=1e-4)
    assert first[0][0] / first[1][0] == pytest.approx(0.4, rel=1e-3)


def test_a_gap_interrupts_a_line() -> None:
    drawn = draw(line([1, 2, *NONE, 3, 4]), wide=False)
    curves = re.findall(r'<path d="([^"]*)"[^>]*fill: none; stroke: var\(--s0', drawn)
    assert [curve.count("M") for curve in curves] == [2]
    assert drawn.count("<use ") - draw(line([1, 2, 4, 4, 3, 4]), wide=False).count("<use ") == -2, "no dots either"
    assert "nan" not in drawn.lower()


def test_points_are_not_joined_and_rates_are_written_out() -> None:
    series = LineSeries(name="", x=[1e-4, 1e-2, 1e-3], y=[0.1, 0.2, 0.3], style="points")
    drawn = draw(Lines(title="t", series=[series], x_axis="rate", y_axis="ndcg", x_log=True), wide=False)
    assert not re.findall(r"fill: none; stroke: var\(--s0", drawn)
    assert len(re.findall(r"<use [^>]*--s0", drawn)) == 3
    assert {"0.0001", "0.001", "0.01"} <= set(labels(drawn))
    assert not any("$" in label for label in labels(drawn))


def test_epochs_are_marked_by_whole_numbers() -> None:
    found = [label for label in labels(draw(line([3.0, 2.0, 5.0]), wide=True)) if re.fullmatch(r"[\d.]+", label)]
    assert {"1", "2", "3"} <= set(found)
    assert not {"1.5", "2.5"} & set(found)


@pytest.mark.parametrize(
    ("values", "low", "high", "expected"),
    [
        ([0.1662, 0.1672], None, None, (0.0, 0.19228)),
        ([0.2, 0.99], None, None, (0.0, 1.02)),
        ([0.0, 0.0], None, None, (0.0, 1.0)),
        ([7.00, 7.01], None, None, (7.005 - 0.55 * 0.701, 7.005 + 0.55 * 0.701)),
        ([2.0, 4.0], None, None, (1.9, 4.1)),
        ([0.5], -1.0, 2.0, (-1.0, 2.0)),
        ([], None, None, (0.0, 1.02)),
    ],
)
def test_an_axis_does_not_exaggerate(
    values: list[float], low: float, high: float, expected: tuple[float, float]
) -> None:
    assert limits(np.array(values, dtype=float), low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "part",
    [
        Bars(title="t", groups=[], series=[], axis=""),
        Bars(title="t", groups=["a"], series=[], axis=""),
        Bars(title="t", groups=["a"], series=[BarSeries(name="s", values=[None])], axis=""),
        line([]),
        line(NONE),
        Lines(title="t", series=[], x_axis="", y_axis=""),
        Heatmap(title="t", matrix=[], x_names=[], y_names=[], x_axis="", y_axis="", meaning=""),
        Heatmap(title="t", matrix=[NONE], x_names=["a", "b"], y_names=["a"], x_axis="", y_axis="", meaning=""),
    ],
)
def test_a_figure_without_values_is_a_sentence(part: Part) -> None:
    text = page("t", "", [Section(title="s", parts=[part])])
    assert "There are no values to draw." in text
    assert "<svg" not in text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    "part",
    [
        line([0.5]),
        line([0.0, 0.0]),
        line([1, None, 2, None, 3], reference=2.0, reference_name="even"),
        line([-1e9, 1e9]),
        Lines(
            title="40 curves",
            series=[LineSeries(name=f"trial {i} " * 5, x=[1, 2], y=[i, i]) for i in range(40)],
            x_axis="epoch",
            y_axis="loss",
            events=[Event(x=i, name=f"phase {i}") for i in range(5)],
        ),
        Lines(
            title="points",
            series=[LineSeries(name="", x=[1e-5, 1e-3], y=[0.1, 0.2], style="points", muted=True)],
            x_axis="rate",
            y_axis="ndcg",
            x_log=True,
        ),
        Lines(
            title="names",
            series=[LineSeries(name="", x=[0, 1, 1], y=[1, 2, 3], style="points")],
            x_axis="gate",
            y_axis="ndcg",
            x_names=["mean", "item"],
        ),
        Lines(
            title="band",
            series=[LineSeries(name="mean", x=[1, 2, 3], y=[1, 2, 3], low=[0, None, 2], high=[2, None, 4])],
            x_axis="epoch",
            y_axis="loss",
        ),
        Bars(
            title="negative",
            groups=["天空之城", "b" * 200],
            series=[BarSeries(name="s", values=[-1, 2], low=[-2, 1], high=[0, 3])],
            axis="a" * 200,
        ),
        Bars(title="zeros", groups=["a"], series=[BarSeries(name="s", values=[0.0])], axis="items", reference=0.0),
        Bars(
            title="many",
            groups=[f"group {i}" for i in range(60)],
            series=[BarSeries(name=str(k), values=np.ones(60)) for k in range(12)],
            axis="items",
            horizontal=True,
        ),
        Heatmap(
            title="large",
            matrix=np.random.default_rng(0).random((64, 200)),
            x_names=[str(i + 1) for i in range(200)],
            y_names=[str(i) for i in range(64)],
            x_axis="epoch",
            y_axis="expert",
            meaning="share",
        ),
        Heatmap(
            title="one", matrix=[[0.5, None]], x_names=["a", "b"], y_names=["c"], x_axis="", y_axis="", meaning="m"
        ),
    ],
    ids=lambda part: part.title if hasattr(part, "title") else str(part),
)
def test_unusual_figures_are_drawn(part: Any, wide: bool) -> None:
    drawn = draw(part, wide)
    ET.fromstring(drawn)
    assert "nan" not in " ".join(labels(drawn)).lower()
    assert len(drawn) < 400_000
    assert drawn == draw(part, wide)


def test_muted_curves_take_no_colour_and_named_ones_are_in_the_legend() -> None:
    grey = [LineSeries(name="", x=[1, 2], y=[k, k], muted=True) for k in range(12)]
    best = LineSeries(name="the best", x=[1, 2], y=[20, 20])
    drawn = draw(Lines(title="t", series=[*grey, best], x_axis="epoch", y_axis="loss"), wide=True)
    assert "the best" in labels(drawn)
    assert re.findall(r"fill: none; stroke: var\(--s0", drawn), "the first colour, whatever stands before"
    assert "stroke-dasharray" not in "".join(re.findall(r"[^<]*--s0[^<]*", drawn))


def test_a_mark_is_explained_beside_a_single_curve() -> None:
    best = Mark(x=2, y=0.3, name="best 0.3000")
    assert "best 0.3000" in labels(draw(line([0.1, 0.3, 0.2], marks=[best]), wide=False))
    unnamed = draw(line([0.1, 0.3], marks=[Mark(x=2, y=0.3, name="")]), wide=False)
    assert unnamed.count("<use ") == draw(line([0.1, 0.3]), wide=False).count("<use ") + 1
    assert "" not in labels(unnamed)


def test_numbers_below_a_narrow_axis_do_not_overlap() -> None:
    values = [-0.0075, 0.0093, 0.0031, 0.0066]
    series = LineSeries(name="", x=values, y=[1, 2, 3, 4], style="points")
    drawn = draw(Lines(title="t", series=[series], x_axis="entropy_weight", y_axis="ndcg"), wide=False)
    ticks = [label for label in labels(drawn) if re.fullmatch(r"[-\u2212]?0\.\d+", label)]
    assert 2 <= len(ticks) <= 6
    assert len(set(ticks)) == len(ticks)


def test_names_of_rows_keep_their_counts() -> None:
    names = ["low blood pressure (23)", "high cholesterol (10)"]
    part = Heatmap(
        title="t", matrix=[[1, 2], [3, 4]], x_names=["a", "b"], y_names=names, x_axis="", y_axis="", meaning="m"
    )
    assert set(names) <= set(labels(draw(part, wide=True)))


def test_the_legend_and_names_that_begin_with_an_underscore() -> None:
    found = labels(draw(pages.gate_over_epochs(pages.history(), ["_id", *pages.MODALITIES[1:]]), wide=True))
    assert {"\u200b_id", *pages.MODALITIES[1:], "equal use"} <= set(found)


def test_heatmap_names_are_whole_and_thinned() -> None:
    entries = pages.history(epochs=100)
    final = {"groups": {"all": [0.25] * 4}, "similarity": np.eye(4)}
    load = pages.expert_health(entries, pages.LAYER, final)[0]
    found = labels(draw(load, wide=False))
    assert [label for label in found if label in map(str, range(5, 101))] == [str(n) for n in range(10, 101, 10)]
    assert [found.count(str(k)) for k in range(4)] == [1, 1, 1, 1]


def test_pictures_and_marks_of_a_gallery() -> None:
    tags = Tags(page("t", "", [Section(title="s", parts=[pages.shelves()])]))
    images = [a["src"] or "" for tag, a in tags.found if tag == "img"]
    assert len(images) == 16
    assert base64.b64decode(images[0].removeprefix("data:image/jpeg;base64,")).startswith(b"\xff\xd8")
    assert sum(a.get("class") == "marked" for tag, a in tags.found if tag == "li") == 4
    assert tags.words.count("✓ relevant") == 4
    assert tags.words.count("no picture") == 2
    words = Gallery(shelves=[Shelf(lead="u", cards=[Card(caption=["a"], picture=b"GIF"), Card(caption=["b"])])])
    assert "no picture" in page("t", "", [Section(title="s", parts=[words])])


def test_columns_without_content_are_left_out_and_numbers_stand_to_the_right() -> None:
    table = Table(head=["name", "0.5?", "n", "empty"], rows=[["1", "x", "-", ""], ["2", "y", "3", " "]])
    tags = Tags(page("t", "", [Section(title="s", parts=[table])]))
    assert "empty" not in tags.words
    cells = [(tag, a.get("class")) for tag, a in tags.found if tag == "td"]
    assert cells == [("td", None), ("td", "right")] * 2


def test_a_lone_figure_is_wide_and_figures_in_a_row_stand_side_by_side() -> None:
    one = [
        a.get("class")
        for tag, a in Tags(page("t", "", [Section(title="s", parts=[line([1])])])).found
        if tag == "figure"
    ]
    parts = [line([1]), line([2]), Text(text="between"), line([3])]
    many = [
        a.get("class") for tag, a in Tags(page("t", "", [Section(title="s", parts=parts)])).found if tag == "figure"
    ]
    assert one == ["wide"]
    assert many == [None, None, "wide"]


@pytest.fixture
def browser() -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.mark.slow
def test_no_width_makes_the_page_scroll_sideways(browser: Any, tmp_path: Path) -> None:
    long = [Section(title="w" * 200, parts=[Text(text="w" * 300), Code(text="w" * 300)])]
    (tmp_path / "page.html").write_text(page("t" * 200, "l" * 300, pages.full() + long, facts=[("f" * 90, "v" * 90)]))
    browser.get(f"file://{tmp_path}/page.html")
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    for width in (320, 400, 1200):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        inside, room = browser.execute_script(
            "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
        )
        assert inside <= room, f"{inside} pixels in {room} at a width of {width}"
    style = "getComputedStyle(document.querySelector('{}')).{}"
    colour = f"return {style.format('body', 'backgroundColor')} + {style.format('svg text', 'fill')}"
    schemes = set()
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        schemes.add(browser.execute_script(colour))
    assert schemes == {"rgb(255, 255, 255)rgb(31, 41, 51)", "rgb(18, 24, 31)rgb(229, 233, 238)"}
    assert not browser.get_log("browser")
