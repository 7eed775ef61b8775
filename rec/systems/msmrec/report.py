"""What a report tells of MSMRec's gate: weights per group, over time and over training, and planted preferences.

Letters: U users, K modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rec.data.prepared import Prepared
from rec.evaluation.bootstrap import resampled_means
from rec.evaluation.records import Records, column
from rec.evaluation.task import Measured
from rec.sections import Bars, BarSeries, Lines, LineSeries, Section, Table, Text, number
from rec.seeds import generator

Numbers = dict[str, Any]


def gate_statistics(records: Records) -> dict[str, float]:
    """Return the mean weight of each modality, `gate/K`, and the mean entropy of users' weights, `gate/entropy`."""
    if "gate" not in records.column_names:
        return {}
    gate_UK = column(records, "gate").astype(np.float64)
    entropy_U = -np.where(gate_UK > 0, gate_UK * np.log(np.where(gate_UK > 0, gate_UK, 1)), 0).sum(1)
    return {"gate/entropy": float(entropy_U.mean())} | {f"gate/{k}": float(v) for k, v in enumerate(gate_UK.mean(0))}


def enrich(measured: Measured) -> list[str]:
    """Add weights per group and over time; return how well they tell planted preferences, where there are some."""
    records, numbers = measured.records, measured.numbers
    if "gate" not in records.column_names:
        return []
    rows = {name: column(records, name) for name in ("gate", "gate_first", "gate_even", "length", "subject")}
    rng, resamples = generator(measured.seed, "bootstrap", "gate"), measured.config.bootstrap
    numbers["modalities"] = modality_names(measured.data, rows["gate"].shape[1])
    for name, inside in measured.groups.each():
        entry = numbers["groups"][name]
        entry |= weights(rows["gate"][inside], resamples, rng)
        entry["halves"] = halves_distance({key: value[inside] for key, value in rows.items()})
    numbers["gate_in_time"] = gate_in_time(rows, resamples, rng)
    truth = recovery(rows, measured.data)
    if truth is None:
        return []
    numbers["recovery"] = truth
    return ["planted modality found for {found:.1%} of users (chance {chance:.1%})".format(**truth)]


def modality_names(data: Prepared, count: int) -> list[str]:
    """Return the names of the K texts."""
    names = list(data.modalities)
    return names if len(names) == count else [f"texts {k + 1}" for k in range(count)]


def weights(gate_UK: np.ndarray, resamples: int, rng: np.random.Generator) -> Numbers:
    """Return the mean weight of each modality over users with 95 % intervals."""
    low, high = np.quantile(resampled_means(gate_UK, resamples, rng), [0.025, 0.975], axis=0)
    return {"gate": gate_UK.mean(0).tolist(), "gate_low": low.tolist(), "gate_high": high.tolist()}


def gate_in_time(rows: Mapping[str, np.ndarray], resamples: int, rng: np.random.Generator) -> Numbers:
    """Return the gate's mean weights over the first and the second half of histories, with intervals."""
    long = rows["length"] > 1
    parts = {"first half": rows["gate_first"], "second half": second_half(rows, "gate_first")}
    users = {"users": int(long.sum())}
    return {name: weights(value[long], resamples, rng) | users for name, value in parts.items() if long.any()}


def second_half(rows: Mapping[str, np.ndarray], first: str) -> np.ndarray:
    """Return the mean weights over what `first`, the larger half, leaves of each history, (U, K)."""
    length = rows["length"][:, None].astype(np.float64)
    size = np.ceil(length / 2)
    rest = np.clip((rows["gate"] * length - rows[first] * size) / np.maximum(length - size, 1), 0, None)
    share: np.ndarray = rest / np.maximum(rest.sum(1, keepdims=True), 1e-12)
    return share


def halves_distance(rows: Mapping[str, np.ndarray]) -> Numbers | None:
    """Return the mean Jensen-Shannon distance between a history's halves in time, and between random-like halves.

    None where no history has two items.
    """
    long = rows["length"] > 1
    if not long.any():
        return None
    distances = {}
    for name, key in (("in_time", "gate_first"), ("every_other", "gate_even")):
        distances[name] = float(_jensen_shannon(rows[key], second_half(rows, key))[long].mean())
    return distances


