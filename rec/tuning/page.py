"""A search's page: progress, what mattered, each key beside the objective, the trade-off of several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from rec.config import RunConfig
from rec.progress import duration
from rec.report.html import page
from rec.report.origin import data_name, near, system_name
from rec.sections import Bars, BarSeries, Lines, LineSeries, Mark, Section, Table, Text, counted, number
from rec.storage import Storage
from rec.tuning.results import PAGE, front, ranked
from rec.tuning.search import MAXIMUM, objectives, short_names
from rec.tuning.trial import Trial

SEARCHES = {
    "tpe": "tpe: new values are drawn near those of the best trials (Optuna's tree of Parzen estimators)",
    "random": "random: every trial's values are drawn independently",
}
SCHEDULERS = {
    "none": "none: every trial trains to its end",
    "asha": "asha: trials that lag behind others at the same evaluation are stopped",
    "pbt": "pbt: trials that lag behind go on from a better one's weights with changed values",
}
FEWEST = 8
"""Trials below which nothing can be said of what mattered."""
STATUS = (
    "Best first. Finished: trained to its end. Stopped: the scheduler, or the end of the search, cut it short. Failed: "
    "it came to an error, which stands in trials.csv."
)
LOG_RATIO = 20
"""Largest value over smallest from which a key is drawn on a logarithmic axis."""


def write_page(config: RunConfig, storage: Storage, trials: Sequence[Trial], keys: Sequence[str]) -> None:
    """Write `search.html`."""
    goals = objectives(config)
    order = ranked(trials, goals)
    first = next(iter(goals))
    sections = [Section(title="Progress", parts=progress(trials, order[0], first, goals[first]))]
    if len(order) >= FEWEST:
        note = (
            "How much worse a random forest that predicts the objective gets when one key's values are shuffled "
            "(permutation importance, mean and standard deviation of 20 shuffles)."
        )
        short = short_names(keys)
        bars = importance_bars({short[key]: found for key, found in importance(order, keys, first).items()})
        sections.append(Section(title="What mattered", parts=[Text(text=note, tone="note"), bars]))
    note = (
        f"One point per trial: a key's value and its best {first} on validation; the circle is the best trial. Trials "
        "for which a key did not count are left out."
    )
    panels = [key_panel(order, key, first) for key in keys]
    sections.append(Section(title="Keys", parts=[Text(text=note, tone="note"), *panels]))
    if len(goals) > 1:
        sections.append(Section(title="Trade-off", parts=[trade_off(order, goals)]))
    sections.append(Section(title="Trials", parts=[Text(text=STATUS, tone="note"), trials_table(order, goals, keys)]))
    best = " and ".join(f"{name} {number(order[0].best[name])}" for name in goals)
    text = page(
        f"Search for {system_name(config)} on {data_name(config)}",
        lead(trials, order, best),
        sections,
        facts=[
            ("data", data_name(config)),
            ("search", SEARCHES[config.tune.search]),
            ("scheduler", SCHEDULERS[config.tune.scheduler]),
        ],
        command=f"rec train {near(config.out)}/best.toml --seeds 3",
        command_does="To train the best with several seeds:",
    )
    storage.write(PAGE, text.encode())


def lead(trials: Sequence[Trial], order: Sequence[Trial], best: str) -> str:
    """Return in words what was searched, what was found and what it took."""
    ends = [f"{sum(t.status == status for t in trials)} {status}" for status in sorted({t.status for t in trials})]
    values = ", ".join(f"{name} {order[0].show(key)}" for key, name in short_names(list(order[0].point)).items())
    return (
        f"The best of {counted(len(trials), 'trial')} ({', '.join(ends)}) reached {best} on validation. All trials "
        f"together took {duration(sum(t.total_s for t in trials))} of training and validation. The test split was not "
        f"read: the best was chosen by validation, so its value flatters. It has {values}."
    )


def progress(trials: Sequence[Trial], best: Trial, metric: str, goal: str) -> list[Lines]:
    """Return every trial's curve over its evaluations, and the best value so far over the trials."""
    curves = [
        LineSeries(
            name=f"the best, {trial.id}" if trial is best else "",
            x=np.arange(1, len(trial.curve) + 1),
            y=trial.curve,
            muted=trial is not best,
        )
        for trial in sorted(trials, key=lambda trial: trial is best)
        if trial.curve
    ]
    x, values = np.arange(1, len(trials) + 1), np.array([trial.best.get(metric, np.nan) for trial in trials])
    so_far = (np.fmax if goal == MAXIMUM else np.fmin).accumulate(values)
    found = [
        LineSeries(name="a trial", x=x, y=values, style="points", muted=True),
        LineSeries(name="best so far", x=x, y=so_far),
    ]
    return [
        Lines(title="every trial", series=curves, x_axis="evaluation on validation", y_axis=metric),
        Lines(title="best so far", series=found, x_axis="trial, in the order they were drawn", y_axis=metric),
    ]


