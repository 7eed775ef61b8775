"""Modules made without weights: the same as ever once weights are read, or drawn where they live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec.errors import CheckpointError
from rec.moe.config import MixtureConfig
from rec.moe.experts import DrawnExperts, FeedForward, FeedForwardExperts, UnlikeExperts
from rec.nn.language.causal import causal_model
from rec.nn.language.config import LanguageConfig
from rec.nn.language.gated import GatedConfig, gate_layers
from rec.nn.making import fill, made_empty, made_undrawn
from rec.train.engine import LocalEngine, load_model
from rec.train.shards import TensorPiece
from tests.end_to_end.systems import (
    test_healthmoe,
    test_lightgcn,
    test_magnet,
    test_msmrec,
    test_nlammr,
    test_peter,
)
from tests.end_to_end.systems.gavamoe import test_conformance as gavamoe
from tests.guests import test_conformance as guests
from tests.support.moe import LowRankExperts
from tests.support.states import InMemory
from tests.unit.systems import test_safedrug

MODULES = (
    test_msmrec, test_healthmoe, test_lightgcn, test_magnet, test_nlammr, test_peter, test_safedrug, gavamoe, guests,
)  # fmt: skip


def systems() -> Iterator[Any]:
    """Yield every system with every config that the conformance tests know."""
    for module in MODULES:
        for name, tests in vars(module).items():
            if name.startswith("Test") and hasattr(tests, "configs"):
                for number, table in enumerate(tests.configs):
                    yield pytest.param(tests.system, table, id=f"{tests.system.__name__}-{number}")


def whole(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that are not saved."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.mark.parametrize(("system", "table"), systems())
def test_a_system_made_empty_is_the_same_when_its_weights_are_read(system: Any, table: dict[str, Any]) -> None:
    rows, tables = system.sample(12, np.random.default_rng(0))
    made = system(system.Config.model_validate(table), tables)
    torch.manual_seed(1)
    wanted = made.model()
    lean = made_empty(made.model)
    # Its making passes texts through encoders, which therefore need their weights.
    looks = system.__name__ == "HealthMoE"
    assert all(parameter.is_meta for parameter in lean.parameters()) != looks
    load_model(lean, InMemory({f"model.{name}": value for name, value in wanted.state_dict().items()}))
    a, b = whole(wanted), whole(lean)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
        assert value.requires_grad == b[name].requires_grad, name
    phase = made.phases()[-1].name
    losses = []
    for module in (wanted, lean):
        module.phase = phase
        torch.manual_seed(2)
        losses.append(
            {name: float(term.sum.detach()) for name, term in made.loss(module.eval(), made.collate(rows)).items()}
        )
    assert losses[0] == losses[1]


def needs_its_weights() -> nn.Module:
    module = nn.Linear(3, 3)
    module.register_buffer("norm", module.weight.detach().norm(), persistent=False)
    return module


def asks_for_a_number() -> nn.Module:
    module = nn.Linear(3, 3)
    module.size = float(module.weight.detach().abs().sum())
    return module


@pytest.mark.parametrize("make", [needs_its_weights, asks_for_a_number])
def test_a_module_that_looks_at_its_weights_is_made_as_ever(make: Callable[[], nn.Module]) -> None:
    def seeded() -> nn.Module:
        torch.manual_seed(3)
        return make()

    wanted, found = seeded(), made_empty(seeded)
    assert all(torch.equal(value, whole(found)[name]) for name, value in whole(wanted).items())


# Experts that are drawn where they live.

KINDS: dict[str, Callable[[], nn.Module]] = {
    "gelu": lambda: FeedForwardExperts(4, 6, 8, seed=5),
    "swiglu": lambda: FeedForwardExperts(4, 6, 8, activation="swiglu", out=3, seed=5),
    "low rank": lambda: LowRankExperts(4, 2, 8, seed=5),
    "zero start": lambda: MixtureConfig(experts=8, zero_start=True).layer(4, 6, 5).experts,
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(("first", "count"), [(0, 8), (0, 4), (4, 4), (6, 2)])
def test_a_rank_draws_its_own_experts_as_all_would_be_drawn(kind: str, first: int, count: int) -> None:
    wanted, found = KINDS[kind](), made_undrawn(KINDS[kind], DrawnExperts)
    assert all(parameter.is_meta for parameter in found.parameters())
    for experts in (wanted, found):
        experts.keep(first, count)  # type: ignore[operator]
    fill(found)
    for name, value in whole(wanted).items():
        assert torch.equal(value, whole(found)[name]), name


@pytest.mark.parametrize("keys", [{"init": "sliced"}, {"init": "sliced", "shared": "dense"}, {"init": "random"}])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_experts_of_a_language_model_are_drawn_late_alike(keys: dict[str, Any], dtype: str) -> None:
    language = LanguageConfig(width=16, layers=2, heads=2, hidden=24, dtype=dtype)  # type: ignore[arg-type]

    def make() -> nn.Module:
        model = causal_model(language, 40, 3)
        gate_layers(model, GatedConfig(experts=2, fine=2, **keys), 3, 7)
        return model

    wanted, found = make(), made_undrawn(make, DrawnExperts)
    drawn = [part for part in found.modules() if isinstance(part, DrawnExperts)]
    assert len(drawn) == 2
    assert all(parameter.is_meta for part in drawn for parameter in part.parameters())
    fill(found)
    for name, value in whole(wanted).items():
        assert torch.equal(value, whole(found)[name]), name


class Halved(nn.Module):
    """Changes the weights of experts by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = FeedForwardExperts(4, 6, 8)
        self.experts.up_EDF.data.mul_(0.5)


