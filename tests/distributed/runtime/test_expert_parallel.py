"""Expert parallelism against the local layer on the joined batch: values, gradients, training, states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rec.moe.experts import FeedForwardExperts, UnlikeExperts
from rec.moe.layer import MixtureOfExperts, layers_of
from rec.moe.routers import SigmoidRouter, SoftmaxRouter
from rec.moe.routing import Routing, keep_top_k
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import LocalEngine
from tests.support.moe import LowRankExperts
from tests.support.states import InMemory, state_of

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]

WIDTH, EXPERTS, STEPS = 8, 8, 20
CUTS = [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4)]
UNEVEN = {1: [23], 2: [14, 9], 4: [7, 2, 11, 3]}
EMPTY = {1: [23], 2: [23, 0], 4: [0, 12, 0, 11]}
"""Rows per worker."""


class Given(nn.Module):
    """A router that says what it is told: hints are probabilities."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x_ND: Tensor, probability_NE: Tensor) -> Routing:
        return keep_top_k(probability_NE, self.k)


class Model(nn.Module):
    """Two mixture layers between linear ones."""

    def __init__(self, k: int, kind: str = "gelu", capacity_factor: float = 0.0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.soft = MixtureOfExperts(SoftmaxRouter(WIDTH, EXPERTS, k), experts(kind), capacity_factor=capacity_factor)
        self.biased = MixtureOfExperts(
            SigmoidRouter(WIDTH, EXPERTS, k, rate=0.01), experts(kind), shared=nn.Linear(8, 8)
        )

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Any]:
        x_ND = self.first(x_ND)
        mixed = self.soft(x_ND)
        x_ND = x_ND + mixed.y_ND
        return self.last(x_ND + self.biased(x_ND).y_ND)[:, 0], mixed


def experts(kind: str) -> Any:
    if kind == "low_rank":
        return LowRankExperts(WIDTH, 4, EXPERTS)
    if kind == "unlike":
        torch.manual_seed(5)
        return UnlikeExperts([nn.Linear(WIDTH, WIDTH, bias=bool(e % 2)) for e in range(EXPERTS)])
    return FeedForwardExperts(WIDTH, 12, EXPERTS, activation=kind)  # type: ignore[arg-type]


