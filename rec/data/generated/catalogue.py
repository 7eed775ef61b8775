"""A generated catalogue with planted preferences: every user truly follows one or two modalities of the items.

Each item has one topic per modality, a text per modality written from that topic's words, and a picture drawn from
its first two topics. A user follows one or two modalities and has one preferred topic in each; some users' topics
drift once, and with `switch` some follow other modalities from the middle of their history on. Events are drawn
without repeats, with log-odds = POPULARITY * item popularity + MATCH * (share of the followed modalities whose topic
matches). A model that recovers which modalities users follow has found the truth.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from rec.data.generated.shards import generate
from rec.data.runner import part_bounds
from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.tables import ForeignTable
from rec.seeds import generator
from rec.strict import Strict

FOLLOWED, FOLLOWED_LATER = "followed", "followed_later"
"""Columns of users: which modalities each follows, and which in the second half where some switch."""
POPULARITY = 1.0
MATCH = 5.0
DRIFT = 0.3
WORDS_PER_TOPIC = 12
WORDS_PER_TEXT = 9
USERS_PER_DRAW = 512


class CatalogueConfig(Strict):
    """A generated catalogue whose users truly follow one or two modalities."""

    interactions: int = Field(100_000, ge=1_000, le=100_000_000)
    """Events over all users."""
    users: int = Field(0, ge=0)
    """0 makes one user per 50 events."""
    items: int = Field(0, ge=0)
    """0 makes one item per 200 events, at least 100 and at most 5,000."""
    modalities: tuple[str, ...] = ("narrative", "visual", "audio", "pace", "direction", "acting")
    """Texts of an item; each says one of the topics of its modality."""
    topics: int = Field(12, ge=2)
    """Values that one modality of an item can take."""
    switch: float = Field(0.0, ge=0, le=1)
    """Share of users who follow other modalities in the second half of their history; needs four modalities."""
    seed: int = 0
    """Of all that is drawn."""
    shards: int = Field(8, ge=1)
    """Parts that tasks write apart."""

    @model_validator(mode="after")
    def _others_are_left(self) -> Self:
        if self.switch and len(self.modalities) < 4:
            raise ValueError(f"switch: expected 4 modalities or more, two to follow and two others: {self.modalities}")
        return self

    @property
    def num_users(self) -> int:
        """How many users are generated."""
        return self.users or self.interactions // 50

    @property
    def num_items(self) -> int:
        """How many items are generated."""
        return self.items or min(max(self.interactions // 200, 100), 5_000)


class PlantedCatalogue(Source):
    """Users who follow modalities of items."""

    Config = CatalogueConfig
    config: CatalogueConfig

    def open(self, place: Workplace) -> RawData:
        """Generate the tables, shard by shard, and return where they are."""
        config, storage = self.config, place.storage
        storage.delete("")
        items = place.write("items", item_rows(config))
        followed = (FOLLOWED, FOLLOWED_LATER) if config.switch else (FOLLOWED,)
        generate(place, config, shard_tables)
        return RawData(
            records=RecordTable(table=ForeignTable((storage.uri_of("events"),)), time="time"),
            users=EntityTable(table=ForeignTable((storage.uri_of("users"),)), id="user", others=followed),
            items=EntityTable(table=items, id="item", title="title", image="image", others=config.modalities),
            generated=True,
        )


def shard_tables(config: CatalogueConfig, shard: int) -> dict[str, pa.Table]:
    """Return one shard's events and its users' truth."""
    return dict(zip(("events", "users"), shard_rows(config, shard), strict=True))


@dataclass(frozen=True, slots=True)
class CatalogueTruth:
    """What is true of the items; identical wherever it is made from the same config."""

    topic_IK: np.ndarray
    popularity_I: np.ndarray


def catalogue(config: CatalogueConfig) -> CatalogueTruth:
    """Return the items' topics and popularity (standard normal)."""
    rng = generator(config.seed, "catalogue")
    topics = rng.integers(0, config.topics, (config.num_items, len(config.modalities)))
    return CatalogueTruth(topics, rng.standard_normal(config.num_items))


