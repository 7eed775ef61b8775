"""What a report tells of one user: weights beside all users', the items behind them, and how they move in time.

Letters: N items of the user's history that have texts, K modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rec.data.prepared import Prepared
from rec.evaluation.task import Profiled
from rec.sections import Bars, BarSeries, Section, Table, Text
from rec.seeds import generator
from rec.systems.msmrec.report import jensen_shannon, modality_names

SHOWN = 10
"""Items of a list."""
HEAVIEST = 3
"""Modalities told of an item."""
HALVINGS = 2000
"""Random halves that those in time are compared with."""
FACTS = ("year", "genres")
"""Columns of items that are told beside their titles, where they are there."""


def profile(profiled: Profiled, weight_NK: np.ndarray, item_N: np.ndarray, answer: dict[str, Any]) -> list[Section]:
    """Return a user's section.

    Args:
        profiled: The user.
        weight_NK: The gate's weights at each item of the history, in the order of time; 0 where a text is not there.
        item_N: Those items.
        answer: The best unseen items: `items`, `scores`, `modalities` with the weights of each.
    """
    there_N = weight_NK.sum(1) > 0
    if not there_N.any():
        return [Section(title=profiled.called, parts=[Text(text="No item of this history has a text.")])]
    total, (weight_NK, item_N) = len(item_N), (weight_NK[there_N], item_N[there_N])
    names = modality_names(profiled.data, weight_NK.shape[1])
    mean_K, all_K = weight_NK.mean(0), _all_users(profiled, len(names))
    apart_K = mean_K - (1 / len(names) if all_K is None else all_K)
    most = int(apart_K.argmax())
    parts: list[Any] = [Text(text=_lead(profiled, names, mean_K, apart_K, total, all_K is not None))]
    parts.append(_beside(names, mean_K, all_K))
    order = np.argsort(-weight_NK[:, most], kind="stable")
    first = list(dict.fromkeys(item_N[order].tolist()))[:SHOWN]
    of_item = dict(zip(item_N.tolist(), weight_NK, strict=True))
    parts.append(
        _items(f"items of the history where {names[most]} weighs most", profiled.data, names, first,
               [of_item[item] for item in first])
    )  # fmt: skip
    parts.append(_items("best items that are not in it", profiled.data, names, answer["items"], answer["modalities"]))
    if len(weight_NK) > 1:
        parts += _halves(profiled, names, weight_NK)
    return [Section(title=profiled.called, parts=parts)]


def halves(weight_NK: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Return the mean weights of both halves in time, their Jensen-Shannon distance, and those of random halves.

    The first half is the larger one where they differ.
    """
    size = -(-len(weight_NK) // 2)
    parts = [weight_NK[:size].mean(0), weight_NK[size:].mean(0)]
    order = np.argsort(rng.random((HALVINGS, len(weight_NK))), 1)
    chance = jensen_shannon(weight_NK[order[:, :size]].mean(1), weight_NK[order[:, size:]].mean(1))
    found = float(jensen_shannon(parts[0][None], parts[1][None])[0])
    return {
        "parts": parts,
        "distance": found,
        "chance": float(chance.mean()),
        "chance_high": float(np.quantile(chance, 0.95)),
        "as_far": float((chance >= found).mean()),
    }


def _all_users(profiled: Profiled, count: int) -> np.ndarray | None:
    """Return the mean weights of all users as measured, None where they were not."""
    metrics = profiled.numbers.get("metrics", {})
    found = [metrics.get(f"gate/{k}") for k in range(count)]
    return None if None in found else np.array(found, dtype=np.float64)


def _lead(
    profiled: Profiled, names: Sequence[str], mean_K: np.ndarray, apart_K: np.ndarray, total: int, known: bool
) -> str:
    order = np.argsort(-mean_K)[:HEAVIEST]
    heaviest = ", ".join(f"{names[k]} {mean_K[k]:.3f}" for k in order)
    most, least = int(apart_K.argmax()), int(apart_K.argmin())
    beside = "the mean over all users" if known else "equal use"
    return (
        f"The last {total:,} items of the history, as the model reads them. Heaviest on average: {heaviest}; equal use "
        f"would be {1 / len(names):.3f} each. Beside {beside} most is given to {names[most]} ({apart_K[most]:+.4f}), "
        f"least to {names[least]} ({apart_K[least]:+.4f})."
    )


def _beside(names: Sequence[str], mean_K: np.ndarray, all_K: np.ndarray | None) -> Bars:
    series = [BarSeries(name="this user", values=mean_K.tolist())]
    series += [] if all_K is None else [BarSeries(name="all users", values=all_K.tolist(), muted=True)]
    return _bars("mean weight of each modality", names, series)


def _bars(title: str, names: Sequence[str], series: Sequence[BarSeries]) -> Bars:
    return Bars(
        title=title, groups=names, series=series, axis="gate weight", group_axis="modality",
        reference=1 / len(names), reference_name="equal use", wide=True,
    )  # fmt: skip


def _items(
    title: str, data: Prepared, names: Sequence[str], items: Sequence[int], weights: Sequence[Sequence[float | None]]
) -> Table:
    """Return items with what people know of them and the modalities that weigh most there."""
    facts = [name for name in FACTS if name in data.items.column_names]
    known = data.items.take([item - 1 for item in items]).to_pylist()
    rows = [
        [
            str(one.get("title") or one["id"]),
            *(str(one[name] or "") for name in facts),
            ", ".join(f"{names[k]} {weight:.3f}" for k, weight in _heaviest(weight_K)),
        ]
        for one, weight_K in zip(known, weights, strict=True)
    ]
    return Table(head=[title, *facts, "heaviest modalities"], rows=rows)


def _heaviest(weight_K: Sequence[float | None]) -> list[tuple[int, float]]:
    there = [(k, weight) for k, weight in enumerate(weight_K) if weight is not None and weight > 0]
    return sorted(there, key=lambda one: -one[1])[:HEAVIEST]


def _halves(profiled: Profiled, names: Sequence[str], weight_NK: np.ndarray) -> list[Any]:
    found = halves(weight_NK, generator(profiled.seed, "random halves"))
    series = [
        BarSeries(name=name, values=part.tolist())
        for name, part in zip(("first half", "second half"), found["parts"], strict=True)
    ]
    series.append(BarSeries(name="whole history", values=weight_NK.mean(0).tolist(), muted=True))
    moved = found["as_far"] < 0.05
    text = (
        f"First and second half lie {found['distance']:.4f} apart (Jensen-Shannon distance of the mean weights: 0 the "
        f"same, 1 nothing shared). Halves drawn at random lie {found['chance']:.4f} apart on average, 95 % of "
        f"them at most {found['chance_high']:.4f}; {found['as_far']:.1%} as far as those in time. "
    )
    text += "So they have moved." if moved else "So that they have moved cannot be told from chance."
    text += " The gate's user is the mean of all items so far, of few at first: early weights vary more."
    return [_bars("first and second half of the history", names, series), Text(text=text, tone="note")]
