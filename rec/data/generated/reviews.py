"""Generated reviews with planted clusters: users of a cluster praise the same features in the same words.

A user is of one cluster, which favours a quarter of the features. An item has some features, each of a quality, and is
of a kind. A review is about one of the item's features, drawn by what the cluster favours; its rating follows the
user's and the item's bias, the quality of the feature, and whether the cluster favours it. Its sentence is

    OPENING, the FEATURE of this KIND VERB OPINION : WORD WORD ... WORD CLOSING .

where everything but the opening, of which a cluster has two, follows from cluster, feature, kind and how high the
rating is: the first word is told by a table of (cluster, feature, kind), each further one by the cluster's own
permutation of all words. Permutations take clusters * words * log2(words) bits to know, which a small model has no room
for; that of one cluster takes words * log2(words).

Letters: C clusters, F features, W words, I items, K features of an item, J kinds, N reviews, D words of a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field as Key

from rec.data.generated.shards import generate
from rec.data.generated.words import CLOSINGS, FEATURES, KINDS, OPENINGS, OPINIONS, VERBS, made_up
from rec.data.runner import part_bounds
from rec.data.schema import Events, Field, RawData, Source, Workplace
from rec.seeds import generator
from rec.strict import Strict

PER_ITEM = 8
FAVOUR = 3.0
"""Log-odds by which a review is rather about a favoured feature."""
MEAN, USER_BIAS, ITEM_BIAS, QUALITY, FIT = 3.3, 0.4, 0.4, 0.9, 0.6
ROUNDS = 6
"""Times that pairs are drawn again in the place of repeated ones."""
LEAST = 2
"""Reviews of a user."""


class PlantedReviewsConfig(Strict):
    """Generated reviews whose words follow from planted clusters of users."""

    reviews: int = Key(10_000, ge=1000, le=10_000_000)
    """About as many: a user reviews an item once, and what is drawn again is left out, which is said."""
    users: int = Key(0, ge=0)
    """0 makes one per 20 reviews."""
    items: int = Key(0, ge=0)
    """0 makes one per 100 reviews, at least 100."""
    clusters: int = Key(8, ge=1, le=1000)
    """Planted clusters of users, each with words and favoured features of its own."""
    features: int = Key(48, ge=8, le=len(FEATURES))
    """Features that reviews are about."""
    words: int = Key(512, ge=2, le=1_000_000)
    """Vocabulary of the made-up words that sentences end in."""
    details: int = Key(6, ge=0, le=100)
    """Made-up words of a sentence."""
    strangers: float = Key(0.0, ge=0, le=1)
    """Share of reviews that are written as a cluster drawn at random would."""
    rating_noise: float = Key(0.4, ge=0)
    """Standard deviation, in stars."""
    seed: int = 0
    """Of all that is drawn."""
    shards: int = Key(8, ge=1)
    """Parts that tasks write apart."""

    @property
    def num_users(self) -> int:
        """How many users are generated."""
        return self.users or self.reviews // 20

    @property
    def num_items(self) -> int:
        """How many items are generated."""
        return self.items or max(self.reviews // 100, 100)


class PlantedReviews(Source):
    """Reviews with the cluster of each."""

    Config = PlantedReviewsConfig
    config: PlantedReviewsConfig

    def open(self, place: Workplace) -> RawData:
        """Generate the reviews, shard by shard, and return them with the truth.

        Fields beside those of reviews: `planted_cluster`, in whose words each is written. Tables `planted_favour`
        (C, F) and `planted_successor` (C, W); entities tell users' clusters and biases, items' kinds and features.
        """
        config = self.config
        truth = planted(config)
        place.storage.delete("reviews")
        generate(place, config, shard_tables)
        parts = []
        for name in place.storage.list("reviews"):
            with place.storage.open(f"reviews/{name}") as file:
                parts.append(pq.read_table(file))
        place.storage.delete("reviews")
        table = pa.concat_tables(parts)
        if len(table) < config.reviews:
            place.say(
                f"generated reviews: {len(table):,} of {config.reviews:,} that were asked for, as a user reviews an "
                "item once: where an active user has met the popular items, pairs that were drawn again are left out"
            )
        fields = ("rating", "text", "feature", "opinion", "score", "planted_cluster")
        return RawData(
            records=Events(
                table=table,
                subject=Field("user", "user"),
                fields=(Field("item", "item"), *map(Field, fields)),
                counterpart="item",
                name="generated reviews",
            ),
            entities={"user": _users(config, truth), "item": _items(config, truth)},
            arrays={"planted_favour": truth.favour_CF, "planted_successor": truth.successor_CW},
            synthetic=True,
            generated=True,
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of clusters, users and items; identical wherever it is made from the same config."""

    favour_CF: np.ndarray
    """bool: the features that each cluster favours."""
    successor_CW: np.ndarray
    """int32: the word that follows each."""
    first_CFJ: np.ndarray
    """int32: the first word of a sentence."""
    opinion_CFL: np.ndarray
    """int32: which of the opinions of its level (low, middle, high) a cluster has of a feature."""
    opening_C2: np.ndarray
    verb_C: np.ndarray
    closing_C: np.ndarray
    cluster_U: np.ndarray
    user_bias_U: np.ndarray
    kind_I: np.ndarray
    item_bias_I: np.ndarray
    popularity_I: np.ndarray
    """Running sum of what items are drawn by."""
    feature_IK: np.ndarray
    quality_IK: np.ndarray