class Copied(nn.Module):
    """Takes weights of experts elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = FeedForwardExperts(4, 6, 8)
        self.first = nn.Parameter(self.experts.up_EDF.data[0])


@pytest.mark.parametrize("make", [Halved, Copied])
def test_experts_that_are_changed_in_another_way_are_made_as_ever(make: Callable[[], nn.Module]) -> None:
    wanted, found = make(), made_undrawn(make, DrawnExperts)
    assert not any(parameter.is_meta for parameter in found.parameters())
    assert all(torch.equal(value, whole(found)[name]) for name, value in whole(wanted).items())


def test_other_parts_have_their_weights_at_once() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        parts = [
            nn.Linear(2, 2),
            FeedForward(4, 6, seed=3),
            UnlikeExperts([nn.Linear(2, 2)]),
            FeedForwardExperts(4, 6, 2),
        ]
        return nn.ModuleList(parts)

    wanted, found = make(), made_undrawn(make, DrawnExperts)
    assert [any(p.is_meta for p in part.parameters()) for part in found] == [False, False, False, True]  # type: ignore[attr-defined]
    fill(found)
    assert all(torch.equal(value, whole(found)[name]) for name, value in whole(wanted).items())


def test_who_knows_a_parameter_knows_it_when_it_has_memory() -> None:
    module = made_empty(lambda: nn.Linear(2, 2))
    weight = module.weight
    weight.mark = "kept"  # type: ignore[attr-defined]
    fill(module)
    assert module.weight is weight
    assert not weight.is_meta
    assert weight.mark == "kept"  # type: ignore[attr-defined]


# A frozen base.


def adapted(folder: Path) -> Any:
    return causal_model(LanguageConfig(name=str(folder), lora=2), 40, 3)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    causal_model(LanguageConfig(width=16, layers=1, heads=2, hidden=24), 40, 3).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def saved(module: nn.Module) -> list[TensorPiece]:
    from rec.train.config import TrainConfig

    return LocalEngine(module, TrainConfig()).pieces()


def test_a_frozen_base_is_not_saved_and_must_be_the_same(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = adapted(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    state = {piece.name: piece.values.view(piece.shape).clone() for piece in saved(model)}
    assert {name for name in state if "lora_" not in name} == {"model.base_sha256"}
    again = made_empty(lambda: adapted(base))
    load_model(again, InMemory(state))
    for name, value in whole(model).items():
        assert torch.equal(value, whole(again)[name]), name
    other = causal_model(LanguageConfig(width=16, layers=1, heads=2, hidden=24), 40, 4)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"weights have the hash [0-9a-f]{12}, but language.name loads "):
        load_model(adapted(tmp_path / "other"), InMemory(state))


def test_a_base_that_is_trained_is_saved(base: Path) -> None:
    model = causal_model(LanguageConfig(name=str(base)), 40, 3)
    names = {piece.name for piece in saved(model)}
    assert names == {f"model.{name}" for name in model.state_dict()}
