"""Where the texts of items lie: t-SNE by modality and by genre, and how many near items share their genre.

Letters: I items, K modalities, M width of vectors, P points.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rec.data.items import evenly
from rec.data.prepared import Prepared
from rec.sections import Lines, LineSeries, Part, Table, Text, number

TABLE = "text"
CATEGORY = ("genres", "genre", "category", "categories", "class", "group")
"""Columns of the items that tell a category, the first that is there."""
MOST_POINTS, MOST_ITEMS, COMPARED = 600, 400, 2000
"""Points of a figure of all modalities, items of one by genre, and items whose nearest are looked for, at most."""
LEAST = 8
"""Different vectors of which there is a figure."""
DIGITS = 5
"""Decimals in which vectors of length 1 differ that are taken for different."""
COLOURED = 8
"""Categories that have a colour; the others are grey."""
NEAREST = 10
PERPLEXITY = 30.0
MEANING = "Near points have like texts; how far groups lie apart, and how large they are, means nothing."


def text_map(data: Prepared) -> list[Part]:
    """Return figures and a table of the vectors of a data set's texts; none where it has no such texts."""
    names = tuple(data.manifest.get("modalities", ()))
    if not names:
        return []
    vector_IKM = np.asarray(data.array(TABLE), np.float32)[1:]
    parts: list[Part] = _by_modality(vector_IKM, names)
    column, category_I = categories(data)
    if category_I is None:
        return [*parts, Text(text=f"No column of the items tells a category ({', '.join(CATEGORY)}).", tone="note")]
    whole_IM = np.asarray(data.array(f"{TABLE}_concatenated"), np.float32)[1:, 0]
    every = {"all texts as one": whole_IM} | {name: vector_IKM[:, k] for k, name in enumerate(names)}
    parts.append(_nearest(every, category_I, column))
    for name, vector_IM in every.items():
        parts += _by_category(name, vector_IM, category_I, column)
    return parts


def categories(data: Prepared) -> tuple[str, np.ndarray | None]:
    """Return the column that tells the items' category, and the first one of each item, (I,) text, "" if unknown."""
    column = next((name for name in CATEGORY if name in data.items.column_names), None)
    if column is None:
        return "", None
    told = ["" if value is None else str(value) for value in data.items[column].to_pylist()]
    first = [re.split(r"[|,;]", text)[0].strip() for text in told]
    return column, np.array(first, dtype=object) if any(first) else None


def tsne(vector_PM: np.ndarray) -> np.ndarray | None:
    """Return points of a plane, (P, 2), near to each other where vectors have a small angle, equal where it is 0.

    None where too few vectors differ. Distances are exact: scikit-learn's approximation crashes on some inputs whose
    points fall together.

    Source: van der Maaten and Hinton (2008), from the two largest principal components on; the same vectors give the
    same points on one machine.
    """
    from sklearn.manifold import TSNE

    length_P1 = np.linalg.norm(vector_PM, axis=1, keepdims=True)
    unit_PM = np.round(vector_PM / np.where(length_P1 > 0, length_P1, 1), DIGITS)
    different_UM, place_P = np.unique(unit_PM, axis=0, return_inverse=True)
    if len(different_UM) < LEAST:
        return None
    perplexity = min(PERPLEXITY, (len(different_UM) - 1) / 3)
    made = TSNE(2, perplexity=perplexity, init="pca", method="exact", random_state=0, n_jobs=1)
    return np.asarray(made.fit_transform(different_UM.astype(np.float64)))[place_P.reshape(-1)]


def near_alike(vector_IM: np.ndarray, category_I: np.ndarray) -> tuple[float, float]:
    """Return how many of an item's nearest share its category, and how many would by chance, as shares.

    Items without a vector or category are left out; nan where fewer than two are left.
    """
    there = np.flatnonzero(vector_IM.any(1) & (category_I != ""))
    there = evenly(there, COMPARED)
    if len(there) < 2:
        return float("nan"), float("nan")
    unit = vector_IM[there] / np.linalg.norm(vector_IM[there], axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    most = min(NEAREST, len(there) - 1)
    near = np.argsort(-cosine, axis=1, kind="stable")[:, :most]
    category = category_I[there]
    counts = np.array(list(Counter(category).values()), dtype=np.float64)
    chance = float((counts * (counts - 1)).sum() / (len(there) * (len(there) - 1)))
    return float((category[near] == category[:, None]).mean()), chance


def _by_modality(vector_IKM: np.ndarray, names: Sequence[str]) -> list[Part]:
    items, modality = np.nonzero(vector_IKM.any(2))
    chosen = evenly(np.arange(len(items)), MOST_POINTS)
    label_P = np.array(names, dtype=object)[modality[chosen]]
    vector_PM = vector_IKM[items[chosen], modality[chosen]]
    return _figure("texts by modality", vector_PM, label_P, point="A point is a text of an item.", wide=True)


def _by_category(name: str, vector_IM: np.ndarray, category_I: np.ndarray, column: str) -> list[Part]:
    chosen = evenly(np.flatnonzero(vector_IM.any(1) & (category_I != "")), MOST_ITEMS)
    title = f"{name}, by {column}"
    return _figure(title, vector_IM[chosen], category_I[chosen], point="A point is an item.", wide=False)


def _figure(title: str, vector_PM: np.ndarray, label_P: np.ndarray, *, point: str, wide: bool) -> list[Part]:
    """Return points in the colours of their labels, infrequent ones in grey; nothing where too few differ."""
    place_P2 = tsne(vector_PM)
    if place_P2 is None:
        return []
    names = [name for name, _ in Counter(label_P.tolist()).most_common()]
    named = names if len(names) <= COLOURED + 1 else names[:COLOURED]
    groups = {name: label_P == name for name in named}
    if rest := len(names) - len(named):
        groups[f"{rest} others"] = ~np.isin(label_P, named)
    series = [
        LineSeries(name=str(name), x=place_P2[of, 0], y=place_P2[of, 1], style="points", muted=name not in named)
        for name, of in groups.items()
    ]
    ends = (float(place_P2[:, 1].min()), float(place_P2[:, 1].max()))
    margin = 0.05 * (ends[1] - ends[0])
    drawn = Lines(
        title=title, series=series, x_axis="t-SNE 1", y_axis="t-SNE 2", caption=f"{point} {MEANING}", wide=wide,
        low=ends[0] - margin, high=ends[1] + margin,
    )  # fmt: skip
    return [drawn]


def _nearest(every: dict[str, np.ndarray], category_I: np.ndarray, column: str) -> Table:
    rows = []
    for name, vector_IM in every.items():
        share, chance = near_alike(vector_IM, category_I)
        rows.append([name, number(share, 3), number(chance, 3)])
    head = ["texts", f"of the {NEAREST} nearest items share their first of {column}", "by chance"]
    return Table(head=head, rows=rows)
