"""What a benchmark is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rec.data.config import DataConfig
from rec.data.generated.catalogue import CatalogueConfig
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess

CATALOGUE, VIEW = "rec.data.generated.catalogue:PlantedCatalogue", "sequences"
ML_1M = CatalogueConfig(users=6040, items=3416, interactions=999_611, modalities=("a",), shards=4)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The data to measure on, how much work some benchmarks do, and who is told how far they are."""

    say: Say
    data: str | None = None
    """Root of a prepared data set; None has one generated."""
    interactions: int
    trials: int
    minutes: float
    images: int
    items: int
    edges: int
    prescriptions: int
    pairs: int
    faults: int
    seed: int
    only: tuple[str, ...] = ()
    """Parts of a benchmark that has some; empty is all."""

    def catalogue(self, folder: str) -> Prepared:
        """Return the data set that is given, else a generated one of ML-1M's size in a folder."""
        if self.data:
            return Prepared.open(self.data, VIEW)
        self.say("making a data set of ML-1M's size")
        config = DataConfig(root=f"{folder}/data", source=CATALOGUE, read=ML_1M)
        return prepare(config, InProcess(), self.say).seen_as(VIEW)
