"""The figures of a report as inline SVG whose colours follow the page's light or dark scheme."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from rec.sections import Bars, Heatmap, Lines, floats

Drawn = Bars | Lines | Heatmap
INK, MUTED, GRID = "#1f2933", "#64748b", "#e2e8f0"
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#0891b2", "#65a30d", "#db2777", "#92400e")
GREY = "#94a3b8"
THEMED = {"ink": INK, "muted": MUTED, "grid": GRID, "grey": GREY} | {f"s{i}": c for i, c in enumerate(COLOURS)}
"""Colours that the page may redefine, by the name of their CSS variable."""
NAMED = {colour: name for name, colour in THEMED.items()}

STYLE: Any = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 8.5,
    "axes.labelpad": 7,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,
    "axes.formatter.useoffset": False,
}
WIDE, NARROW = 8.6, 4.2
"""Widths in inches of a figure across the page, and of one of two side by side."""
STEPS = (1, 2, 2.5, 5, 10)
"""Multiples of a power of ten that marks on an axis may stand apart."""
ENTRY_MARGIN, CHARACTER = 36.0, 4.9
"""Points of width that a legend's entry needs beside its text, and for one character of it."""


def has_values(part: Drawn) -> bool:
    """Return whether there is anything to draw."""
    if isinstance(part, Heatmap):
        return any(value is not None for row in part.matrix for value in row)
    if isinstance(part, Bars):
        return any(value is not None for series in part.series for value in series.values)
    return any(
        x is not None and y is not None for series in part.series for x, y in zip(series.x, series.y, strict=True)
    )


def draw(part: Drawn, wide: bool) -> str:
    """Return a figure as SVG, across the page or as one of two side by side."""
    width = WIDE if wide else NARROW
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has fonts for what matplotlib has not
        figure = Figure(layout="constrained")
        legend: list[tuple[Any, str]] = []
        if isinstance(part, Heatmap):
            height = draw_heatmap(figure, part, width)
        elif isinstance(part, Lines):
            height, legend = draw_lines(figure, part)
        else:
            height, legend = draw_bars(figure, part, width)
        rows = _legend(figure, legend, width)
        figure.set_size_inches(width, height + 0.19 * rows)
        return svg(figure)


def draw_bars(figure: Figure, part: Bars, width: float) -> tuple[float, list[tuple[Any, str]]]:
    """Draw bars and return the height in inches and the legend's entries."""
    axes = figure.subplots()
    place = np.arange(len(part.groups))
    each = 0.8 if part.stacked else 0.8 / max(len(part.series), 1)
    start, legend = np.zeros(len(place)), []
    room = 9.0 if part.horizontal else 60 * width / max(len(place) * len(part.series), 1)
    labelled = not part.stacked and len(place) * len(part.series) <= 32 and room > (8 if part.horizontal else 23)
    for index, series in enumerate(part.series):
        value = floats(series.values)
        colour = GREY if series.muted else COLOURS[index % len(COLOURS)]
        at = place + (0.0 if part.stacked else (index + 0.5) * each - 0.4)
        error = None
        if series.low is not None and series.high is not None:
            error = np.clip([value - floats(series.low), floats(series.high) - value], 0, None)
        if part.horizontal:
            bars = axes.barh(at, value, each * 0.92, left=start, color=colour)
        else:
            bars = axes.bar(at, value, each * 0.92, bottom=start, color=colour)
        if error is not None:
            ends: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 0.9, "capsize": 2}
            axes.errorbar(value, at, xerr=error, **ends) if part.horizontal else axes.errorbar(at, value, error, **ends)
        elif labelled:
            axes.bar_label(bars, [_short(v) for v in value], padding=2, fontsize=7)
        for gap in at[np.isnan(value)]:
            xy = (0.0, gap) if part.horizontal else (gap, 0.0)
            axes.annotate("-", xy, (2, -1), textcoords="offset points", fontsize=8, va="center", color=MUTED)
        start = start + np.nan_to_num(value) if part.stacked else start
        legend.append((bars[0] if len(bars) else bars, series.name))
    _finish_bars(axes, part, width)
    if part.reference is not None:
        rule: Callable[..., Any] = axes.axvline if part.horizontal else axes.axhline
        line = rule(part.reference, color=INK, linewidth=1, linestyle=":")
        legend.append((line, part.reference_name))
    rows = len(place) * (1 if part.stacked else max(len(part.series), 1))
    height = 0.85 + max(0.14 * rows, 0.24 * len(place)) if part.horizontal else 2.6
    return height, legend if len(legend) > 1 else []