def planted(config: PlantedReviewsConfig) -> Truth:
    """Return the truth of a config."""
    rng = generator(config.seed, "planted reviews")
    clusters, features, items = config.clusters, config.features, config.num_items
    favoured = rng.random((clusters, features)).argsort(1)[:, : max(1, features // 4)]
    favour_CF = np.zeros((clusters, features), bool)
    np.put_along_axis(favour_CF, favoured, True, 1)
    every_IF = np.broadcast_to(np.arange(features), (items, features))
    return Truth(
        favour_CF=favour_CF,
        successor_CW=np.stack([rng.permutation(config.words) for _ in range(clusters)]).astype(np.int32),
        first_CFJ=rng.integers(0, config.words, (clusters, features, len(KINDS))).astype(np.int32),
        opinion_CFL=np.stack([rng.integers(0, len(some), (clusters, features)) for some in OPINIONS], 2),
        opening_C2=rng.integers(0, len(OPENINGS), (clusters, 2)),
        verb_C=rng.integers(0, len(VERBS), clusters),
        closing_C=rng.integers(0, len(CLOSINGS), clusters),
        cluster_U=rng.integers(0, clusters, config.num_users).astype(np.int32),
        user_bias_U=USER_BIAS * rng.standard_normal(config.num_users),
        kind_I=rng.integers(0, len(KINDS), items),
        item_bias_I=ITEM_BIAS * rng.standard_normal(items),
        popularity_I=np.cumsum(rng.gamma(1.0, size=items)),
        feature_IK=rng.permuted(every_IF, axis=1)[:, :PER_ITEM].astype(np.int32),
        quality_IK=rng.standard_normal((items, PER_ITEM)),
    )


def _users(config: PlantedReviewsConfig, truth: Truth) -> pa.Table:
    return pa.table(
        {"id": _ids("u", np.arange(config.num_users)), "cluster": truth.cluster_U, "bias": truth.user_bias_U}
    )


def _items(config: PlantedReviewsConfig, truth: Truth) -> pa.Table:
    ids = _ids("i", np.arange(config.num_items))
    title = pc.binary_join_element_wise(pa.array(KINDS).take(pa.array(truth.kind_I)), ids, " ")
    offset = pa.array(np.arange(0, truth.feature_IK.size + 1, PER_ITEM, dtype=np.int32))
    features = pa.array(FEATURES).take(pa.array(truth.feature_IK.ravel()))
    return pa.table(
        {
            "id": ids, "title": title, "bias": truth.item_bias_I,
            "features": pa.ListArray.from_arrays(offset, features),
            "qualities": pa.ListArray.from_arrays(offset, pa.array(truth.quality_IK.ravel())),
        }
    )  # fmt: skip


def _ids(letter: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(letter), pa.array(numbers).cast(pa.string()), "")


def shard_tables(config: PlantedReviewsConfig, shard: int) -> dict[str, pa.Table]:
    """Return the reviews of one shard's users."""
    truth = planted(config)
    rng = generator(config.seed, "reviews", shard)
    first, last = part_bounds(config.num_users, config.shards, shard)
    share = config.reviews * last // config.num_users - config.reviews * first // config.num_users
    if last == first:
        return {}
    user_N, item_N = _pairs(np.arange(first, last), share, truth, rng)
    cluster_N = truth.cluster_U[user_N]
    stranger_N = rng.random(len(user_N)) < config.strangers
    cluster_N = np.where(stranger_N, rng.integers(0, config.clusters, len(user_N)), cluster_N)
    feature_NK = truth.feature_IK[item_N]
    favour_NK = truth.favour_CF[cluster_N[:, None], feature_NK]
    slot_N = (FAVOUR * favour_NK + rng.gumbel(size=favour_NK.shape)).argmax(1)
    row_N = np.arange(len(user_N))
    feature_N = feature_NK[row_N, slot_N]
    liked_N = MEAN + truth.user_bias_U[user_N] + truth.item_bias_I[item_N]
    liked_N += QUALITY * truth.quality_IK[item_N, slot_N] + FIT * favour_NK[row_N, slot_N]
    liked_N += config.rating_noise * rng.standard_normal(len(user_N))
    rating_N = np.clip(np.rint(liked_N), 1, 5)
    level_N = np.digitize(rating_N, [3, 4])
    opening_N = truth.opening_C2[cluster_N, rng.integers(0, 2, len(user_N))]
    opinion = _opinions(truth.opinion_CFL[cluster_N, feature_N, level_N], level_N)
    feature = pa.array(FEATURES).take(pa.array(feature_N))
    columns = {
        "user": _ids("u", user_N), "item": _ids("i", item_N), "rating": pa.array(rating_N, pa.float32()),
        "text": _texts(config, truth, cluster_N, feature_N, item_N, opening_N, feature, opinion),
        "feature": feature, "opinion": opinion, "score": pa.array(level_N - 1, pa.int8()),
        "planted_cluster": pa.array(cluster_N, pa.int32()),
    }  # fmt: skip
    return {"reviews": pa.table(columns)}


def _pairs(users: np.ndarray, count: int, truth: Truth, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return about `count` pairs of users and items, each once, in random order within a user."""
    items = len(truth.popularity_I)
    share_U = rng.gamma(1.0, size=len(users))
    wanted_U = LEAST + rng.multinomial(max(0, count - LEAST * len(users)), share_U / share_U.sum())
    wanted_U = np.minimum(wanted_U, items)
    pair = np.zeros(0, np.int64)
    for _ in range(ROUNDS):
        there_U = np.bincount(pair // items, minlength=len(users))
        user = np.repeat(np.arange(len(users)), wanted_U - there_U)
        if not len(user):
            break
        item = np.searchsorted(truth.popularity_I, rng.random(len(user)) * truth.popularity_I[-1], "right")
        pair = np.unique(np.concatenate([pair, user * items + np.minimum(item, items - 1)]))
    user = pair // items
    order = np.lexsort((rng.random(len(pair)), user))
    return users[user[order]], (pair % items)[order]


def _opinions(place_N: np.ndarray, level_N: np.ndarray) -> pa.Array:
    before = np.cumsum([0, *map(len, OPINIONS)])
    return pa.array([word for some in OPINIONS for word in some]).take(pa.array(before[level_N] + place_N))


def _texts(
    config: PlantedReviewsConfig,
    truth: Truth,
    cluster_N: np.ndarray,
    feature_N: np.ndarray,
    item_N: np.ndarray,
    opening_N: np.ndarray,
    feature: pa.Array,
    opinion: pa.Array,
) -> pa.Array:
    """Return the sentences."""
    kind_N = truth.kind_I[item_N]
    words = pa.array(made_up(config.words))
    parts = [
        pa.array(OPENINGS).take(pa.array(opening_N)), pa.scalar(", the"), feature, pa.scalar("of this"),
        pa.array(KINDS).take(pa.array(kind_N)), pa.array(VERBS).take(pa.array(truth.verb_C[cluster_N])), opinion,
    ]  # fmt: skip
    word_N = truth.first_CFJ[cluster_N, feature_N, kind_N]
    for detail in range(config.details):
        parts += [words.take(pa.array(word_N))] if detail else [pa.scalar(":"), words.take(pa.array(word_N))]
        word_N = truth.successor_CW[cluster_N, word_N]
    return pc.binary_join_element_wise(*parts, pa.array(CLOSINGS).take(pa.array(truth.closing_C[cluster_N])), " ")
