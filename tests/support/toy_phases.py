"""A toy of two phases on user histories: an autoencoder first, experts later; what lies between is fitted once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.evaluation.records import Records, ragged
from rec.evaluation.task import Values
from rec.evaluation.tasks.ranking import Ranking
from rec.nn.history import HistoryBatch
from rec.nn.replicated import Replicated
from rec.systems.api import Phase, PhaseFeed
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.systems.msmrec.model import EncodedHistories, MSMRecModel
from rec.terms import Term
from tests.support.faults import Faulty, FaultyConfig

CODE, CENTRES = 4, 3


class ToyConfig(MSMRecConfig):
    """The first phase's keys as keys, so that tests can vary them."""

    first_epochs: int | None = 2
    first_patience: int | None = None
    first_metric: str = "val_loss"
    first_optimiser: Any = "adam"
    fitted: bool = True
    """Whether the second phase fits centres before it starts."""
    fail_before: bool = False
    broken: bool = False
    """Whether every rank raises in the second phase."""
    noise: float = 0.0
    """Added to codes while training."""


@dataclass(frozen=True)
class WithMeanRank(Ranking):
    """Ranking, and a metric of which less is better."""

    @property
    def directions(self) -> Mapping[str, bool]:
        """All of ranking's, and the mean rank."""
        return {**super().directions, "mean_rank": False}

    def values(self, records: Records) -> Values:
        """All of ranking's, and the rank itself."""
        return {**super().values(records), "mean_rank": ragged(records, "rank")[0].astype(np.float64)}


class Autoencoder(nn.Module):
    """From counts of items to a code and back."""

    def __init__(self, num_items: int, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.down = nn.Linear(num_items, CODE)
        self.up = nn.Linear(CODE, num_items)

    def forward(self, x_BI: Tensor) -> tuple[Tensor, Tensor]:
        code_BC = torch.tanh(self.down(x_BI))
        noise = self.noise if self.training else 0.0
        return code_BC, self.up(code_BC + noise * torch.randn_like(code_BC))


class ToyModel(MSMRecModel):
    """The recommender beside an autoencoder, whose centres of codes the second phase looks at."""

    phase = ""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        num_items = len(self.item.weight)
        self.autoencoder = Autoencoder(num_items, self.config.noise)
        self.register_buffer("centre_CX", torch.zeros(CENTRES, CODE))
        self.register_buffer("fits", torch.zeros(()))
        self.bend = nn.Linear(CODE, self.config.width, bias=False)
        nn.init.normal_(self.bend.weight, std=0.1)
        self.branch = Replicated(nn.Sequential(nn.Linear(CODE, CODE, bias=False), nn.BatchNorm1d(CODE)))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def counts(self, batch: HistoryBatch) -> Tensor:
        """Return how often each user has seen each item, damped."""
        x_BI = torch.zeros(len(batch), len(self.item.weight), device=batch.user_B.device)
        x_BI = x_BI.index_put((batch.seen_user_M, batch.seen_item_M), torch.ones(()), accumulate=True)
        return x_BI.clamp(max=1.0).to(self.bend.weight.dtype)

    def forward(self, batch: HistoryBatch) -> Any:
        """Return what the phase trains on."""
        if self.phase == "autoencoder":
            x_BI = self.counts(batch)
            return x_BI, *self.autoencoder(x_BI)
        encoded = super().forward(batch)
        code_BC, _ = self.autoencoder(self.counts(batch))
        centre_CX = self.centre_CX + 0.1 * self.branch(self.centre_CX)
        near_B = torch.cdist(code_BC.float(), self.centre_CX.float()).argmin(1)
        shift_BD = self.bend(centre_CX.to(code_BC.dtype)[near_B]) * self.fixed
        shift_ND = shift_BD[batch.where.sequence_N]
        return EncodedHistories(
            encoded.state_ND + shift_ND, encoded.user_ND, encoded.item_ID, encoded.modality_IKD, encoded.routing,
            encoded.mixed,
        )  # fmt: skip


def fit_centres(module: nn.Module, feed: PhaseFeed) -> None:
    """Put the codes' quantiles over all users into the module, the same on any number of ranks."""
    assert isinstance(module, ToyModel)
    with torch.no_grad():
        codes = [module.autoencoder(module.counts(b))[0].double().numpy() for b, counts in feed.rows("train") if counts]
    joined = np.concatenate(feed.gather(np.concatenate(codes)))

    def quantiles() -> np.ndarray:
        return np.quantile(np.sort(joined, axis=0), [0.2, 0.5, 0.8], axis=0)

    found = feed.once(quantiles)
    if feed.rank == 0:  # the others get it as a buffer
        module.centre_CX.copy_(torch.from_numpy(found).float())
        module.fits += 1


def fail(module: nn.Module, feed: PhaseFeed) -> None:
    """Fail on the first rank alone."""

    def broken() -> None:
        raise ValueError("no centres")

    feed.once(broken)


class ToyPhases(MSMRec):
    """An autoencoder of what users have seen, then a recommender with experts that is bent by its codes."""

    Config = ToyConfig
    config: Any
    tasks = (WithMeanRank(groups_by="popular_share"),)

    def model(self) -> nn.Module:
        """Return a freshly initialised model."""
        return ToyModel(self.config, self.num_items, None, self.seed)

    def phases(self) -> tuple[Phase, ...]:
        """Return both."""
        config = self.config
        before = (fail if config.fail_before else fit_centres) if config.fitted else None
        first = Phase(
            name="autoencoder",
            trains=("autoencoder.*",),
            terms=("reconstruction", "size"),
            epochs=config.first_epochs,
            batch_size=60,
            learning_rate=0.02,
            optimiser=config.first_optimiser,
            metric=config.first_metric,
            patience=config.first_patience,
            weight_decay=1e-4,
        )
        moving = ("item.*", "position.*", "encoder.*", "bend.*", "branch.*", "fixed")
        return first, Phase(name="experts", trains=moving, before=before)

    def loss(self, model: Callable[[HistoryBatch], Any], batch: HistoryBatch) -> dict[str, Term]:
        """Return the terms of the phase that the module is in."""
        module: Any = getattr(model, "module", model)
        if module.phase != "autoencoder":
            if self.config.broken:
                raise ValueError(f"row {batch.user_B[0]} is not what it should be")
            return super().loss(model, batch)
        x_BI, code_BC, y_BI = model(batch)
        error = (y_BI - x_BI).float().square().sum()
        return {
            "reconstruction": Term(error, len(batch)),
            "size": Term(code_BC.float().square().sum(), len(batch), 0.1),
        }


class FaultyToyConfig(ToyConfig, FaultyConfig):
    """Both."""


class FaultyToy(Faulty, ToyPhases):
    """The toy that breaks on purpose; see tests.support.faults."""

    Config = FaultyToyConfig


TOY_MODEL = {"width": 8, "blocks": 1, "gate": "none", "dropout": 0.0, "max_length": 20}
TOY_EXPERTS = {"experts": 4, "per_row": 2, "z_weight": 0.001}


def toy_table(**changes: Any) -> dict[str, Any]:
    """Return what `run_config` needs for a short run of the toy: changes are nested tables."""
    table: dict[str, Any] = {
        "system": "tests.support.toy_phases:ToyPhases",
        "model": TOY_MODEL | {"feedforward_mixture": TOY_EXPERTS},
        "train": {"batch_size": 36, "epochs": 2, "learning_rate": 5e-3, "warmup_steps": 3, "schedule": "cosine"},
    }
    for name, value in changes.items():
        table[name] = table.get(name, {}) | value if isinstance(value, dict) else value
    return table
