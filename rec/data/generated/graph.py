"""A generated graph with planted truth: every user follows one topic of one modality, and popular items besides.

Items have a topic per modality, told by their vectors, and a popularity of Zipf's form. An interaction is with an item
of the user's topic (four in five) or with any item, in both cases by popularity.

Letters: U users, I items, E interactions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import Field

from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.writing import write_array
from rec.seeds import generator
from rec.strict import Strict

TASTE = 0.8
NOISE = 0.5
LEAST = 5
"""Interactions of a user at least, before repeated ones are dropped."""


class PlantedGraphConfig(Strict):
    """A generated graph whose users truly follow one topic of one modality."""

    users: int = Field(2000, ge=10)
    """How many users there are."""
    items: int = Field(1000, ge=20)
    """How many items there are."""
    interactions: int = Field(20_000, ge=100, le=100_000_000)
    """About as many: repeated ones count once."""
    modalities: tuple[str, ...] = ("image", "text")
    """Modalities of items, each with vectors."""
    width: int = Field(32, ge=1)
    """Of the vectors."""
    seed: int = 0
    """Of all that is drawn."""


class PlantedGraph(Source):
    """Users who follow one topic of one modality."""

    Config = PlantedGraphConfig
    config: PlantedGraphConfig

    def open(self, place: Workplace) -> RawData:
        """Generate the tables and return where they are."""
        graph, config = planted_graph(self.config), self.config
        groups = np.array(config.modalities)[graph.followed_U]
        text = {name: pa.array(number.astype(str)) for name, number in (("user", graph.user_E), ("item", graph.item_E))}
        users = {"id": np.arange(config.users).astype(str), "group": groups}
        for name, vector in graph.features.items():
            write_array(place.storage, f"feature_{name}", vector)
        return RawData(
            records=RecordTable(table=place.write("records", pa.table(text))),
            users=EntityTable(table=place.write("users", pa.table(users)), id="id", group="group"),
            items=EntityTable(
                table=place.write("items", pa.table({"id": np.arange(config.items).astype(str)})), id="id"
            ),
            unseen=("user", "item"),
            features={name: place.storage.uri_of(f"feature_{name}.npy") for name in graph.features},
            synthetic=True,
            generated=True,
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """Interactions sorted by user, vectors, and the truth behind them."""

    user_E: np.ndarray
    item_E: np.ndarray
    features: dict[str, np.ndarray]
    followed_U: np.ndarray
    """Number of the modality that each user follows."""


def planted_graph(config: PlantedGraphConfig) -> Drawn:
    """Return the graph of this config; the same wherever it is made."""
    rng = generator(config.seed, "graph")
    topics = max(4, int(config.items**0.5) // 2)
    topic_MI = rng.integers(0, topics, (len(config.modalities), config.items))
    popularity_I = 1 / (rng.permutation(config.items) + 10.0)
    followed_U, topic_U = rng.integers(0, len(config.modalities), config.users), rng.integers(0, topics, config.users)
    share_U = rng.gamma(1.0, size=config.users)
    extra_U = rng.multinomial(max(0, config.interactions - LEAST * config.users), share_U / share_U.sum())
    user_E = np.repeat(np.arange(config.users), LEAST + extra_U)
    item_E = _drawn(np.zeros(len(user_E), np.int64), np.zeros(config.items, np.int64), popularity_I, rng)
    follows_E = rng.random(len(user_E)) < TASTE
    for modality in range(len(config.modalities)):
        chosen = np.flatnonzero(follows_E & (followed_U[user_E] == modality))
        chosen = chosen[np.isin(topic_U[user_E[chosen]], topic_MI[modality])]
        item_E[chosen] = _drawn(topic_U[user_E[chosen]], topic_MI[modality], popularity_I, rng)
    pair = np.unique(user_E * config.items + item_E)
    features = {}
    for modality, name in enumerate(config.modalities):
        center = rng.standard_normal((topics, config.width))
        noise = NOISE * rng.standard_normal((config.items, config.width))
        features[name] = (center[topic_MI[modality]] + noise).astype(np.float32)
    return Drawn(pair // config.items, pair % config.items, features, followed_U)


def _drawn(group_E: np.ndarray, group_I: np.ndarray, weight_I: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an item of each group asked for, drawn by weight; every group asked for has an item."""
    order = np.argsort(group_I, kind="stable")
    end = np.cumsum(weight_I[order])
    first = np.searchsorted(group_I[order], group_E, "left")
    last = np.searchsorted(group_I[order], group_E, "right") - 1
    low = np.where(first > 0, end[first - 1], 0.0)
    place = np.searchsorted(end, low + rng.random(len(group_E)) * (end[last] - low), "right")
    drawn: np.ndarray = order[np.clip(place, first, last)]
    return drawn