def make(k: int, kind: str = "gelu", capacity_factor: float = 0.0, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model(k, kind, capacity_factor)


def config(world: int, ep: int, stage: int, backend: str = "grouped") -> ParallelConfig:
    return ParallelConfig(workers=world, expert_parallel=ep, zero_stage=stage, moe_backend=backend)  # type: ignore[arg-type]


TRAIN = TrainConfig(learning_rate=0.01, clip_norm=0.3, weight_decay=0.01)


def engine_of(
    module: nn.Module, world: int, ep: int, stage: int, backend: str = "grouped", nodes: Sequence[str] = ()
) -> Any:
    from rec.runtime.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(module, TRAIN, config(world, ep, stage, backend), nodes=nodes)


def batch(step: int, rows: Sequence[int], rank: int | None) -> tuple[Tensor, Tensor]:
    """This rank's rows of the step's batch, or all."""
    generator = torch.Generator().manual_seed(step)
    x, y = (torch.randn(sum(rows), WIDTH, generator=generator), torch.randn(sum(rows), generator=generator))
    start = sum(rows[:rank]) if rank is not None else 0
    end = start + rows[rank] if rank is not None else sum(rows)
    return x[start:end], y[start:end]


def train(engine: Any, rows: Sequence[int], rank: int | None, steps: range) -> list[tuple[float, float]]:
    """Global loss and gradient norm of each step."""
    results = []
    engine.module.train()
    for step in steps:
        x, y = batch(step, rows, rank)
        output, mixed = engine(x)
        terms = [(output - y).square().sum(), mixed.balance_term(1.0).sum, mixed.z_term(1.0).sum]
        loss = terms[0] + 0.05 * terms[1] + 0.01 * terms[2]
        total = float(engine.sum_over_ranks(loss.detach().double().reshape(1)))
        engine.backward(loss * (engine.world_size / sum(rows)))
        results.append((total / sum(rows), float(engine.step(0.01))))
        for _, layer in layers_of(engine.module):
            layer.after_step()
    return results


def layer_values(
    rank: int, world: int, ep: int, k: int, kind: str, rows: Sequence[int], lonely: bool, backend: str
) -> None:
    """Outputs, input gradients and every parameter's gradient equal those of the local layer on the joined batch."""
    from rec.runtime.deepspeed_experts import groups
    from rec.runtime.placement import ParameterPlace

    x, _ = batch(0, rows, None)
    generator = torch.Generator().manual_seed(1)
    probability = torch.randn(sum(rows), EXPERTS, generator=generator).softmax(-1)
    if lonely:  # nobody goes to experts 0 and 5
        probability = probability * torch.tensor([0.0, 1, 1, 1, 1, 0, 1, 1])
    weight = torch.randn(sum(rows), WIDTH, generator=generator)
    mine = slice(sum(rows[:rank]), sum(rows[: rank + 1]))

    def build() -> nn.Sequential:
        return nn.Sequential(MixtureOfExperts(Given(k), experts(kind)))

    local, x_all = build()[0], x.clone().requires_grad_()
    p_all = probability.clone().requires_grad_()
    expected = local(x_all, p_all).y_ND
    (expected * weight).sum().backward()

    module = build()
    engine = engine_of(module, world, ep, 1, backend)
    layer, x_own, p_own = module[0], x[mine].clone().requires_grad_(), probability[mine].clone().requires_grad_()
    found = layer(x_own, p_own).y_ND
    torch.testing.assert_close(found, expected[mine], rtol=1e-5, atol=1e-5)
    # ZeRO takes gradients away as they come: ask for them instead.
    own = list(layer.parameters())
    grads = torch.autograd.grad((found * weight[mine]).sum(), [x_own, p_own, *own], allow_unused=True)
    torch.testing.assert_close(grads[0], x_all.grad[mine], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads[1], p_all.grad[mine], rtol=1e-5, atol=1e-5)
    names = {id(p): name for name, p in module.named_parameters()}
    wholes = {f"0.{name}": p.grad for name, p in local.named_parameters()}
    for parameter, grad in zip(own, grads[2:], strict=True):
        place = engine.model.place.get(parameter, ParameterPlace(names[id(parameter)], 0))
        whole = wholes[place.name].flatten()[place.at : place.at + parameter.numel()].view(parameter.shape)
        # Copies of an expert, and of everything where there is no expert parallelism, add up.
        total = torch.zeros_like(parameter) if grad is None else grad.clone()
        copies = getattr(parameter, "group_name", None)
        torch.distributed.all_reduce(total, group=groups()._get_expert_data_parallel_group(copies) if copies else None)
        torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("world", "ep"), CUTS)
def test_values_and_gradients_equal_the_local_layer(ranks: Any, world: int, ep: int, k: int) -> None:
    for rows in (UNEVEN[world], EMPTY[world]):
        for kind in ("gelu", "swiglu", "low_rank", "unlike"):
            ranks.run(world, layer_values, ep, k, kind, rows, True, "grouped")


@pytest.mark.parametrize(("world", "ep"), CUTS)
def test_deepspeeds_own_layer_gives_the_same(ranks: Any, world: int, ep: int) -> None:
    for rows in (UNEVEN[world], EMPTY[world]):
        ranks.run(world, layer_values, ep, 2, "gelu", rows, True, "deepspeed")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    world_ep=st.sampled_from([(2, 2), (2, 1), (4, 2), (4, 4)]),
    rows=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    k=st.integers(1, EXPERTS),
    kind=st.sampled_from(["gelu", "swiglu", "low_rank"]),
    lonely=st.booleans(),
)
def test_any_shape_equals_the_local_layer(
    ranks: Any, world_ep: tuple[int, int], rows: list[int], k: int, kind: str, lonely: bool
) -> None:
    world, ep = world_ep
    if sum(rows[:world]):
        ranks.run(world, layer_values, ep, min(k, 6) if lonely else k, kind, rows[:world], lonely, "grouped")