def _finish_bars(axes: Any, part: Bars, width: float) -> None:
    """Put names and limits on the axes: zero is always in sight."""
    place, names = np.arange(len(part.groups)), [_shortened(name, 30) for name in part.groups]
    along, across = (axes.xaxis, axes.yaxis) if part.horizontal else (axes.yaxis, axes.xaxis)
    across.set_ticks(place, names)
    across.set_tick_params(length=0)
    along.grid(True)
    along.set_major_locator(MaxNLocator(5, steps=STEPS))
    along.set_label_text(_folded(part.axis, width * 11 if part.horizontal else 34))
    across.set_label_text(_folded(part.group_axis, 34 if part.horizontal else width * 11))
    values = np.concatenate([floats(v) for s in part.series for v in (s.values, s.low or (), s.high or ())])
    set_limits = axes.set_xlim if part.horizontal else axes.set_ylim
    if part.stacked:
        sums = np.nansum([floats(series.values) for series in part.series], axis=0)
        set_limits(0, sums.max() if sums.max() > 0 else 1)
    else:
        ends = [0.0, *values[np.isfinite(values)], part.reference or 0.0]
        ends = ends if any(ends) else [0.0, 1.0]
        margin = 0.12 * (max(ends) - min(ends))
        set_limits(min(ends) - margin * (min(ends) < 0), max(ends) + margin * (max(ends) > 0))
        if min(ends) < 0 < max(ends):
            (axes.axvline if part.horizontal else axes.axhline)(0, color=MUTED, linewidth=0.8)
    if part.horizontal:
        axes.set_ylim(len(place) - 0.45, -0.55)
    elif names and max(len(name) for name in names) * CHARACTER > 62 * width / len(names):
        _slant(axes)


def _slant(axes: Any) -> None:
    """Turn names below the axes that would overlap."""
    axes.tick_params(axis="x", rotation=30)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")


def draw_lines(figure: Figure, part: Lines) -> tuple[float, list[tuple[Any, str]]]:
    """Draw curves and return the height in inches and the legend's entries."""
    axes, legend, shown = figure.subplots(), [], [np.zeros(0)]
    bounded = part.low is not None or part.high is not None
    bright = -1
    for series in part.series:
        x, y = floats(series.x), floats(series.y)
        bright += not series.muted
        index = 0 if series.muted else bright
        colour = GREY if series.muted else COLOURS[index % len(COLOURS)]
        style = {"line": ("-", "--", ":")[index // len(COLOURS) % 3], "dashed": "--", "points": "none"}[series.style]
        dots: dict[str, Any] = {"marker": _marker(y, series.style), "markersize": 4, "clip_on": bounded}
        (line,) = axes.plot(x, y, linestyle=style, color=colour, linewidth=1.5, **dots)
        shown.append(y)
        if series.low is not None and series.high is not None:
            low, high = floats(series.low), floats(series.high)
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            shown += [low, high]
        if series.name:
            legend.append((line, series.name))
    for mark in part.marks:
        if mark.y is not None:
            (point,) = axes.plot(mark.x, mark.y, "o", color=INK, markerfacecolor="none", markersize=8)
            legend += [(point, mark.name)] if mark.name else []
            shown.append(np.array([mark.y]))
    for index, event in enumerate(part.events):
        axes.axvline(event.x, color=MUTED, linewidth=0.9)
        above = 3 + 10 * (index % 2)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(
            _shortened(event.name, 24), (event.x, 1), (0, above), ha="center", fontsize=7.5, color=MUTED, **place
        )
    if part.reference is not None:
        legend.append((axes.axhline(part.reference, color=INK, linewidth=1, linestyle=":"), part.reference_name))
        shown.append(np.array([part.reference]))
    axes.set(
        xlabel=_folded(part.x_axis, 46),
        ylabel=_folded(part.y_axis, 34),
        ylim=limits(np.concatenate(shown), part.low, part.high),
    )
    axes.yaxis.grid(True)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    _x_ticks(axes, part)
    explained = len(legend) > 1 or len(part.series) > 1 or any(mark.name for mark in part.marks)
    return 2.5, legend if explained else []


def _x_ticks(axes: Any, part: Lines) -> None:
    """Put whole numbers where x counts, and names where it counts categories."""
    x = np.concatenate([np.zeros(0), *(floats(series.x) for series in part.series)])
    x = x[np.isfinite(x)]
    if part.x_names:
        _name_ticks(axes.xaxis, part.x_names, 12)
        axes.set_xlim(-0.5, len(part.x_names) - 0.5)
    elif part.x_log:
        axes.set_xscale("log")
        decades = np.log10(x.max() / x.min())
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,), numticks=8))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif np.all(x == np.round(x)):
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        if x.size and x.min() == x.max():
            axes.set_xlim(x.min() - 1, x.max() + 1)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))


def _marker(y: np.ndarray, style: str) -> str:
    """Return a dot where a line alone would not show: few points, or one between two gaps."""
    known = np.concatenate([[False], np.isfinite(y), [False]])
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    return "." if style == "points" or known.sum() <= 12 or alone.any() else ""


