"""The keys of `[data.graph]`: interactions as a graph, vectors of items by modality, content graphs."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from rec.strict import Strict


class GraphColumns(Strict):
    """Names of the columns of an interactions file."""

    user: str = "userID"
    item: str = "itemID"
    split: str = "x_label"
    """0 training, 1 validation, 2 test; "" draws the split from `split_seed`."""


class GraphConfig(Strict):
    """Where interactions, vectors of items and content graphs come from.

    Files follow MMRec's layout: item numbers from 0 are the rows of every vector file and graph.
    """

    folder: str = ""
    """Where the files below are, unless they name a place of their own."""
    interactions: str
    """Tab-separated with a header: user, item and, where the split is given, part."""
    columns: GraphColumns = GraphColumns()
    features: dict[str, str] = {}
    """Vectors of items by modality (image, text, audio, ...): .npy, (items, width)."""
    graphs: dict[str, str] = {}
    """Content graphs by name, as sparse .npz; a modality with vectors and no graph here gets its nearest neighbours."""
    neighbours: int = Field(10, ge=1)
    """Nearest items by cosine, the item itself not among them."""
    search: Literal["exact", "ivf"] = "exact"
    """Every pair in blocks, or faiss's inverted lists, which miss some neighbours and pay from 10^5 items on."""
    split_seed: int = 0

    def path(self, name: str) -> str:
        """Return where a file is."""
        return name if not self.folder else os.path.join(self.folder, name)
