"""Pairs: a row per user with what is known and what is relevant, for models that score (user, item) pairs.

train  nothing known          -> training records
val    training records       -> validation records
test   training, validation   -> test records
"""

from __future__ import annotations

from rec.data.views.view import SPLITS, Making, View, numbers, user_rows
from rec.seeds import derive, generator


class PairsView(View):
    """Rows: user, history, target; a user's items in the order of the records."""

    name = "pairs"

    def make(self, making: Making) -> None:
        """Write the rows of every split."""
        user, item, part = numbers(making.records(["user", "item", "part"]), "user", "item", "part")
        for split in SPLITS:
            table = user_rows(user, item, part, split, making.manifest)
            if split == "train":  # files hold neighbours; shuffled once, so that users of a file differ
                table = table.take(generator(derive(0, "rows"), split).permutation(len(table)))
            making.rows(split, table, making.shard_rows)
