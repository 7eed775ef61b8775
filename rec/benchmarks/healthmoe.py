"""A training step of HealthMoE beside its encoders on the same rows, and its full ranking beside its experts' products.

Letters: N pairs of one user, C columns of a pair's row, W width of a projection, F hidden width, O width of outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import in_turns, side_by_side
from rec.config import load
from rec.data.attributes import Attributes
from rec.data.config import DataConfig, EncodeConfig, SplitConfig
from rec.data.generated.food import FoodConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.data.stream import to_columns
from rec.nn.pairs import PairsBatch
from rec.systems.healthmoe import HealthMoE
from rec.systems.healthmoe.config import HealthMoEConfig
from rec.systems.healthmoe.model import HealthMoEModel
from rec.train.config import TrainConfig
from rec.train.optim import make_optimiser

USERS, REPEATS = 32, 9
CONFIG = HealthMoEConfig(width=64, hidden=128, out=64)
POSTERS = Path(__file__).parents[1] / "configs/ml-100k-posters.toml"
ROWS = 1024
"""Rows of a bare product: as many as are fastest."""
RANKED_USERS, ITEMS, RANKED = 609, 9742, 64
"""The sizes of MovieLens with posters, and how many of its users are ranked to tell the time of all."""
LINES: dict[str, dict[str, Any]] = {
    "as configured": {},
    "gate on the user": {"gate": "user", "mixture": {"per_row": 1, "shared": True}},
    "no mixture": {"mixture": {"experts": 0}},
}


def measure(root: str, threads: int) -> list[Row]:
    """Return the time of a step with small encoders, 400 foods and 32 users, and that of the encoders alone."""
    food = FoodConfig(pairs=4000, users=400, foods=400)
    config = DataConfig(
        root=root, source="rec.data.generated.food:PlantedFood", read=food, split=SplitConfig(protocol="ratio"),
        encode=EncodeConfig(),
    )  # fmt: skip
    data = prepare(config, InProcess(), lambda _: None).seen_as(HealthMoE.view)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    system = HealthMoE(CONFIG, data.tables(HealthMoE.table_names(CONFIG)))
    module = system.model().train()
    assert isinstance(module, HealthMoEModel)
    batch = system.collate(to_columns(data.rows("train").slice(0, USERS)))
    optimizer = make_optimiser([{"params": list(module.parameters())}], TrainConfig())

    def step() -> None:
        terms: Any = system.loss(module, batch).values()
        torch.stack([term.weight * term.mean for term in terms]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    ours, bare = side_by_side(step, _bare(system, module, batch), REPEATS)
    name = f"end to end: step of {USERS} users and 400 foods, limit: encoders forward and backward"
    return [timed(name, ours, bare, physical=True)]


def _bare(system: HealthMoE, module: HealthMoEModel, batch: PairsBatch) -> Callable[[], None]:
    """Return the encoders' forward and backward on what one step encodes."""
    encoders: tuple[nn.Module, nn.Module] = module.text, module.image
    seen: dict[nn.Module, list[Tensor]] = {encoder: [] for encoder in encoders}
    hooks = [encoder.register_forward_pre_hook(lambda m, given: seen[m].append(given[0])) for encoder in encoders]
    system.loss(module, batch)
    for hook in hooks:
        hook.remove()
    tokens, pixels = (torch.cat(seen[encoder]) for encoder in encoders)

    def bare() -> None:
        (module.text(tokens).sum() + module.image(pixels).sum()).backward()
        module.zero_grad(set_to_none=True)

    return bare


def ranking() -> list[Row]:
    """Return the times of full rankings on one thread, beside the bare products of the experts that must run.

    The lower limit has only what is left where first layers are computed once per user and once per item: products of
    the columns that belong to a pair, and the last layers. The other has first layers on whole rows.
    """
    torch.set_num_threads(1)
    rows = []
    for name, keys in LINES.items():
        table = load(POSTERS).model.model_dump() | keys
        config = HealthMoEConfig.model_validate(table)
        module, user_BD = _posters(config)

        def ours(module: HealthMoEModel = module, user_BD: torch.Tensor = user_BD) -> torch.Tensor:
            module.prepared = None
            return torch.cat([module.all_scores(part_BD, module.catalogue()) for part_BD in user_BD.split(USERS)])

        own = config.width * config.product
        with torch.inference_mode():
            whole = user_BD.shape[1] + module.catalogue().shape[1] + own
            times = in_turns([ours, _products(config, own), _products(config, whole)], 5)
        taken, split, whole_rows = (time.scaled(RANKED_USERS / RANKED) for time in times)
        label = f"full ranking of {RANKED_USERS} users and {ITEMS:,} items, {name}"
        rows.append(timed(f"{label}, limit: products of a pair's own columns", taken, split, 3.0, physical=True))
        rows.append(timed(f"{label}, limit: products of whole rows", taken, whole_rows, 3.0))
    return rows


def _products(config: HealthMoEConfig, columns: int) -> Callable[[], None]:
    """Return the products of so many columns with all experts that a pair passes, for the ranked users' pairs."""
    hidden = config.hidden * config.mixture.active
    x_NC, up_CF = torch.randn(ITEMS + 1, columns), torch.randn(columns, hidden)
    down_FO = torch.randn(hidden, config.out)

    def products() -> None:
        for _ in range(RANKED):
            for part_NC in x_NC.split(ROWS):
                part_NC @ up_CF @ down_FO

    return products


def _posters(config: HealthMoEConfig) -> tuple[HealthMoEModel, torch.Tensor]:
    """Return a fresh model on random vectors of the posters' sizes, and the joined projections of the ranked users."""
    rng = np.random.default_rng(0)

    def vectors(rows: int, width: int) -> np.ndarray:
        return rng.standard_normal((rows, width)).astype(np.float32)

    tables = {
        "item_count": np.append(0, rng.integers(0, 10, ITEMS)),
        "item_present": rng.random((ITEMS + 1, 3)) < 0.8,
        "user_present": np.ones((RANKED, 3), bool),
        "item_text": vectors(ITEMS + 1, 256),
        "item_image": vectors(ITEMS + 1, 128),
        "item_attributes": vectors(ITEMS + 1, 20),
        "user_attributes": vectors(RANKED, 24),
        "item_class": np.zeros(ITEMS + 1, np.int32),
        "item_contains": np.zeros((ITEMS + 1, 0), bool),
        "user_avoid": np.zeros((RANKED, 0), bool),
        "tag_names": np.frombuffer(b"[]", np.uint8),
        "user_attribute_names": np.frombuffer(Attributes([]).to_json().encode(), np.uint8),
    }
    system = HealthMoE(config, tables)
    torch.manual_seed(0)
    module = system.model().eval()
    assert isinstance(module, HealthMoEModel)
    liked = [rng.integers(1, ITEMS + 1, 80) for _ in range(RANKED)]
    batch = system.collate({"user": np.arange(RANKED), "history": liked, "target": liked})
    with torch.inference_mode():
        return module, module.states(batch, module.catalogue())