def recovery(rows: Mapping[str, np.ndarray], data: Prepared) -> Numbers | None:
    """Return how well the gate's weights tell the planted modalities, None where nothing was planted.

    `found` is the share of users whose most weighted modality, relative to the average user, is one they follow;
    `chance` what guessing would give; `correlation` Pearson's between weights and truth over users and modalities.
    """
    if "followed" not in data.users.column_names:
        return None
    followed = np.array(data.users["followed"].to_pylist())[rows["subject"]]
    if followed.shape != rows["gate"].shape:
        return None
    weight = rows["gate"] - rows["gate"].mean(0)
    truth, best = followed - followed.mean(0), weight.argmax(1)
    return {
        "found": float(followed[np.arange(len(best)), best].mean()),
        "chance": float(followed.mean()),
        "correlation": float(np.corrcoef(weight.ravel(), truth.ravel())[0, 1]) if weight.std() * truth.std() else None,
    }


def sections(measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return figures of the gate's weights per group, over histories and over training."""
    numbers = measured.numbers
    if "modalities" not in numbers:
        return []
    names = numbers["modalities"]
    groups = {name: entry for name, entry in numbers["groups"].items() if "gate" in entry}
    found = [_per_group(names, groups)]
    if numbers["gate_in_time"]:
        note = Text(text="The same over the first and the second half of each user's history.", tone="note")
        bars = _bars("weights over time", names, numbers["gate_in_time"], "users")
        found.append(Section(title="Modality weights over time", parts=[note, bars]))
    evaluations = [record for record in history if "gate/0" in record]
    if evaluations:
        found.append(Section(title="Modality weights over training", parts=[_over_training(names, evaluations)]))
    if "recovery" in numbers:
        found.append(Section(title="Planted preferences", parts=[Text(text=_told(numbers["recovery"]))]))
    return found


def _per_group(names: Sequence[str], groups: Mapping[str, Any]) -> Section:
    note = (
        "Mean gate weight over a user's history, with its 95 % bootstrap interval over users; the dotted line is equal "
        "use. The distance between a history's halves tells how far weights drift: halves in time beside every other "
        "item, which is chance."
    )
    rows = [
        [name, number(entry["halves"]["in_time"], 3), number(entry["halves"]["every_other"], 3)]
        for name, entry in groups.items()
        if entry["halves"]
    ]
    table = Table(head=["group", "distance of halves in time", "of every other item"], rows=rows)
    bars = _bars("weights per group", names, groups, "examples")
    return Section(title="Modality weights per group", parts=[Text(text=note, tone="note"), bars, table])


def _bars(title: str, names: Sequence[str], groups: Mapping[str, Any], count: str) -> Bars:
    series = [
        BarSeries(
            name=f"{name} ({entry[count]:,})", values=entry["gate"], low=entry["gate_low"], high=entry["gate_high"]
        )
        for name, entry in groups.items()
    ]
    return Bars(
        title=title,
        groups=names,
        series=series,
        axis="mean gate weight",
        reference=1 / len(names),
        reference_name="equal use",
        wide=True,
    )


def _over_training(names: Sequence[str], history: Sequence[Mapping[str, Any]]) -> Lines:
    x = np.arange(1, len(history) + 1)
    series = [
        LineSeries(name=name, x=x, y=[record[f"gate/{index}"] for record in history])
        for index, name in enumerate(names)
    ]
    return Lines(
        title="on validation", series=series, x_axis="evaluation", y_axis="mean gate weight", low=0.0, wide=True
    )


def _told(truth: Mapping[str, float | None]) -> str:
    return (
        f"The modality with the highest weight, relative to the average user, is one that the user truly follows for "
        f"{truth['found']:.1%} of users; guessing would give {truth['chance']:.1%}. Correlation of weights with the "
        f"truth: {number(truth['correlation'], 3)}."
    )


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    middle = (p + q) / 2

    def divergence(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x * np.log2(np.where(x > 0, x, 1) / np.where(middle > 0, middle, 1)), 0).sum(1)

    return np.sqrt(np.clip((divergence(p) + divergence(q)) / 2, 0, None))