def limits(values: np.ndarray, low: float | None, high: float | None) -> tuple[float, float]:
    """Return the ends of an axis that do not make a small change look large.

    Shares (all values in 0 to 1) start at 0; other values span at least a tenth of the largest.
    """
    least, most = limits_of(values)
    if least >= 0 and most <= 1:
        ends = (0.0, min(1.02, most * 1.15) if most > 0 else 1.0)
    else:
        span = max(most - least, 0.1 * max(abs(least), abs(most)))
        middle = (least + most) / 2
        ends = (middle - 0.55 * span, middle + 0.55 * span)
    return (ends[0] if low is None else low, ends[1] if high is None else high)


def limits_of(values: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest of what is finite, 0 and 1 where nothing is."""
    found = values[np.isfinite(values)]
    return (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)


def draw_heatmap(figure: Figure, part: Heatmap, width: float) -> float:
    """Draw a matrix as colours, with its values where there are few, and return the height in inches."""
    axes = figure.subplots()
    value_YX = np.stack([floats(row) for row in part.matrix])
    least, most = limits_of(value_YX)
    low = least if part.low is None else part.low
    high = most if part.high is None else part.high
    high = high if high > low else low + 1.0
    colours = "coolwarm" if low < 0 < high else "viridis"
    matrix = axes.imshow(value_YX, colours, origin="lower", aspect="auto", vmin=low, vmax=high, interpolation="none")
    axes.spines[["left", "bottom"]].set_visible(False)
    _name_ticks(axes.xaxis, part.x_names, 16 if width > NARROW else 10)
    _name_ticks(axes.yaxis, part.y_names, 25, 30)
    shown = [label.get_text() for label in axes.get_xticklabels()]
    beside = CHARACTER * max((len(_shortened(name, 30)) for name in part.y_names), default=0)
    if shown and max(len(name) for name in shown) * CHARACTER > (62 * width - beside) / len(shown):
        _slant(axes)
    axes.tick_params(length=0)
    axes.set(xlabel=_folded(part.x_axis, 40), ylabel=_folded(part.y_axis, 34))
    bar = figure.colorbar(matrix, ax=axes, aspect=28, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(_folded(part.meaning, 34))
    if value_YX.size <= 64 and value_YX.shape[1] <= 3 * width:
        for (row, column), value in np.ndenumerate(value_YX):
            red, green, blue, _ = matrix.cmap(matrix.norm(value)) if np.isfinite(value) else (0.5, 0.5, 0.5, 1.0)
            ink = "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "#ffffff"
            ink = ink if np.isfinite(value) else MUTED
            axes.text(column, row, _short(value), ha="center", va="center", fontsize=7, color=ink)
    return min(max(1.0 + 0.2 * len(part.y_names), 2.5), 6.0)


def _name_ticks(axis: Any, names: Sequence[str], room: int, most: int = 20) -> None:
    """Put names at 0, 1, ...: all where they fit, else every second, fifth, tenth, ... of them."""
    steps = [step * 10**power for power in range(6) for step in (1, 2, 5)]
    step = next(step for step in steps if len(names) / step <= room)
    first = step - 1 if step > 1 and names[0] == "1" else 0
    place = range(first, len(names), step)
    axis.set_ticks(list(place), [_shortened(names[index], most) for index in place])


def _legend(figure: Figure, entries: Sequence[tuple[Any, str]], width: float) -> int:
    """Put the legend above the axes, where it covers nothing, and return its number of rows."""
    if not entries:
        return 0
    names = [_shortened(name, 48) for _, name in entries]
    entry = ENTRY_MARGIN + CHARACTER * max(len(name) for name in names)
    columns = min(max(int(72 * width / entry), 1), len(names))
    figure.legend([handle for handle, _ in entries], names, loc="outside upper left", ncols=columns)
    return -(-len(names) // columns)


def _folded(text: str, most: float) -> str:
    return "\n".join(textwrap.wrap(text, int(most)))


def _shortened(text: str, most: int) -> str:
    text = " ".join(text.split())
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return f"\u200b{text}" if text.startswith("_") else text  # matplotlib leaves "_name" out of a legend


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    if value == round(value) or abs(value) >= 100:
        return f"{value:z,.0f}"
    return f"{value:z.3f}" if abs(value) >= 0.01 else f"{value:.2g}"


def svg(figure: Figure) -> str:
    """Return a figure as the text of an SVG element, the same for the same figure.

    Colours of `THEMED` are CSS variables with themselves as fallback, so that a page can redefine them.
    """
    stream = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": "rec", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    used = set(re.findall(r"[\"(]#([^\")]+)", text))
    return re.sub(r"<[^>]*>", lambda tag: _themed(tag[0], used), text)


def _themed(tag: str, used: Collection[str]) -> str:
    """Return a tag with variables for colours and without an id that nothing refers to: pages hold many figures."""
    tag = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda m: f"var(--{NAMED[m[0]]},{m[0]})" if m[0] in NAMED else m[0], tag)
    return re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", tag)
