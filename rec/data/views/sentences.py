"""Sentences: a row per review, for models that write what a user would say of an item, and rate it.

Rows, in the order of the input:

    record               int64, the place of the review among the records, as tables with a row per record have it
    user, item           int64; their raw ids are in the tables `user` and `item` of the data set
    rating               float32
    text                 string, the sentence that is to be written
    feature, opinion     string, what it is about and what it says of it; "" where that is not known
    ...                  every further column of the records with one value each, such as `cluster_id`

Tables of the view:

    user_count.npy       (U,) int64 reviews of training of each user
    user_sparsity.npy    (U,) int8 group of each user by that number: see `sparsity`
    item_count.npy       (I,) int64 reviews of training of each item
    rating_level.npy     (R,) float32 every rating that was given, in any split, ascending
    rating_count.npy     (R,) int64 reviews of training with each

What a phase of training learns about every review, such as its cluster, is an array with a row per record: `record` of
a row is its place there.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.views.view import SPLITS, TRAIN, Making, View
from rec.errors import DataError

TYPES = {"user": pa.int64(), "item": pa.int64(), "rating": pa.float32(), "text": pa.string(), "feature": pa.string()}
"""Columns that records must have."""
OPINION = "opinion"
LEFT_OUT = ("row", "part", "time")
SPARSITY_GROUPS = ("tst1", "tst2", "tst3", "tst4", "tst5", "zero-shot")
"""Names of the groups: of users with the fewest reviews of training, to the most; of users without any."""


class Sentences(View):
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
        count = {name: _counted(making, table[name].to_numpy()[part == TRAIN], name) for name in ("user", "item")}
        making.array("user_count", count["user"])
        making.array("user_sparsity", sparsity(count["user"]))
        making.array("item_count", count["item"])
        level_R, place_N = np.unique(table["rating"].cast(pa.float32()).to_numpy(), return_inverse=True)
        making.array("rating_level", level_R)
        making.array("rating_count", np.bincount(place_N[part == TRAIN], minlength=len(level_R)).astype(np.int64))
        rows = _rows(table)
        for number, split in enumerate(SPLITS):
            making.rows(split, rows.take(pa.array(order[part[order] == number])), making.shard_rows)


def _counted(making: Making, index_N: np.ndarray, entity: str) -> np.ndarray:
    """Return how often each member of an entity is named, int64."""
    return np.bincount(index_N, minlength=int(making.manifest["entities"][entity]["count"])).astype(np.int64)


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
