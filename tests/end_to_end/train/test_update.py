"""One step: the same whether a batch is cut into microbatches or not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rec.batch import Batch
from rec.config import RunConfig
from rec.data.stream import CachedReader
from rec.errors import TrainingError
from rec.moe.layer import MixtureOfExperts
from rec.nn.packed import layout
from rec.nn.sequence import SequenceEncoder
from rec.systems.api import Phase
from rec.terms import Term
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from rec.train.feed import PlannedFeed, in_budgets, in_parts
from rec.train.job import build, open_data, train_here
from rec.train.phases import Stretch
from rec.train.progress import TrainingProgress
from rec.train.update import Update
from tests.end_to_end.train.test_loop import quiet

Make = Callable[..., RunConfig]


@pytest.mark.parametrize("parts", [2, 3, 20])
@pytest.mark.parametrize(
    "model",
    [
        {},
        {"feedforward_mixture": {"experts": 4, "router": "sigmoid", "bias_rate": 0.1}},
        {"feedforward_mixture": {"experts": 4, "balance_weight": 0.3}, "blocks": 2, "checkpointing": True},
    ],
)
def test_a_run_in_microbatches_is_the_run_on_whole_batches(
    run_config: Make, tmp_path: Path, parts: int, model: dict[str, Any]
) -> None:
    """Also where there are more parts than rows: some stand in, and count nowhere."""
    found = []
    for number in (1, parts):
        train = {"accumulate": number, "epochs": 2, "clip_norm": 0.5}
        config = run_config(out=str(tmp_path / str(number)), train=train, model={"loss": "ce", "dropout": 0.0, **model})
        found.append(train_here(config, quiet, quiet).history)
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            close = value if isinstance(value, str | None) else pytest.approx(value, rel=2e-4, abs=2e-5)
            assert other[name] == close, name


@pytest.mark.parametrize(
    ("rows", "parts", "sizes"), [(5, 2, [2, 3]), (4, 1, [4]), (1, 3, [-1, -1, 1]), (2, 3, [-1, 1, 1])]
)
def test_rows_are_cut_in_parts_and_a_part_without_rows_stands_in(rows: int, parts: int, sizes: list[int]) -> None:
    columns = {"a": np.arange(rows), "b": [np.arange(n) for n in range(rows)]}
    found = list(in_parts(columns, parts))
    assert [len(part["a"]) if whole else -len(part["a"]) for part, whole in found] == sizes
    assert [n for part, whole in found if whole for n in part["a"]] == list(range(rows))


@pytest.mark.parametrize(("tokens", "parts"), [(120, 5), (1, 32), (10_000, 1)])
@pytest.mark.parametrize("model", [{}, {"feedforward_mixture": {"experts": 4, "router": "sigmoid", "bias_rate": 0.1}}])
def test_a_run_in_budgets_of_tokens_is_the_run_on_whole_batches(
    run_config: Make, tmp_path: Path, tokens: int, parts: int, model: dict[str, Any]
) -> None:
    found = []
    for number in (0, tokens):
        train = {"tokens": number, "epochs": 2, "clip_norm": 0.5}
        config = run_config(out=str(tmp_path / str(number)), train=train, model={"loss": "ce", "dropout": 0.0, **model})
        found.append(train_here(config, quiet, quiet).history)
    for one, other in zip(*found, strict=True):
        for name, value in one.items():
            close = value if isinstance(value, str | None) else pytest.approx(value, rel=2e-4, abs=2e-5)
            assert other[name] == close, name
    data, system = open_data(config), build(config, open_data(config))
    feed = PlannedFeed(data, system, config.train, CachedReader(data.storage, system.columns), 0, 1)
    first = next(feed.train(system.phases()[0], 0, 0))
    assert len(first) == pytest.approx(parts, abs=2 if 1 < parts < 32 else 0)
    assert sum(len(batch) for batch, counts in first if counts) == 32
    again = next(feed.train(system.phases()[0], 0, 0))
    assert [batch.user_B.tolist() for batch, _ in first] == [batch.user_B.tolist() for batch, _ in again]


@pytest.mark.parametrize("mixture", [{}, {"experts": 4, "balance_weight": 0.1}, {"experts": 4, "capacity_factor": 0.5}])
def test_activations_that_are_computed_again_change_no_number(
    run_config: Make, tmp_path: Path, mixture: dict[str, Any]
) -> None:
    """Dropout draws the same twice, and experts' use is counted once."""
    found = []
    for checkpointing in (False, True):
        model = {"checkpointing": checkpointing, "dropout": 0.3, "blocks": 2, "feedforward_mixture": mixture}
        config = run_config(out=str(tmp_path / str(checkpointing)), train={"epochs": 2}, model=model)
        found.append(train_here(config, quiet, quiet).history)
    assert found[0] == found[1]


