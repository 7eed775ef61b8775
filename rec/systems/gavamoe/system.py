"""GaVaMoE: ratings and written reasons, by gates that clusters of pairs choose.

Letters: B reviews, U users, I items, R levels of ratings, C clusters, M width of an item's vector.
Source: Tang et al. 2024 (GaVaMoE, arXiv 2410.11841) and, where the paper is silent, its published code, with the
departures that `docs/gavamoe.md` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.batch import Columns
from rec.errors import DataError
from rec.evaluation.task import Measured
from rec.evaluation.tasks.rating import Rating
from rec.sections import Section
from rec.systems.api import Phase, System, Wanted
from rec.systems.capabilities import Rater, Reporter
from rec.systems.gavamoe import report
from rec.systems.gavamoe.batch import COLUMNS, ReviewBatch, collated
from rec.systems.gavamoe.config import GaVaMoEConfig, table_of
from rec.systems.gavamoe.mixture import fit
from rec.systems.gavamoe.model import MIXTURE, VAE, Encoded, GaVaMoEModel, Known
from rec.systems.gavamoe.samples import sample
from rec.terms import Term

MOST_LEVELS = 100
"""Different ratings that are told apart."""
COUNTS = ("user_count", "item_count", "rating_level", "rating_count")


class GaVaMoE(System[ReviewBatch, GaVaMoEModel], Rater[ReviewBatch, GaVaMoEModel], Reporter[ReviewBatch, GaVaMoEModel]):
    """Explainable recommender."""

    Config = GaVaMoEConfig
    config: GaVaMoEConfig
    columns = COLUMNS
    view = "sentences"
    tasks = (Rating(),)

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        return (*COUNTS, *map(table_of, config.pairs.item_vectors))

    @classmethod
    def wanted_by(cls, config: Any, table: str) -> Wanted | None:
        """Return which key asks for a table."""
        return None if table in COUNTS else Wanted("model.pairs.item_vectors", "model.pairs.item_vectors=[]")

    @cached_property
    def level_R(self) -> np.ndarray:
        """Every rating, ascending.

        Raises:
            DataError: there are too many to be told apart.
        """
        level_R = np.asarray(self.static["rating_level"])
        if len(level_R) > MOST_LEVELS:
            raise DataError(
                f"rating: {len(level_R):,} different values, expected at most {MOST_LEVELS}: GaVaMoE predicts the "
                "probability of each; round them"
            )
        return level_R

    def model(self) -> GaVaMoEModel:
        """Return a freshly initialised model."""
        count = {name: torch.from_numpy(np.array(self.static[name])) for name in COUNTS}
        vectors = {name: np.array(self.static[table_of(name)]) for name in self.config.pairs.item_vectors}
        known = Known(
            user_count_U=count["user_count"],
            item_count_I=count["item_count"],
            level_R=torch.from_numpy(self.level_R.copy()),
            level_count_R=count["rating_count"],
            features={name: torch.from_numpy(table_IM) for name, table_IM in vectors.items()},
        )
        return GaVaMoEModel(self.config, known, self.seed)

    def phases(self) -> tuple[Phase, ...]:
        """Return the deterministic autoencoder, and the variational one with the mixture as its prior."""
        pairs = self.config.pairs
        encoder = ["table_*", "mean.*", "decoder.*"]
        encoder += ["layers.*"] * bool(pairs.layers) + ["project.*"] * bool(pairs.item_vectors)
        encoder += ["bias_*"] * pairs.biases
        prior = ["mean_CZ", "log_variance_CZ", *(["weight_C"] if pairs.clusters > 1 else [])]
        before = [f"pairs.{name}" for name in encoder]
        return (
            Phase(
                name=VAE,
                trains=tuple(before),
                terms=("rating_ce",),
                epochs=50,
                optimiser="adam",
                metric="val_loss",
                patience=5,
            ),
            Phase(
                name=MIXTURE,
                trains=(*before, "pairs.log_variance.*", *(f"prior.{name}" for name in prior)),
                terms=("rating_ce", "kl"),
                epochs=30,
                optimiser="adam",
                metric="val_loss",
                patience=5,
                before=fit,
            ),
        )

    def start_epoch(self, module: GaVaMoEModel, epoch: int) -> None:
        """Tell the module its epoch, which the weight of the divergence follows."""
        module.epoch = epoch

    def collate(self, rows: Columns) -> ReviewBatch:
        """Return the batch of these rows; labels may be empty."""
        return collated(rows, self.level_R)

    def loss(self, model: Callable[[ReviewBatch], Any], batch: ReviewBatch) -> dict[str, Term]:
        """Return the cross entropy of ratings and, but in the first phase, the divergence from the prior.

        Validation weighs the divergence as the first epoch does, so that losses of epochs compare.
        """
        seen: Encoded = model(batch)
        module: Any = getattr(model, "module", model)
        error = torch.nn.functional.cross_entropy(seen.score_BR.float(), batch.level_B, reduction="sum")
        if seen.kl_B is None:
            return {"rating_ce": Term(error, len(batch))}
        pairs = self.config.pairs
        beta = pairs.beta_at(module.epoch if module.training else 0)
        return {
            "rating_ce": Term(error, len(batch), pairs.scale),
            "kl": Term(seen.kl_B.sum(), len(batch), pairs.scale * beta),
        }

    def ratings(self, module: GaVaMoEModel, batch: ReviewBatch) -> Tensor:
        """Return the expected rating of each pair, (B,)."""
        return module.ratings(batch)

    def given_ratings(self, batch: ReviewBatch) -> Tensor:
        """Return the rating that was given, (B,)."""
        return batch.rating_B

    def scale(self) -> tuple[float, float]:
        """Return the smallest and the largest rating of the data set."""
        return float(self.level_R[0]), float(self.level_R[-1])

    def rated(self, batch: ReviewBatch) -> Mapping[str, Tensor]:
        """Return users and items."""
        return {"user": batch.user_B, "item": batch.item_B}

    def analyser(self, module: GaVaMoEModel) -> Callable[[ReviewBatch], dict[str, Tensor]]:
        """Return a function that tells each pair's cluster, and how sure and stable it is."""
        return report.Analysis(module)

    def enrich(self, measured: Measured) -> list[str]:
        """Add what there is to say of clusters; return it in words."""
        return report.enrich(measured)

    def sections(self, measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
        """Return what a report tells of clusters."""
        return report.sections(measured)

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random reviews and tables, for tests."""
        return sample(rows, rng)
