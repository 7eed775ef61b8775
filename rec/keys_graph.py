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


class PlantedGraphConfig(Strict):
    """A generated graph whose users truly follow one topic of one modality."""

    users: int = Field(2000, ge=10)
    items: int = Field(1000, ge=20)
    interactions: int = Field(20_000, ge=100, le=100_000_000)
    """About as many: repeated ones count once."""
    modalities: tuple[str, ...] = ("image", "text")
    width: int = Field(32, ge=1)
    """Of the vectors."""
    seed: int = 0


class GraphConfig(Strict):
    """Where interactions, vectors of items and content graphs come from.

    Files follow MMRec's layout: item numbers from 0 are the rows of every vector file and graph.
    """

    folder: str = ""
    """Where the files below are, unless they name a place of their own."""
    prepared: str = ""
    """A data set made from `[data.pairs]`: all its pairs, and the items' frozen vectors named in `features`, as
    `{text = "", image = ""}`."""
    required: tuple[str, ...] = ()
    """Modalities without which items of it are left out."""
    minimum_count: int = Field(0, ge=0)
    """Users and items of it with fewer interactions are left out, again and again."""
    interactions: str = ""
    """"" generates a graph. Tab-separated with a header: user, item and, where the split is given, part."""
    columns: GraphColumns = GraphColumns()
    features: dict[str, str] = {}
    """Vectors of items by modality (image, text, audio, ...): .npy, (items, width)."""
    feature_length: Literal["given", "unit"] = "given"
    """Vectors as they are, or each divided by its length; those of zeros stay."""
    graphs: dict[str, str] = {}
    """Content graphs by name, as sparse .npz; a modality with vectors and no graph here gets its nearest neighbours."""
    neighbours: int = Field(10, ge=1)
    """Nearest items by cosine, the item itself not among them."""
    search: Literal["exact", "ivf"] = "exact"
    """Every pair in blocks, or faiss's inverted lists, which miss some neighbours and pay from 10^5 items on."""
    split_seed: int = 0
    planted: PlantedGraphConfig = PlantedGraphConfig()

    def path(self, name: str) -> str:
        """Return where a file is."""
        return name if not self.folder else os.path.join(self.folder, name)