def item_rows(config: CatalogueConfig) -> pa.Table:
    """Return the item table: item, title, one text column per modality, and a PNG picture."""
    truth = catalogue(config)
    rng = generator(config.seed, "texts")
    columns: dict[str, list[object]] = {name: [] for name in ("item", "title", "image", *config.modalities)}
    for i, topics in enumerate(truth.topic_IK):
        columns["item"].append(f"i{i + 1}")
        columns["title"].append(f"Item {i + 1}")
        columns["image"].append(picture(int(topics[0]), int(topics[1 % len(topics)]), config.topics))
        for modality, topic in zip(config.modalities, topics, strict=True):
            words = rng.integers(0, WORDS_PER_TOPIC, WORDS_PER_TEXT)
            columns[modality].append(" ".join(f"{modality}{topic}w{word}" for word in words))
    return pa.table(columns)


def picture(colour: int, shape: int, topics: int, size: int = 32) -> bytes:
    """Return a PNG whose colour and number of corners tell two topics."""
    import colorsys

    from PIL import Image, ImageDraw

    hue = colorsys.hsv_to_rgb(colour / topics, 0.8, 0.9)
    image = Image.new("RGB", (size, size), "white")
    fill = tuple(int(255 * c) for c in hue)
    ImageDraw.Draw(image).regular_polygon((size / 2, size / 2, size / 2 - 2), shape + 3, fill=fill)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def shard_rows(config: CatalogueConfig, shard: int) -> tuple[pa.Table, pa.Table]:
    """Return one shard's events (user, item, time) and its users' truth (user, followed)."""
    truth = catalogue(config)
    rng = generator(config.seed, "shard", shard)
    first, last = part_bounds(config.num_users, config.shards, shard)
    events, followed_parts, later_parts = [], [], []
    switches = generator(config.seed, "switches", shard)
    for start in range(first, last, USERS_PER_DRAW):
        users = np.arange(start, min(start + USERS_PER_DRAW, last))
        followed_UK = _followed(len(users), len(config.modalities), rng)
        length = _lengths(config, users)
        later_UK = _followed_later(config, followed_UK, switches)
        events.append(_draw(config, truth, users, followed_UK, later_UK, length, rng))
        followed_parts.append(followed_UK)
        later_parts.append(later_UK)
    people: dict[str, list[Any]] = {"user": [f"u{u + 1}" for u in range(first, last)]}
    people[FOLLOWED] = np.concatenate(followed_parts).astype(int).tolist() if followed_parts else []
    if config.switch:
        people[FOLLOWED_LATER] = np.concatenate(later_parts).astype(int).tolist() if later_parts else []
    return pa.concat_tables(events), pa.table(people)


