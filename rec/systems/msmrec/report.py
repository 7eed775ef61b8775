"""What a report tells of MSMRec's gate: weights per group, over time and over training, and planted preferences.

Letters: U users, K modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rec.data.prepared import Prepared
from rec.evaluation.history import EPOCHS, epochs
from rec.evaluation.records import Records, column
from rec.evaluation.task import Measured
from rec.sections import Bars, BarSeries, Heatmap, Lines, LineSeries, Section, Table, Text, interval, number
from rec.seeds import generator
from rec.systems.msmrec.analysis import (
    concentration_numbers,
    concentration_section,
    popularity,
    popularity_section,
    weights,
)
from rec.systems.msmrec.planted import (
    OTHERS,
    followers,
    followers_shown,
    in_words,
    recovered,
    recovery,
    second_half,
    switches,
)

Numbers = dict[str, Any]
EVEN = 0.1
"""Spread of users' weights, as a share of equal use, below which a report says that the gate hardly decides."""
NO_TEXTS = "no item of these users' histories has a text: nothing is told of modalities"
APART, MOST_BARS, MOST_ROWS = "difference from all users", 6, 12
"""More groups than so many are a map and a table of so many rows: bars of them could not be told apart."""
QUANTILES = (0.05, 0.5, 0.95)
"""Of users' weights, that figures show."""


def gate_statistics(records: Records) -> dict[str, float]:
    """Return the mean weight of each modality, `gate/K`, and the mean entropy of users' weights, `gate/entropy`.

    Users none of whose items has a text have no weights; there is nothing to return where nobody has any.
    """
    if "gate" not in records.column_names:
        return {}
    gate_UK = column(records, "gate").astype(np.float64)
    gate_UK = gate_UK[gate_UK.sum(1) > 0]
    if not len(gate_UK):
        return {}
    entropy_U = -np.where(gate_UK > 0, gate_UK * np.log(np.where(gate_UK > 0, gate_UK, 1)), 0).sum(1)
    return {"gate/entropy": float(entropy_U.mean())} | {f"gate/{k}": float(v) for k, v in enumerate(gate_UK.mean(0))}


def enrich(measured: Measured) -> list[str]:
    """Add weights per group and over time; return how well they tell planted preferences, where there are some."""
    records, numbers = measured.records, measured.numbers
    if "gate" not in records.column_names:
        return []
    rows = {name: column(records, name) for name in ("gate", "gate_first", "gate_even", "length", "subject")}
    told_U = rows["length"] > 0
    if not told_U.any():
        return [NO_TEXTS]
    rows = {name: value[told_U] for name, value in rows.items()}
    groups = [(name, inside[told_U]) for name, inside in measured.groups.each() if inside[told_U].any()]
    rng, resamples = generator(measured.seed, "bootstrap", "gate"), measured.config.bootstrap
    names = numbers["modalities"] = modality_names(measured.data, rows["gate"].shape[1])
    numbers["meanings"] |= {f"gate/{k}": f"mean gate weight of {name}" for k, name in enumerate(names)}
    even = np.log(len(names))
    numbers["meanings"]["gate/entropy"] = f"how evenly a user's weights are spread: {even:.3f} is even, 0 one alone"
    for name, inside in groups:
        entry = numbers["groups"][name]
        entry |= weights(rows["gate"][inside], resamples, rng)
        entry["halves"] = halves_distance({key: value[inside] for key, value in rows.items()})
    numbers["gate_in_time"] = gate_in_time(rows, resamples, rng)
    rng = generator(measured.seed, "bootstrap", "gate differences")
    numbers["gate_spread"] = {f"{q:g}": np.quantile(rows["gate"], q, axis=0).tolist() for q in QUANTILES}
    from_mean_UK = rows["gate"] - rows["gate"].mean(0)
    numbers["gate_from_mean"] = {
        name: weights(from_mean_UK[inside], resamples, rng) | {"users": int(inside.sum())} for name, inside in groups
    }
    long = rows["length"] > 1
    if long.any():
        drift_UK = (second_half(rows, "gate_first") - rows["gate_first"])[long]
        numbers["gate_drift"] = weights(drift_UK, resamples, rng) | {"users": int(long.sum())}
    numbers["gate_concentration"] = concentration_numbers(measured, told_U)
    if by_popularity := popularity(measured, rows["gate"], told_U):
        numbers["gate_by_popularity"] = by_popularity
    if (truth := recovery(rows, measured.data)) is not None:
        numbers["recovery"] = truth
        numbers["followers"] = followers(rows, measured.data, resamples, rng)
    if (moved := switches(rows, measured.data, resamples, rng)) is not None:
        numbers["switches"] = moved
    return [] if truth is None else [recovered(truth)]