@pytest.mark.parametrize("form", ["pre_norm", "hstu"])
def test_what_is_computed_again_is_not_kept(form: str) -> None:
    kept = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        shape = {"width": 16, "blocks": 3, "heads": 2, "feedforward": 64, "dropout": 0.1, "form": form}
        encoder = SequenceEncoder(**shape, max_length=20, checkpointing=checkpointing)  # type: ignore[arg-type]
        sizes: list[int] = []

        def keep(value: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            encoder(torch.randn(40, 16, requires_grad=True), layout([10, 10, 20]))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 5


@pytest.mark.parametrize(
    ("lengths", "most", "cut"),
    [
        ([3, 1, 2, 2], 6, [[0, 2], [1, 3]]),  # 2 x 3 and 2 x 2
        ([3, 1, 2, 2], 12, [[0, 1, 2, 3]]),  # all of it fits as it is
        ([9, 1, 1], 4, [[0], [1, 2]]),  # a row that is too long stands alone
        ([1, 5, 1, 5], 10, [[1, 3], [0, 2]]),
        ([0, 0, 4], 1, [[2], [0], [1]]),
    ],
)
def test_budgets_hold_rows_of_like_length(lengths: list[int], most: int, cut: list[list[int]]) -> None:
    columns = {"a": np.arange(len(lengths)), "b": [np.arange(n) for n in lengths]}
    found = list(in_budgets(columns, np.array(lengths), most))
    assert [part["a"].tolist() for part in found] == cut
    assert [[len(row) for row in part["b"]] for part in found] == [[lengths[row] for row in rows] for rows in cut]


class Rows(Batch):
    """Rows of numbers."""

    def __init__(self, x_ND: torch.Tensor) -> None:
        object.__setattr__(self, "x_ND", x_ND)

    def to(self, _: Any) -> "Rows":
        return self

    def __len__(self) -> int:
        return len(self.x_ND)  # type: ignore[attr-defined]


class Norms:
    """A loss with a mean, a root of a sum of squares, and one that is weighed by the other."""

    def __init__(self, told: Mapping[str, float] | None = None) -> None:
        self.told = told

    def loss(self, model: Any, batch: Any) -> dict[str, Term]:
        y_N = model(batch.x_ND)[:, 0]
        norm = Term(y_N.square().sum(), len(y_N), 0.3, root=True)
        scaled = Term((y_N - 1).square().sum(), len(y_N), 0.5, scale=lambda values: values["norm"])
        plain = Term(y_N.abs().sum(), len(y_N))
        return {"plain": plain} if self.told is not None else {"plain": plain, "norm": norm, "scaled": scaled}

    def counts(self, module: Any, batch: Any) -> Mapping[str, float] | None:
        return None if self.told is None else {name: n * len(batch) for name, n in self.told.items()}


def stepped(system: Any, parts: int) -> tuple[dict[str, float], torch.Tensor, list[float]]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm1d(3, momentum=0.5).eval(), nn.Linear(3, 1))
    engine = LocalEngine(module, TrainConfig(optimiser="adam"))
    x_ND, progress = torch.randn(12, 3), TrainingProgress()
    stretch = Stretch(phase=Phase(), config=TrainConfig(), index=0, count=1)
    update = Update(system, stretch, engine, progress, lambda _: None)
    values, _ = update([(Rows(part), True) for part in x_ND.chunk(parts)], 0.1, False)
    return values, module[1].weight.detach().clone(), [value for sums in progress.sums.values() for value in sums]


@pytest.mark.parametrize("told", [None, {"plain": 1.0}])
def test_roots_scales_and_counts_that_are_told_are_those_of_the_whole(told: dict[str, float] | None) -> None:
    one, weight, sums = stepped(Norms(told), 1)
    for parts in (2, 4):
        other, moved, counted = stepped(Norms(told), parts)
        assert other == pytest.approx(one, rel=1e-5)
        assert counted == pytest.approx(sums, rel=1e-5)
        torch.testing.assert_close(moved, weight, atol=1e-5, rtol=1e-5)


def test_counts_that_do_not_fit_the_terms_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"Norms\.counts: tells nothing of the term 'plain'"):
        stepped(Norms({"other": 1.0}), 2)


def test_a_pass_that_only_counts_leaves_no_traces() -> None:
    """Running statistics move once per step, and experts are counted once."""

    class Mixes(Norms):
        def loss(self, model: Any, batch: Any) -> dict[str, Term]:
            mixed = model(batch.x_ND)
            return {"y": Term(mixed.y_ND.square().sum(), len(batch)), "balance": mixed.balance_term(0.1)}

    from rec.moe.experts import FeedForwardExperts
    from rec.moe.routers import SoftmaxRouter

    module = nn.Sequential(nn.BatchNorm1d(3), MixtureOfExperts(SoftmaxRouter(3, 4, 2), FeedForwardExperts(3, 4, 4)))
    engine = LocalEngine(module, TrainConfig())
    stretch = Stretch(phase=Phase(), config=TrainConfig(), index=0, count=1)
    Update(Mixes(), stretch, engine, TrainingProgress(), lambda _: None)(  # type: ignore[arg-type]
        [(Rows(torch.randn(5, 3)), True), (Rows(torch.randn(6, 3)), True), (Rows(torch.randn(2, 3)), False)], 0.1, False
    )
    layer: Any = module[1]
    assert float(layer.usage.total[:4].sum()) == float(layer.usage.last[:4].sum()) == 22
    assert int(module[0].num_batches_tracked) == 1  # type: ignore[arg-type]
