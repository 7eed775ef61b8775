"""A search's plots: parallel coordinates, what mattered, progress, and the trade-off of several objectives."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from rec.config import RunConfig
from rec.report.figures import COLOURS, svg
from rec.report.page import STYLE
from rec.report.text import table_html
from rec.storage import Storage
from rec.tuning.results import front, ranked
from rec.tuning.search import MAXIMUM, objectives
from rec.tuning.trial import Trial

FEWEST = 8
"""Trials below which nothing can be said of what mattered."""


def write_page(config: RunConfig, storage: Storage, trials: Sequence[Trial], keys: Sequence[str]) -> None:
    """Write `search.html`."""
    goals = objectives(config)
    order = ranked(trials, goals)
    first, goal = next(iter(goals.items()))
    parts = [
        f"<h1>Search for {html.escape(config.system.rsplit(':', 1)[-1])} on {html.escape(config.data.root)}</h1>",
        f'<p class="note">{len(trials)} trials, search {config.tune.search}, scheduler {config.tune.scheduler}; '
        "every value is of validation, the test split was not read.</p>",
        "<h2>Parallel coordinates</h2>",
        '<p class="note">One line per trial, from worst (dark) to best (bright).</p>',
        parallel_coordinates(order, keys, first, goal),
        "<h2>Progress</h2>",
        progress(trials, first, goal),
    ]
    if len(order) >= FEWEST:
        note = (
            "How much worse a random forest that predicts the objective gets when one key's values are shuffled "
            "(permutation importance, mean and standard deviation of 20 shuffles)."
        )
        found = importance(order, keys, first)
        parts += ["<h2>Importance</h2>", f'<p class="note">{note}</p>', importance_bars(found)]
    if len(goals) > 1:
        parts += ["<h2>Trade-off</h2>", trade_off(order, goals)]
    head = ["trial", "status", *goals, "evaluations", *keys]
    rows = [
        [t.id, t.status, *(f"{t.best[n]:.4f}" for n in goals), str(t.evaluations), *(t.show(k) for k in keys)]
        for t in order
    ]
    parts += ["<h2>Trials</h2>", f'<div style="overflow:auto">{table_html(head, rows)}</div>']
    body = "\n".join(parts)
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>search</title><style>{STYLE}</style>{body}</html>"
    storage.write("search.html", page.encode())


def parallel_coordinates(order: Sequence[Trial], keys: Sequence[str], metric: str, goal: str) -> str:
    """Return one vertical axis per key and one for the metric, and a line per trial."""
    axes_of = [_axis([trial.point.get(key) for trial in order]) for key in keys]
    values = np.array([trial.best[metric] for trial in order])
    places = np.column_stack([place for place, _ in axes_of] + [_unit(values)])
    figure = Figure(figsize=(max(8.0, 1.3 * (len(keys) + 1)), 3.4), layout="constrained")
    axes = figure.subplots()
    colours = ScalarMappable(Normalize(values.min(), values.max()), "viridis" if goal == MAXIMUM else "viridis_r")
    x = np.arange(places.shape[1])
    for place, value in reversed(list(zip(places, values, strict=True))):
        axes.plot(x, place, color=colours.to_rgba(value), linewidth=1.2, alpha=0.8)
    for at, (_, ticks) in enumerate([*axes_of, (None, _number_ticks(values))]):
        axes.axvline(at, color="#94a3b8", linewidth=0.8)
        for height, label in ticks:
            axes.text(at + 0.03, height, label, fontsize=7)
    axes.set_xticks(x, [*(key.split(".", 1)[-1] for key in keys), metric], rotation=15, ha="right")
    axes.set_yticks([])
    axes.set_ylim(-0.17, 1.08)
    figure.colorbar(colours, ax=axes, label=metric)
    return svg(figure)


def progress(trials: Sequence[Trial], metric: str, goal: str) -> str:
    """Return every trial's curve over its evaluations, and the best value so far over the trials."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, trial in enumerate(trials):
        left.plot(
            np.arange(1, len(trial.curve) + 1), trial.curve, ".-", color=COLOURS[index % 9], linewidth=1, alpha=0.7
        )
    left.set(title=f"validation {metric} of each trial", xlabel="evaluation")
    values = [trial.best.get(metric, np.nan) for trial in trials]
    right.plot(np.arange(1, len(values) + 1), values, ".", color="#94a3b8")
    so_far = (np.fmax if goal == MAXIMUM else np.fmin).accumulate(values)
    right.plot(np.arange(1, len(values) + 1), so_far, color=COLOURS[0])
    right.set(title="best so far", xlabel="trial")
    return svg(figure)


def importance(order: Sequence[Trial], keys: Sequence[str], metric: str) -> dict[str, tuple[float, float]]:
    """Return each key's permutation importance for the metric, mean and standard deviation, largest first."""
    x = np.column_stack([_axis([trial.point.get(key) for trial in order])[0] for key in keys])
    y = np.array([trial.best[metric] for trial in order])
    forest = RandomForestRegressor(200, random_state=0).fit(x, y)
    found = permutation_importance(forest, x, y, n_repeats=20, random_state=0)
    pairs = {
        k: (float(m), float(s)) for k, m, s in zip(keys, found.importances_mean, found.importances_std, strict=True)
    }
    return dict(sorted(pairs.items(), key=lambda pair: -pair[1][0]))


def importance_bars(found: Mapping[str, tuple[float, float]]) -> str:
    """Return a bar per key."""
    figure = Figure(figsize=(8, 0.6 + 0.32 * len(found)), layout="constrained")
    axes = figure.subplots()
    names = list(found)[::-1]
    axes.barh(names, [found[n][0] for n in names], xerr=[found[n][1] for n in names], color=COLOURS[0], capsize=2)
    axes.set_xlabel("loss of explained variance when shuffled")
    return svg(figure)


def trade_off(order: Sequence[Trial], goals: Mapping[str, str]) -> str:
    """Return the trials over the first two objectives, those that no other dominates marked."""
    a, b = list(goals)[:2]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    best = front(order, goals)
    axes.plot([t.best[a] for t in order], [t.best[b] for t in order], ".", color="#94a3b8", label="trials")
    axes.plot([t.best[a] for t in best], [t.best[b] for t in best], "o-", color=COLOURS[1], label="undominated")
    axes.set(xlabel=f"{a} ({goals[a]})", ylabel=f"{b} ({goals[b]})")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def _axis(values: Sequence[Any]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return where values lie on an axis in [0, 1], -0.12 where a key did not count, and its marks."""
    known = [value for value in values if value is not None]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in known) and len(set(known)) > 1:
        number = np.array([np.nan if v is None else float(v) for v in values])
        if np.nanmin(number) > 0 and np.nanmax(number) / np.nanmin(number) > 20:
            place = _unit(np.log(number))
        else:
            place = _unit(number)
        return np.where(np.isnan(place), -0.12, place), _number_ticks(number)
    names = sorted({str(value) for value in known})
    where = {name: index / max(len(names) - 1, 1) for index, name in enumerate(names)}
    return np.array([-0.12 if v is None else where[str(v)] for v in values]), [(h, n) for n, h in where.items()]


def _unit(values: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(values), np.nanmax(values)
    place: np.ndarray = (values - low) / (high - low if high > low else 1.0)
    return place


def _number_ticks(values: np.ndarray) -> list[tuple[float, str]]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if high > low else [(0.0, f"{low:.3g}")]