def modality_names(data: Prepared, count: int) -> list[str]:
    """Return the names of the K texts."""
    names = list(data.modalities)
    return names if len(names) == count else [f"texts {k + 1}" for k in range(count)]


def gate_in_time(rows: Mapping[str, np.ndarray], resamples: int, rng: np.random.Generator) -> Numbers:
    """Return the gate's mean weights over the first and the second half of histories, with intervals."""
    long = rows["length"] > 1
    parts = {"first half": rows["gate_first"], "second half": second_half(rows, "gate_first")}
    users = {"users": int(long.sum())}
    return {name: weights(value[long], resamples, rng) | users for name, value in parts.items() if long.any()}


def halves_distance(rows: Mapping[str, np.ndarray]) -> Numbers | None:
    """Return the mean Jensen-Shannon distance between a history's halves in time, and between random-like halves.

    None where no history has two items.
    """
    long = rows["length"] > 1
    if not long.any():
        return None
    distances = {}
    for name, key in (("in_time", "gate_first"), ("every_other", "gate_even")):
        distances[name] = float(jensen_shannon(rows[key], second_half(rows, key))[long].mean())
    return distances


def sections(measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return figures of the gate's weights by user and group, over histories and over training."""
    numbers = measured.numbers
    if "modalities" not in numbers:
        return []
    names = numbers["modalities"]
    found = [_by_user(names, numbers)]
    if len(numbers["gate_from_mean"]) > 1:  # one group alone holds all users
        found.append(_by_group(names, numbers))
    if len(numbers.get("gate_by_popularity", ())) > 1:
        found.append(popularity_section(names, numbers["gate_by_popularity"], measured.config.popular_share))
    found.append(concentration_section(names, numbers["gate_concentration"]))
    if "gate_drift" in numbers:
        found.append(_in_time(names, numbers))
    told = [(x, record) for x, record in zip(epochs(history), history, strict=True) if "gate/0" in record]
    if told:
        found.append(Section(title="Modality weights over training", parts=[_over_training(names, told)]))
    parts: list[Any] = [Text(text=text) for text in in_words(numbers.get("recovery"), numbers.get("switches"))]
    if "followers" in numbers:
        differences = followers_shown(numbers["followers"])
        bars = _of_equal_use(
            "weights of users who follow a modality, less those of the average user", names, differences
        )
        parts.append(bars)
    if parts:
        found.append(Section(title="Planted preferences", parts=parts))
    return found


def _by_user(names: Sequence[str], numbers: Numbers) -> Section:
    low, middle, high = (numbers["gate_spread"][f"{q:g}"] for q in QUANTILES)
    widest = max(range(len(names)), key=lambda k: high[k] - low[k])
    text = (
        f"The gate gives each user a weight for every modality (a text or vector of an item: {', '.join(names)}); a "
        f"user's weights add up to 1, so equal use would be {1 / len(names):.3f} each. Users differ most in "
        f"{names[widest]}: nine in ten have a weight between {low[widest]:.3f} and {high[widest]:.3f}."
    )
    if high[widest] - low[widest] < EVEN / len(names):
        text += f" That is less than {EVEN:.0%} of equal use apart: the gate hardly tells users from each other."
    bars = Bars(
        title="weights of single users",
        caption="The bar is the median user's weight; nine in ten users lie within the line on it.",
        groups=names,
        series=[BarSeries(name="median user", values=middle, low=low, high=high)],
        axis="gate weight",
        group_axis="modality",
        reference=1 / len(names),
        reference_name="equal use",
        wide=True,
    )
    return Section(title="Modality weights per user", parts=[Text(text=text), bars])


def _by_group(names: Sequence[str], numbers: Numbers) -> Section:
    note = (
        "How far a group's mean weight lies from that of all users, with its 95 % bootstrap interval over users. Where "
        "an interval holds zero, the group is not clearly different. The groups are explained under Groups."
    )
    parts: list[Any] = [Text(text=note, tone="note")]
    if len(numbers["gate_from_mean"]) <= MOST_BARS:
        parts.append(_from_zero(APART, names, numbers["gate_from_mean"]))
    else:
        parts += _of_many_groups(names, numbers["gate_from_mean"])
    halves = {name: entry["halves"] for name, entry in numbers["groups"].items() if entry.get("halves")}
    if halves:
        note = (
            "Distance between a user's mean weights in the first and in the second half of the history "
            "(Jensen-Shannon: 0 where they are the same, 1 where they share nothing), and, as chance, between every "
            "other item and the rest. Where both are alike, weights do not drift."
        )
        rows = [[name, number(one["in_time"], 3), number(one["every_other"], 3)] for name, one in halves.items()]
        table = Table(head=["group", "first and second half", "every other item and the rest"], rows=rows)
        parts += [Text(text=note, tone="note"), table]
    return Section(title="Modality weights per group", parts=parts)


def _of_many_groups(names: Sequence[str], differences: Mapping[str, Numbers]) -> list[Any]:
    """Return a map of all groups' differences, and those in numbers that are clearly none of chance."""
    percent, users = 100 * len(names), {name: f"{name} ({one['users']:,})" for name, one in differences.items()}
    matrix = [[np.nan if value is None else percent * value for value in one["gate"]] for one in differences.values()]
    far = float(np.nanmax(np.abs([0.0, *np.ravel(matrix)]))) or 1.0
    shown = Heatmap(
        title=APART,
        caption="Difference of mean gate weights.",
        matrix=matrix[::-1],
        x_names=names,
        y_names=list(users.values())[::-1],
        x_axis="modality",
        y_axis="group (users)",
        meaning=f"% of equal use ({1 / len(names):.3f})",
        low=-far,
        high=far,
        wide=True,
    )
    each = [
        (name, modality, percent * one["gate"][k], percent * one["gate_low"][k], percent * one["gate_high"][k])
        for name, one in differences.items()
        for k, modality in enumerate(names)
        if one["gate"][k] is not None
    ]
    clear = sorted((one for one in each if one[3] > 0 or one[4] < 0), key=lambda one: -abs(one[2]))
    note = (
        f"{len(clear)} of {len(each)} intervals do not hold zero, where chance alone lets about {len(each) / 20:.0f}"
        f"{'; the widest apart' if len(clear) > MOST_ROWS else ''}:"
    )
    rows = [
        [users[name], modality, interval(mean, low, high, 1)] for name, modality, mean, low, high in clear[:MOST_ROWS]
    ]
    table = [Table(head=["group (users)", "modality", "difference, % of equal use"], rows=rows)] if rows else []
    return [shown, Text(text=note if rows else note.rstrip(":") + ".", tone="note"), *table]


def _in_time(names: Sequence[str], numbers: Numbers) -> Section:
    note = (
        "The mean weight over the second half of each user's history less that over the first, with its 95 % bootstrap "
        "interval over users: above zero where a modality counts more in what came later."
    )
    bars = _from_zero("second half less first half", names, {"all users": numbers["gate_drift"]})
    return Section(title="Modality weights over time", parts=[Text(text=note, tone="note"), bars])


def _from_zero(title: str, names: Sequence[str], differences: Mapping[str, Numbers]) -> Bars:
    each = {
        f"{name} ({entry['users']:,})": [entry[key] for key in ("gate", "gate_low", "gate_high")]
        for name, entry in differences.items()
    }
    return _of_equal_use(title, names, each)


def _of_equal_use(title: str, names: Sequence[str], each: Mapping[str, Sequence[Sequence[float | None]]]) -> Bars:
    """Return bars of differences (values, low, high) by what they are of, in percent of equal use."""
    percent = 100 * len(names)
    series = []
    for place, (name, ends) in enumerate(each.items()):
        values, low, high = ([None if v is None else percent * v for v in part] for part in ends)
        series.append(BarSeries(name=name, values=values, low=low, high=high, muted=name == OTHERS and place > 0))
    axis = f"% of equal use ({1 / len(names):.3f})"
    caption = "Difference of mean gate weights."
    return Bars(title=title, caption=caption, groups=names, series=series, axis=axis, group_axis="modality", wide=True)


def _over_training(names: Sequence[str], told: Sequence[tuple[int, Mapping[str, Any]]]) -> Lines:
    series = [
        LineSeries(name=name, x=[x for x, _ in told], y=[record[f"gate/{index}"] for _, record in told])
        for index, name in enumerate(names)
    ]
    return Lines(
        title="mean weight over users of validation",
        caption="Curves that lie on each other show as one.",
        series=series,
        x_axis=EPOCHS,
        y_axis="mean gate weight",
        low=0.0,
        wide=True,
    )


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the distance of each row of weights from another: 0 where they are the same, 1 where nothing is shared."""
    middle = (p + q) / 2

    def divergence(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x * np.log2(np.where(x > 0, x, 1) / np.where(middle > 0, middle, 1)), 0).sum(1)

    return np.sqrt(np.clip((divergence(p) + divergence(q)) / 2, 0, None))
