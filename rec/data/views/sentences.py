"""Sentences: a row per review, for models that write what a user would say of an item, and rate it.

Rows, in the order of the input:

    record               int64, the place of the review among the records, as tables with a row per record have it
    user, item           int64; their raw ids are in the tables `user` and `item` of the data set
    rating               float32
    text                 string, the sentence that is to be written
    feature, opinion     string, what it is about and what it says of it; "" where that is not known
    ...                  every further column of the records with one value each, such as `cluster_id`

Tables of the view:

    user_count.npy         (U,) int64 reviews of training of each user
    item_count.npy         (I,) int64 reviews of training of each item
    user_sparsity.npy      (U,) int8 group of each user by its number: see `sparsity`
    sentence_words.npy     the words of training's texts, those between white space, the most frequent first
    sentence_features.npy  the features of all reviews, in the order of letters
    sentence_opinions.npy  the opinions of all reviews, in the order of letters; empty where records have none
    rating_scale.npy       (2,) float32 the smallest and the largest rating of all reviews
    rating_level.npy       (R,) float32 every rating that was given in any review, ascending
    rating_count.npy       (R,) int64 reviews of training with each

What is a list of texts is the bytes of its JSON, uint8: `texts_of` reads it.

What a phase of training learns about every review, such as its cluster, is an array with a row per record: `record` of
a row is its place there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.views.view import SPLITS, TRAIN, Making, View
from rec.errors import DataError
from rec.json_text import json_text

TYPES = {"user": pa.int64(), "item": pa.int64(), "rating": pa.float32(), "text": pa.string(), "feature": pa.string()}
"""Columns that records must have."""
OPINION = "opinion"
LEFT_OUT = ("row", "part", "time")
SPARSITY_GROUPS = ("tst1", "tst2", "tst3", "tst4", "tst5", "zero-shot")
"""Names of the groups: of users with the fewest reviews of training, to the most; of users without any."""


class SentencesView(View):
    """Rows: user, item, rating, text, feature, opinion, and what else records tell."""

    name = "sentences"

    def make(self, making: Making) -> None:
        """Write the rows of every split, and the groups of users.

        Raises:
            DataError: the records are no reviews.
        """
        shape = making.manifest.get("events", {}).get("entities", {})
        for name in ("user", "item"):
            if shape.get(name) != name:
                raise DataError(
                    f"{making.folder}: needs records that are reviews: events with fields {', '.join(TYPES)}, user and "
                    f"item with members of the entities of that name; the data set has {shape or 'no events'}"
                )
        table = making.records()
        if lacking := [name for name in TYPES if name not in table.column_names]:
            raise DataError(
                f"{making.folder}: records without {lacking[0]!r}; there are {', '.join(table.column_names)}"
            )
        part, order = table["part"].to_numpy(), pc.sort_indices(table["row"]).to_numpy()
        for name in ("user", "item"):
            members = int(making.manifest["entities"][name]["count"])
            count_M = np.bincount(table[name].to_numpy()[part == TRAIN], minlength=members)
            making.array(f"{name}_count", count_M.astype(np.int64))
            if name == "user":
                making.array("user_sparsity", sparsity(count_M))
        rows = _rows(table)
        making.array("sentence_words", as_table(words_by_count(rows["text"].filter(pa.array(part == TRAIN)))))
        for column in ("feature", OPINION):
            names = sorted(name for name in rows[column].unique().to_pylist() if name)
            making.array(f"sentence_{column}s", as_table(names))
        ends = pc.min_max(rows["rating"]).as_py()
        making.array("rating_scale", np.array([ends["min"], ends["max"]], np.float32))
        level_R, place_N = np.unique(rows["rating"].to_numpy(), return_inverse=True)
        making.array("rating_level", level_R)
        making.array("rating_count", np.bincount(place_N[part == TRAIN], minlength=len(level_R)).astype(np.int64))
        for number, split in enumerate(SPLITS):
            making.rows(split, rows.take(pa.array(order[part[order] == number])), making.shard_rows)


def _rows(table: pa.Table) -> pa.Table:
    columns = {"record": pa.array(np.arange(len(table)), pa.int64())}
    columns |= {name: table[name].cast(kind) for name, kind in TYPES.items()}
    opinion = table[OPINION] if OPINION in table.column_names else pa.nulls(len(table))
    columns[OPINION] = opinion.cast(pa.string())
    for name in ("text", "feature", OPINION):
        columns[name] = pc.fill_null(columns[name], "")
    for name in table.column_names:
        if name not in columns and name not in LEFT_OUT and not pa.types.is_nested(table[name].type):
            columns[name] = table[name]
    return pa.table(columns)


def words_by_count(texts: pa.ChunkedArray) -> list[str]:
    """Return the words of some texts, those between white space, the most frequent first, then by letters.

    "b a", "c b" give b, a, c.
    """
    found = pc.list_flatten(pc.utf8_split_whitespace(texts)).value_counts()
    count_by_word = dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))
    return sorted((word for word in count_by_word if word), key=lambda word: (-count_by_word[word], word))


def as_table(texts: Iterable[str]) -> np.ndarray:
    """Return a list of texts as a table that `texts_of` reads, uint8."""
    return np.frombuffer(json_text(list(texts)).encode(), np.uint8)


def texts_of(table: np.ndarray) -> list[str]:
    """Return the texts of a table that holds a list of them, such as `sentence_words`."""
    found: list[str] = json.loads(np.asarray(table, np.uint8).tobytes())
    return found


def sparsity(count_U: np.ndarray) -> np.ndarray:
    """Return the group of each user by its number of reviews of training, as a place in `SPARSITY_GROUPS`, int8 (U,).

    Users are ranked by that number, equal ones by the order of their ids, and cut into five groups whose sizes differ
    by one at most. Counts 3, 1, 0, 2, 9, 5 are of groups 2, 0, 5, 1, 4, 3.

    Source: XRec (EMNLP 2024), five groups of equal size; which end comes first and how ties are broken is not told
    there.
    """
    group_U = np.full(len(count_U), len(SPARSITY_GROUPS) - 1, np.int8)
    ranked = np.argsort(count_U, kind="stable")
    ranked = ranked[count_U[ranked] > 0]
    for number, users in enumerate(np.array_split(ranked, len(SPARSITY_GROUPS) - 1)):
        group_U[users] = number
    return group_U
