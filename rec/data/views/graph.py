"""Graph: a row per interaction in training, a row per user in evaluation, and the interactions as edges.

    train  one row per record: user, no history, the item
    val    one row per user: training items -> validation items
    test   one row per user: what is known -> test items

Tables of the view:

    user_count.npy            (U,) int64 training interactions of each user
    edge_train.npy            (E, 2) int32 user and item of every training interaction, user by user
    edge_by_item_user.npy     (E,) int32 users of the same interactions, item by item ...
    edge_by_item_place.npy    (E,) int64 ... and their places in edge_train
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rec.data.views.view import SPLITS, TRAIN, Making, View, numbers, user_rows
from rec.seeds import generator

ROWS_PER_FILE = 1 << 18


class GraphView(View):
    """Rows: user, history, target; in training every interaction by itself."""

    name = "graph"

    def make(self, making: Making) -> None:
        """Write the rows of every split, and the edges."""
        user, item, part = numbers(making.records(["user", "item", "part"]), "user", "item", "part")
        train = part == TRAIN
        making.rows("train", _interactions(user[train], item[train].astype(np.int32)), ROWS_PER_FILE)
        for split in SPLITS[1:]:
            making.rows(split, user_rows(user, item, part, split, making.manifest), making.shard_rows)
        user, item = user[train], item[train].astype(np.int32)
        num_users = int(making.manifest["entities"]["user"]["count"])
        making.array("user_count", np.bincount(user, minlength=num_users).astype(np.int64))
        making.array("edge_train", np.stack([user.astype(np.int32), item], 1))
        place = np.argsort(item, kind="stable")
        making.array("edge_by_item_user", user[place].astype(np.int32))
        making.array("edge_by_item_place", place)


def _interactions(user: np.ndarray, item: np.ndarray) -> pa.Table:
    """Return a row per interaction, shuffled once."""
    order = generator(0, "graph rows").permutation(len(user))
    target = pa.ListArray.from_arrays(pa.array(np.arange(len(user) + 1), pa.int32()), pa.array(item[order]))
    nothing = pa.ListArray.from_arrays(pa.array(np.zeros(len(user) + 1, np.int32)), pa.array([], pa.int32()))
    return pa.table({"user": pa.array(user[order], pa.int64()), "history": nothing, "target": target})