def _followed_later(config: CatalogueConfig, followed_UK: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which modalities each user follows in the second half: as before, or as many of the others."""
    if not config.switch:
        return followed_UK
    count, modalities = followed_UK.shape
    # Those that were followed come last, the others in any order.
    order = (rng.random((count, modalities)) + followed_UK).argsort(axis=1)
    other_UK = np.zeros_like(followed_UK)
    np.put_along_axis(other_UK, order, np.arange(modalities) < followed_UK.sum(1, keepdims=True), axis=1)
    switches = rng.random((count, 1)) < config.switch
    return np.where(switches, other_UK, followed_UK)


def _followed(count: int, modalities: int, rng: np.random.Generator) -> np.ndarray:
    """Return which modalities each user follows, (count, modalities) bool: one or two each."""
    order = rng.random((count, modalities)).argsort(axis=1)
    both = rng.random(count) < 0.5
    followed = np.zeros((count, modalities), dtype=bool)
    rows = np.arange(count)
    followed[rows, order[:, 0]] = True
    followed[rows[both], order[both, 1 % modalities]] = True
    return followed


def _lengths(config: CatalogueConfig, users: np.ndarray) -> np.ndarray:
    """Return how many events each user has; they add up to `interactions` where items suffice."""
    total = max(config.interactions, 4 * config.num_users)
    # Cumulative rounding of a deterministic wave between half and one and a half times the mean.
    weight = 1 + 0.5 * np.sin(np.arange(config.num_users + 1) * 2.399963)
    edge = np.floor(np.concatenate([[0], np.cumsum(weight[:-1])]) / weight[:-1].sum() * total).astype(np.int64)
    length: np.ndarray = np.clip(np.diff(edge), 4, config.num_items // 2)[users]
    return length


def _draw(
    config: CatalogueConfig,
    truth: CatalogueTruth,
    users: np.ndarray,
    followed_UK: np.ndarray,
    followed_later_UK: np.ndarray,
    length: np.ndarray,
    rng: np.random.Generator,
) -> pa.Table:
    """Return the events of some users: Gumbel top-n draws without repeats, before and after a drift of taste."""
    preferred_UK = rng.integers(0, config.topics, followed_UK.shape)
    later_UK = np.where(
        rng.random((len(users), 1)) < DRIFT, rng.integers(0, config.topics, followed_UK.shape), preferred_UK
    )
    stays = (later_UK == preferred_UK).all(1) & (followed_later_UK == followed_UK).all(1)
    cut = np.where(stays, length, length // 2)
    taken = np.zeros((len(users), config.num_items), dtype=bool)
    halves = []
    for topic_UK, follows_UK, count in (
        (preferred_UK, followed_UK, cut), (later_UK, followed_later_UK, length - cut)
    ):  # fmt: skip
        noise_UI = rng.standard_exponential(taken.shape, dtype=np.float32)
        # Most tastes do not drift: the later half draws for few.
        some = np.flatnonzero(count)
        best = np.zeros((len(users), int(count.max())), np.int64)
        if len(some):
            logit_SI = np.broadcast_to(
                (POPULARITY * truth.popularity_I).astype(np.float32), (len(some), taken.shape[1])
            )
            logit_SI = logit_SI.copy()
            share_SK = (MATCH * follows_UK / follows_UK.sum(1, keepdims=True)).astype(np.float32)[some]
            for k in range(follows_UK.shape[1]):
                logit_SI += share_SK[:, k, None] * (truth.topic_IK[None, :, k] == topic_UK[some, k, None])
            logit_SI -= np.log(np.maximum(noise_UI[some], 1e-30))
            logit_SI[taken[some]] = -np.inf
            best[some] = best_first(logit_SI, best.shape[1])
        chosen = np.arange(best.shape[1]) < count[:, None]
        taken[np.repeat(np.arange(len(users)), count), best[chosen]] = True
        halves.append((best, count))
    rows = []
    for u in range(len(users)):
        parts = [rng.permutation(best[u, : count[u]]) for best, count in halves]
        rows.append(np.concatenate(parts))
    item = np.concatenate(rows)
    time = np.concatenate([np.arange(len(row)) for row in rows])
    user = np.repeat(users + 1, [len(row) for row in rows])
    return pa.table(
        {
            "user": np.char.add("u", user.astype(str)),
            "item": np.char.add("i", (item + 1).astype(str)),
            "time": pa.array(time, pa.int64()),
        }
    )


def best_first(value_RI: np.ndarray, most: int) -> np.ndarray:
    """Return the places of each row's `most` highest values, highest first, (R, most)."""
    least_R = np.partition(value_RI, -most, axis=1)[:, -most]
    # A threshold is found many times faster than places are; rows in which values are equal have no single answer.
    row, place = np.nonzero(value_RI >= least_R[:, None])
    best = np.zeros((len(value_RI), most), np.int64)
    count_R = np.bincount(row, minlength=len(value_RI))
    clear = count_R == most
    best[clear] = place[clear[row]].reshape(-1, most)
    found = np.take_along_axis(value_RI, best, 1)
    order = np.argsort(-found, axis=1)
    best, found = np.take_along_axis(best, order, 1), np.take_along_axis(found, order, 1)
    tied = ~clear | (found[:, 1:] == found[:, :-1]).any(1)
    if tied.any():
        value_TI = value_RI[tied]
        some = np.argpartition(-value_TI, most - 1, axis=1)[:, :most]
        best[tied] = np.take_along_axis(some, np.argsort(-np.take_along_axis(value_TI, some, 1), axis=1), 1)
    return best
