"""A generated catalogue of groups whose rules contradict each other: what follows a topic depends on the user's group.

Each item has one topic, and each group of users an order of all topics, a cycle of its own. A user begins with one of
the group's few openers; every further item is, with probability FOLLOW, of the topic that comes after the last item's
in the group's order, else of any topic; within a topic items are drawn by popularity, none twice. So the last item
alone tells nothing of the next topic over all groups, and a model has to hold groups x topics rules: what mixtures of
experts are for. Users' `group` is the truth.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from rec.data.generated.shards import generate
from rec.data.runner import part_bounds
from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.tables import ForeignTable
from rec.seeds import generator
from rec.strict import Strict

FOLLOW = 0.9
POPULARITY = 1.0
"""Standard deviation of log-popularity."""
OPENERS = 4
"""Items of a group that its users begin with."""
USERS_PER_DRAW = 4096


class OrdersConfig(Strict):
    """A generated catalogue whose users follow their group's order of topics."""

    interactions: int = Field(1_000_000, ge=1_000, le=100_000_000)
    """Events over all users."""
    events: int = Field(50, ge=4)
    """Of a user on average: from half as many to half as many again, evenly."""
    items: int = Field(2_000, ge=100)
    """Of all topics together; each has as many, or one more."""
    topics: int = Field(50, ge=2)
    """Topics of items."""
    groups: int = Field(16, ge=1)
    """Groups of users, each with an order of the topics."""
    seed: int = 0
    """Of all that is drawn."""
    shards: int = Field(8, ge=1)
    """Parts that tasks write apart."""

    @model_validator(mode="after")
    def _there_is_enough(self) -> OrdersConfig:
        if self.longest > self.items // 2 or self.items < 2 * self.topics:
            raise ValueError(f"items: expected at least twice the events and the topics, got {self.items:,}")
        if self.groups * OPENERS > self.items:
            raise ValueError(f"groups: {OPENERS} openers each, of {self.items:,} items, got {self.groups:,}")
        return self

    @property
    def longest(self) -> int:
        """Most events of a user."""
        return self.events + self.events // 2

    @property
    def num_users(self) -> int:
        """How many users are generated."""
        return max(self.interactions // self.events, self.shards)


class PlantedOrders(Source):
    """Users whose groups follow orders of topics that contradict each other."""

    Config = OrdersConfig
    config: OrdersConfig

    def open(self, place: Workplace) -> RawData:
        """Generate the tables, shard by shard, and return where they are."""
        config, storage = self.config, place.storage
        storage.delete("")
        numbers = np.arange(config.items)
        items = place.write(
            "items",
            pa.table(
                {
                    "item": [f"i{n + 1}" for n in numbers],
                    "title": [f"Item {n + 1}" for n in numbers],
                    "topic": [f"topic{topic}" for topic in topic_of(numbers, config)],
                }
            ),
        )
        generate(place, config, shard_tables)
        return RawData(
            records=RecordTable(table=ForeignTable((storage.uri_of("events"),)), time="time"),
            users=EntityTable(table=ForeignTable((storage.uri_of("users"),)), id="user", others=("group",)),
            items=EntityTable(table=items, id="item", title="title", others=("topic",)),
            generated=True,
        )


def topic_of(item: np.ndarray, config: OrdersConfig) -> np.ndarray:
    """Return the topics of items (from 0)."""
    return item % config.topics


def following(config: OrdersConfig) -> np.ndarray:
    """Return the topic that follows each topic in each group's order, (G, T): one cycle through all topics."""
    rng = generator(config.seed, "orders")
    order_GT = rng.permuted(np.tile(np.arange(config.topics), (config.groups, 1)), axis=1)
    next_GT = np.empty_like(order_GT)
    np.put_along_axis(next_GT, order_GT, np.roll(order_GT, -1, axis=1), axis=1)
    return next_GT


def popularity(config: OrdersConfig) -> np.ndarray:
    """Return the log-popularity of items, (I,)."""
    drawn: np.ndarray = POPULARITY * generator(config.seed, "popularity").standard_normal(config.items)
    return drawn


def openers(config: OrdersConfig) -> np.ndarray:
    """Return the items that users of each group begin with, (G, OPENERS), none of two groups."""
    chosen = generator(config.seed, "openers").permutation(config.items)[: config.groups * OPENERS]
    return chosen.reshape(config.groups, OPENERS)


def shard_tables(config: OrdersConfig, shard: int) -> dict[str, pa.Table]:
    """Return one shard's events (user, item, time) and its users (user, group)."""
    first, last = part_bounds(config.num_users, config.shards, shard)
    rng = generator(config.seed, "shard", shard)
    group_U = rng.integers(0, config.groups, last - first)
    items = [
        _draw(config, group_U[start : start + USERS_PER_DRAW], rng) for start in range(0, last - first, USERS_PER_DRAW)
    ]
    item_UL = np.concatenate(items) if items else np.zeros((0, config.longest), np.int64)
    # Users of one length would have their openers at one place: what stands there at validation was never learned.
    half = config.events // 2
    length_U = config.events + rng.integers(-half, half, last - first, endpoint=True)
    has_UL = np.arange(config.longest) < length_U[:, None]
    name_U = np.char.add("u", (np.arange(first, last) + 1).astype(str))
    return {
        "events": pa.table(
            {
                "user": np.repeat(name_U, length_U),
                "item": np.char.add("i", (item_UL[has_UL] + 1).astype(str)),
                "time": np.nonzero(has_UL)[1],
            }
        ),
        "users": pa.table({"user": name_U, "group": [f"group {group}" for group in group_U]}),
    }


def _draw(config: OrdersConfig, group_U: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the items of some users, as many as the longest has, (U, L), by Gumbel draws within topics."""
    users, next_GT, log_popularity_I = np.arange(len(group_U)), following(config), popularity(config)
    # Items of topic t are t, t + T, t + 2T, ...; the last few columns hold no item where topics have one less.
    item_TQ = np.arange(-(-config.items // config.topics) * config.topics).reshape(-1, config.topics).T
    exists_TQ = item_TQ < config.items
    item_TQ = np.minimum(item_TQ, config.items - 1)
    taken_UI = np.zeros((len(group_U), config.items), bool)
    chosen_UL = np.empty((len(group_U), config.longest), np.int64)
    chosen_UL[:, 0] = openers(config)[group_U, rng.integers(0, OPENERS, len(group_U))]
    for at in range(1, config.longest):
        taken_UI[users, chosen_UL[:, at - 1]] = True
        follows_U = rng.random(len(group_U)) < FOLLOW
        any_U = rng.integers(0, config.topics, len(group_U))
        topic_U = np.where(follows_U, next_GT[group_U, topic_of(chosen_UL[:, at - 1], config)], any_U)
        while True:
            item_UQ = item_TQ[topic_U]
            free_UQ = exists_TQ[topic_U] & ~taken_UI[users[:, None], item_UQ]
            if len(none := np.flatnonzero(~free_UQ.any(1))) == 0:
                break
            topic_U[none] = rng.integers(0, config.topics, len(none))  # nothing of it is new to the user: another one
        key_UQ = log_popularity_I[item_UQ] + rng.gumbel(size=item_UQ.shape)
        best_U = np.where(free_UQ, key_UQ, -np.inf).argmax(1)
        chosen_UL[:, at] = item_UQ[users, best_U]
    return chosen_UL