def key_panel(order: Sequence[Trial], key: str, metric: str) -> Lines:
    """Return the objective over the values of one key."""
    known = [trial for trial in order if trial.point.get(key) is not None]
    values, y = [trial.point[key] for trial in known], [trial.best[metric] for trial in known]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        x = np.array(values, dtype=np.float64)
        log = bool(len(x)) and x.min() > 0 and x.max() / x.min() > LOG_RATIO
        series, names = [LineSeries(name="", x=x, y=y, style="points")], []
    else:
        log, names = False, sorted({str(value) for value in values})
        series = [LineSeries(name="", x=[names.index(str(value)) for value in values], y=y, style="points")]
    best = [Mark(x=series[0].x[0] or 0.0, y=y[0], name="")] if known and known[0] is order[0] else []
    return Lines(title=key, series=series, x_axis=key, y_axis=metric, x_names=names, x_log=log, marks=best)


def importance(order: Sequence[Trial], keys: Sequence[str], metric: str) -> dict[str, tuple[float, float]]:
    """Return each key's permutation importance for the metric, mean and standard deviation, largest first."""
    x = np.column_stack([_places([trial.point.get(key) for trial in order]) for key in keys])
    y = np.array([trial.best[metric] for trial in order])
    forest = RandomForestRegressor(200, random_state=0).fit(x, y)
    found = permutation_importance(forest, x, y, n_repeats=20, random_state=0)
    pairs = {
        k: (float(m), float(s)) for k, m, s in zip(keys, found.importances_mean, found.importances_std, strict=True)
    }
    return dict(sorted(pairs.items(), key=lambda pair: -pair[1][0]))


def importance_bars(found: Mapping[str, tuple[float, float]]) -> Bars:
    """Return a bar per key."""
    mean, spread = (np.array(part) for part in zip(*found.values(), strict=True))
    series = BarSeries(name="", values=mean, low=mean - spread, high=mean + spread)
    axis = "loss of explained variance when shuffled"
    return Bars(title="importance of keys", groups=list(found), series=[series], axis=axis, horizontal=True, wide=True)


def trade_off(order: Sequence[Trial], goals: Mapping[str, str]) -> Lines:
    """Return the trials over the first two objectives, those that no other dominates joined."""
    a, b = list(goals)[:2]
    best = sorted(front(order, goals), key=lambda trial: trial.best[a])
    series = [
        LineSeries(
            name="trials", x=[t.best[a] for t in order], y=[t.best[b] for t in order], style="points", muted=True
        ),
        LineSeries(name="undominated", x=[t.best[a] for t in best], y=[t.best[b] for t in best]),
    ]
    words = {name: f"{name} ({'higher' if goal == MAXIMUM else 'lower'} is better)" for name, goal in goals.items()}
    return Lines(title="trade-off", series=series, x_axis=words[a], y_axis=words[b], wide=True)


def trials_table(order: Sequence[Trial], goals: Mapping[str, str], keys: Sequence[str]) -> Table:
    """Return a row per trial, best first."""
    rows = [
        [t.id, t.status, *(number(t.best[n]) for n in goals), str(t.evaluations), *(t.show(k) for k in keys)]
        for t in order
    ]
    return Table(head=["trial", "status", *goals, "evaluations", *short_names(keys).values()], rows=rows)


def _places(values: Sequence[Any]) -> np.ndarray:
    """Return where values lie on an axis in [0, 1], -0.12 where a key did not count."""
    known = [value for value in values if value is not None]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in known) and len(set(known)) > 1:
        number_T = np.array([np.nan if v is None else float(v) for v in values])
        if np.nanmin(number_T) > 0 and np.nanmax(number_T) / np.nanmin(number_T) > LOG_RATIO:
            number_T = np.log(number_T)
        low, high = np.nanmin(number_T), np.nanmax(number_T)
        place_T = (number_T - low) / (high - low)
        return np.asarray(np.where(np.isnan(place_T), -0.12, place_T))
    names = sorted({str(value) for value in known})
    where = {name: index / max(len(names) - 1, 1) for index, name in enumerate(names)}
    return np.array([-0.12 if v is None else where[str(v)] for v in values])