def training(rank: int, world: int, ep: int, k: int, stage: int, backend: str, capacity: float) -> Any:
    module = make(k, capacity_factor=capacity)
    engine = engine_of(module, world, ep, stage, backend)
    before = state_of(engine)
    steps = train(engine, UNEVEN[world], rank, range(STEPS))
    after = state_of(engine)
    still = [name for name in after if name.startswith("model.") and torch.equal(after[name], before.get(name))]
    health = {**module.soft.usage.summary(), "load": module.soft.usage.load_E().tolist()}
    return {"steps": steps, "still": still, "state": after, "health": health}


def undisturbed(k: int, world: int, capacity: float = 0.0) -> Any:
    engine = LocalEngine(make(k, capacity_factor=capacity), TRAIN)
    return train(engine, UNEVEN[world], None, range(STEPS)), engine


@pytest.mark.parametrize(("stage", "k"), [(0, 2), *((stage, k) for stage in (1, 2) for k in (1, 2, 3))])
@pytest.mark.parametrize(("world", "ep"), CUTS)
def test_training_gives_the_same_losses_and_norms_at_every_cut(
    ranks: Any, world: int, ep: int, stage: int, k: int
) -> None:
    expected, local = undisturbed(k, world)
    for found in ranks.run(world, training, ep, k, stage, "grouped", 0.0):
        torch.testing.assert_close(torch.tensor(found["steps"]), torch.tensor(expected), rtol=1e-5, atol=1e-5)
        assert found["still"] == []
        wanted = state_of(local)
        assert found["state"].keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(found["state"][name], value, rtol=2e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize(("world", "ep"), CUTS)
def test_what_a_capacity_drops_does_not_depend_on_the_cut(ranks: Any, world: int, ep: int) -> None:
    expected, local = undisturbed(2, world, capacity=0.9)
    usage = local.module.soft.usage
    wanted = usage.summary()
    assert wanted["dropped_share"] > 0.05
    for found in ranks.run(world, training, ep, 2, 1, "grouped", 0.9):
        torch.testing.assert_close(torch.tensor(found["steps"]), torch.tensor(expected), rtol=1e-5, atol=1e-5)
        assert found["health"].pop("load") == pytest.approx(usage.load_E().tolist(), rel=1e-6)
        # The entropy of decisions is a mean over a sample of rows that depends on the cut.
        assert found["health"] == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeeds_own_layer_trains_the_same(ranks: Any, stage: int) -> None:
    expected, _ = undisturbed(2, 2)
    for found in ranks.run(2, training, 2, 2, stage, "deepspeed", 0.0):
        torch.testing.assert_close(torch.tensor(found["steps"]), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def on_nodes(rank: int, world: int, stage: int, nodes: Sequence[str]) -> Any:
    from rec.runtime.deepspeed_experts import groups

    engine = engine_of(make(2), world, 2, stage, nodes=nodes)
    steps = train(engine, UNEVEN[world], rank, range(STEPS))
    pieces = [(piece.name, piece.at, len(piece.values)) for piece in engine.pieces()]
    sharing = torch.distributed.get_process_group_ranks(groups()._get_expert_parallel_group("ep_size_2"))
    return steps, sharing, state_of(engine), pieces


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_ranks_of_a_node_share_experts_whatever_their_order(ranks: Any, stage: int) -> None:
    expected, local = undisturbed(2, 4)
    wanted, owned = state_of(local), []
    for rank, (steps, sharing, state, pieces) in enumerate(ranks.run(4, on_nodes, stage, ["a", "b", "b", "a"])):
        assert sharing == ([0, 3] if rank in (0, 3) else [1, 2])
        torch.testing.assert_close(torch.tensor(steps), torch.tensor(expected), rtol=1e-5, atol=1e-5)
        assert state.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(state[name], value, rtol=2e-3, atol=2e-4, msg=name)
        owned += pieces
    assert len(set(owned)) == len(owned)  # what is written is written once


SAVED_AT, SEEN = 4, 8
RESIZES = [
    ((4, 4), (2, 2)), ((4, 4), (1, 1)), ((4, 4), (8, 4)), ((8, 4), (4, 4)), ((2, 2), (4, 4)), ((1, 1), (4, 2)),
    ((4, 2), (2, 1)), ((2, 1), (2, 2)), ((2, 2), (1, 1)),
]  # fmt: skip
"""(workers, expert-parallel) that wrote a state and that go on from it."""


def going_on(rank: int, world: int, ep: int, stage: int, state: Any) -> Any:
    rows = [24 // world] * world
    engine = engine_of(make(2, seed=3), world, ep, stage)
    if state is not None:
        engine.load_state(InMemory(state))
        return train(engine, rows, rank, range(SAVED_AT, SEEN))
    train(engine, rows, rank, range(SAVED_AT))
    return state_of(engine)


@pytest.mark.parametrize(("source", "target"), RESIZES)
def test_a_state_goes_on_at_any_other_size(ranks: Any, source: tuple[int, int], target: tuple[int, int]) -> None:
    """Optimiser moments included: the next losses and norms are those of the undisturbed run."""
    local = LocalEngine(make(2, seed=3), TRAIN)
    expected = train(local, [24], None, range(SEEN))[SAVED_AT:]
    saved = ranks.run(source[0], going_on, source[1], 1, None)[0]
    for found in ranks.run(target[0], going_on, target[1], 2, saved):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=2e-5, atol=2e-5)


def through_deepspeeds_files(rank: int, world: int, ep: int, stage: int, kind: str, folder: str) -> Any:
    rows = [24 // world] * world
    engine = engine_of(make(2, kind), world, ep, stage)
    train(engine, rows, rank, range(SAVED_AT))
    engine.engine.save_checkpoint(folder, tag="saved")
    wanted = train(engine, rows, rank, range(SAVED_AT, SEEN))
    other = engine_of(make(2, kind, seed=9), world, ep, stage)
    other.engine.load_checkpoint(folder, tag="saved")
    return wanted, train(other, rows, rank, range(SAVED_AT, SEEN))


@pytest.mark.parametrize(
    ("world", "ep", "stage", "kind"), [(2, 2, 1, "gelu"), (2, 2, 2, "unlike"), (4, 2, 1, "swiglu")]
)
def test_deepspeeds_own_checkpoints_hold_our_experts(
    ranks: Any, tmp_path: Path, world: int, ep: int, stage: int, kind: str
) -> None:
    for wanted, found in ranks.run(world, through_deepspeeds_files, ep, stage, kind, str(tmp_path)):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-6, atol=1e-7)
    assert len(list((tmp_path / "saved").glob("layer_*_expert_*_model_states.pt"))) == 2 * EXPERTS


def refusal(rank: int, world: int, ep: int, backend: str, kind: str) -> str:
    try:
        engine_of(nn.Sequential(MixtureOfExperts(Given(1), experts(kind))), world, ep, 1, backend)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_what_cannot_be_spread_is_refused(ranks: Any) -> None:
    found = ranks.run(3, refusal, 3, "grouped", "gelu")
    assert found == ["ConfigError: parallel.expert_parallel: must divide the 8 experts of '0', got 3"] * 3
    found = ranks.run(1, refusal, 1, "deepspeed", "low_rank")
    assert found == ["ConfigError: parallel.moe_backend: DeepSpeed's layer cannot run LowRankExperts; use grouped"]
