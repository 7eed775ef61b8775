"""Routers, experts and dispatch against the dense one-hot definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rec import transfer
from rec.moe.dispatch import carry, order_by_expert
from rec.moe.experts import FeedForwardExperts, UnlikeExperts, fine_grained
from rec.moe.grouping import Grouping, group, grouped_product
from rec.moe.layer import MixtureOfExperts
from rec.moe.routers import ClusterRouter, SigmoidRouter, SoftmaxRouter
from rec.moe.routing import Routing, keep_share, keep_top_k
from tests.support.moe import LowRankExperts, dispatch_dense

WIDTH, EXPERTS = 16, 8
KINDS = {
    "gelu": lambda: FeedForwardExperts(WIDTH, 32, EXPERTS),
    "swiglu": lambda: FeedForwardExperts(WIDTH, 16, EXPERTS, activation="swiglu"),
    "low_rank": lambda: LowRankExperts(WIDTH, 8, EXPERTS),
    "unlike": lambda: UnlikeExperts(
        [torch.nn.Linear(WIDTH, WIDTH) for _ in range(EXPERTS - 1)] + [torch.nn.Identity()]
    ),
}


def routing_of(rows: int, kind: str) -> Routing:
    torch.manual_seed(rows)
    probability = torch.randn(rows, EXPERTS).softmax(-1)
    if kind == "share":
        return keep_share(probability, 0.6)
    if kind == "one expert":
        return keep_top_k(torch.eye(EXPERTS)[torch.full((rows,), 3)], 1)
    return keep_top_k(probability, int(kind))


@pytest.mark.parametrize("experts", KINDS)
@pytest.mark.parametrize("kind", ["1", "2", "8", "share", "one expert"])
@pytest.mark.parametrize("rows", [1, 37])
def test_dispatch_equals_the_dense_definition(experts: str, kind: str, rows: int) -> None:
    torch.manual_seed(0)
    module = KINDS[experts]()
    x = torch.randn(rows, WIDTH, requires_grad=True)
    routing, weight = routing_of(rows, kind), torch.randn(rows, WIDTH)
    parameters = [x, *module.parameters()]
    ours = carry(x, routing.weight_NK, order_by_expert(routing, EXPERTS), module)
    theirs = dispatch_dense(x, routing, module)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad((y * weight).sum(), parameters, allow_unused=True) for y in (ours, theirs)]
    for a, b in zip(*grads, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(zero if a is None else a, zero if b is None else b, rtol=1e-4, atol=1e-5)


def test_a_row_without_experts_gives_zero_and_its_weight_gets_a_gradient() -> None:
    probability = torch.full((3, EXPERTS), 1 / EXPERTS, requires_grad=True)
    weight = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.5, 0.5]]) * probability[:, :2] * EXPERTS
    routing = Routing(torch.tensor([[0, 1]] * 3), weight, probability)
    order = order_by_expert(routing, EXPERTS)
    y = carry(torch.randn(3, WIDTH), routing.weight_NK, order, KINDS["gelu"]())
    assert y[0].abs().max() == 0
    assert order.count_E.tolist() == [2, 1, 0, 0, 0, 0, 0, 0]
    y.sum().backward()
    assert probability.grad is not None


def test_capacity_drops_the_lightest_whatever_the_order_of_rows() -> None:
    weight = torch.tensor([[0.2], [0.9], [0.5], [0.7]])
    expert = torch.zeros(4, 1, dtype=torch.int64)
    for shift in range(4):
        order = order_by_expert(Routing(expert, weight.roll(shift, 0), torch.ones(4, 1)), 1, capacity=2)
        assert order.dropped == 2
        assert sorted(((order.row_A - shift) % 4).tolist()) == [1, 3]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_softmax_router_in_evaluation_does_not_look_at_other_rows(k: int) -> None:
    router = SoftmaxRouter(WIDTH, EXPERTS, k, noise=True).eval()
    x = torch.randn(20, WIDTH)
    together = router(x)
    for n in (0, 7, 19):
        alone = router(x[n : n + 1])
        assert torch.equal(alone.expert_NK[0], together.expert_NK[n])
        torch.testing.assert_close(alone.weight_NK[0], together.weight_NK[n])
    assert not torch.equal(router.train()(x).probability_NE, together.probability_NE)


def test_weights_are_probabilities_unless_normalised() -> None:
    x = torch.randn(5, WIDTH)
    torch.manual_seed(0)
    plain = SoftmaxRouter(WIDTH, EXPERTS, 2, normalise=False)
    routing = plain(x)
    torch.testing.assert_close(routing.weight_NK, routing.probability_NE.topk(2).values)
    assert (routing.weight_NK.sum(1) < 1).all()


def test_the_bias_of_a_sigmoid_router_evens_out_use() -> None:
    torch.manual_seed(0)
    router = SigmoidRouter(WIDTH, EXPERTS, 2, rate=0.01)
    with torch.no_grad():
        router.gate.weight[0] += 1.0  # one expert that everybody wants
    x = torch.randn(512, WIDTH) + 0.3
    counts = [torch.bincount(router(x).expert_NK.flatten(), minlength=EXPERTS)]
    for _ in range(200):
        router.rebalance(counts[-1])
        counts.append(torch.bincount(router(x).expert_NK.flatten(), minlength=EXPERTS))
    assert counts[0].max() > 1.8 * 128
    assert counts[-1].max() < 1.25 * 128
    torch.testing.assert_close(router(x).weight_NK.sum(1), torch.ones(512))


def test_a_cluster_gate_is_the_clusters_own() -> None:
    router = ClusterRouter(WIDTH, 3, EXPERTS, 2)
    x, cluster = torch.randn(9, WIDTH), torch.arange(9) % 3
    found = router(x, cluster).probability_NE
    for n in range(9):
        torch.testing.assert_close(found[n], (x[n] @ router.weight_CDE[n % 3]).softmax(-1))


def test_an_expert_starts_the_same_wherever_it_is_placed() -> None:
    whole = FeedForwardExperts(WIDTH, 8, 4, seed=7)
    part = FeedForwardExperts(WIDTH, 8, 4, seed=7)
    part.keep(2, 2)
    assert torch.equal(whole.up_EDF[2:], part.up_EDF)
    assert torch.equal(whole.down_EFD[2:], part.down_EFD)
    assert not torch.equal(whole.up_EDF[0], whole.up_EDF[1])


def test_every_parameter_of_a_layer_moves() -> None:
    torch.manual_seed(0)
    shared = torch.nn.Linear(WIDTH, WIDTH)
    layer = MixtureOfExperts(SoftmaxRouter(WIDTH, EXPERTS, 2), KINDS["gelu"](), shared=shared)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=0)
    mixed = layer(torch.randn(200, WIDTH))
    (mixed.y_ND**2).sum().backward()
    optimizer.step()
    assert [name for name, p in layer.named_parameters() if torch.equal(p, before[name])] == []
    assert mixed.order.count_E.sum() == 400


def test_a_capacity_factor_reports_what_it_dropped() -> None:
    torch.manual_seed(0)
    layer = MixtureOfExperts(SoftmaxRouter(WIDTH, EXPERTS, 1), KINDS["gelu"](), capacity_factor=1.0)
    mixed = layer(torch.randn(80, WIDTH))
    assert mixed.order.count_E.max() <= 10
    assert mixed.order.dropped == 80 - mixed.order.count_E.sum()
    assert mixed.order.dropped > 0


@pytest.mark.parametrize("k", [0, EXPERTS + 1])
def test_a_k_that_cannot_be_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be in \[1, {EXPERTS}\], got {k}"):
        SoftmaxRouter(WIDTH, EXPERTS, k)


@pytest.mark.parametrize("counts", [[0, 0, 3, 200, 0], [5], [40, 41, 39, 0, 0], [1, 300, 1, 300, 1]])
@pytest.mark.parametrize("call_rows", [0, 32, 10_000])
def test_segments_hold_every_expert_once_and_pad_only_where_it_pays(counts: list[int], call_rows: int) -> None:
    grouping = group(torch.tensor(counts), call_rows)
    assert grouping.segments is not None
    experts = [e for s in grouping.segments for e in range(s.first, s.first + s.experts)]
    assert experts == list(range(len(counts)))
    for s in grouping.segments:
        assert s.rows == max(counts[s.first : s.first + s.experts])
    padding = grouping.total(sum(counts)) - sum(counts)
    assert padding <= call_rows * len(counts)
    if call_rows == 0:
        assert padding == 0


@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=9),
    width=st.integers(1, 7),
    hidden=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_batched_and_library_products_agree(counts: list[int], width: int, hidden: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(len(counts), width, hidden, requires_grad=True)
    count_E = torch.tensor(counts)
    found = []
    for grouping in (group(count_E, 20), Grouping(count_E, None)):
        torch.manual_seed(seed)
        parts = [torch.randn(count, width, requires_grad=True) for count in counts]
        places = [torch.zeros(rows - len(p), width) for p, rows in zip(parts, _rows(grouping, counts), strict=True)]
        x = torch.cat([row for pair in zip(parts, places, strict=True) for row in pair])
        y = grouped_product(x, weight, grouping)
        kept = torch.cat([y[start : start + n] for start, n in zip(grouping.start_E.tolist(), counts, strict=True)])
        found.append([kept, *torch.autograd.grad(kept.square().sum(), [weight, *parts])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def _rows(grouping: Grouping, counts: list[int]) -> list[int]:
    """Rows of every expert, padding included."""
    return counts if grouping.segments is None else [s.rows for s in grouping.segments for _ in range(s.experts)]


@pytest.mark.parametrize("capacity_factor", [0.0, 0.5])
@pytest.mark.parametrize("router", [SoftmaxRouter, SigmoidRouter])
def test_a_row_is_mixed_alike_alone_and_in_company(router: type, capacity_factor: float) -> None:
    torch.manual_seed(0)
    layer = MixtureOfExperts(router(WIDTH, EXPERTS, 2), KINDS["swiglu"](), capacity_factor=capacity_factor).eval()
    x = torch.randn(25, WIDTH)
    together = layer(x).y_ND
    for n in (0, 11, 24):
        torch.testing.assert_close(layer(x[n : n + 1]).y_ND[0], together[n], rtol=1e-5, atol=1e-6)


def test_fine_grained_experts_cost_the_same() -> None:
    coarse, fine = FeedForwardExperts(WIDTH, 24, 4), fine_grained(WIDTH, 24, 4, 3)
    assert (fine.num_experts, fine.up_EDF.shape[2]) == (12, 8)
    assert sum(p.numel() for p in coarse.parameters()) == sum(p.numel() for p in fine.parameters())
    with pytest.raises(ValueError, match="hidden width 24 does not divide into 5 parts"):
        fine_grained(WIDTH, 24, 4, 5)


def test_a_batch_that_does_not_count_takes_no_room() -> None:
    routing = keep_top_k(torch.randn(30, EXPERTS).softmax(-1), 1)
    assert order_by_expert(routing, EXPERTS, capacity=1).dropped > 0
    order = order_by_expert(routing, EXPERTS, capacity=1, counting=False)
    assert (order.dropped, len(order.row_A)) == (0, 30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", ["all", "some", "none", "no rows"])
def test_where_the_host_knows_no_sizes_rows_are_mixed_as_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, used: str
) -> None:
    """Also an expert without rows, choices of weight 0, and nothing at all: gradients are zeros, not what lay there."""
    torch.manual_seed(0)
    experts = FeedForwardExperts(8, 16, 4).to(dtype)
    rows = 0 if used == "no rows" else 6
    expert = torch.tensor([[0, 2], [2, 0], [3, 0], [2, 3], [0, 3], [3, 2]])[:rows]
    weight = torch.rand(rows, 2) + 0.1
    weight = weight * (torch.arange(2 * rows).view(-1, 2) % 3 > 0) if used == "some" else weight
    weight = (weight * 0 if used == "none" else weight).requires_grad_()
    x = torch.randn(rows, 8).to(dtype).requires_grad_()
    found = []
    for elsewhere in (False, True):
        if elsewhere:
            monkeypatch.setattr(transfer, "host_knows", lambda value: False)
        order = order_by_expert(Routing(expert, weight, torch.zeros(rows, 4)), 4)
        y = carry(x, weight, order, experts)
        assert order.count_E.tolist() == torch.bincount(expert[weight > 0], minlength=4).tolist()
        found.append([y, *torch.autograd.grad(y.float().square().sum(), [x, weight, *experts.parameters()])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert not found[1][3][1].any()


def test_experts_that_split_their_rows_are_told_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    experts = UnlikeExperts([nn.Linear(8, 8) for _ in range(3)]).bfloat16()
    weight, x = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.randn(2, 8).bfloat16()
    routing = Routing(torch.tensor([[2, 0], [2, 1]]), weight, torch.zeros(2, 3))
    wanted = carry(x, weight, order_by_expert(routing, 3), experts)
    monkeypatch.setattr(transfer, "host_knows", lambda value: False)
    torch.testing.assert_close(carry(x, weight, order_by_expert(routing, 3), experts), wanted)


def test_a_gate_per_cluster_gives_the_same_where_the_host_knows_no_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    router = ClusterRouter(8, 3, 4, 2)
    x, cluster = torch.randn(7, 8), torch.tensor([2, 0, 0, 2, 0, 2, 0])
    wanted = router(x, cluster)
    monkeypatch.setattr(transfer, "host_knows", lambda value: False)
    found = router(x, cluster)
    assert found.expert_NK.tolist() == wanted.expert_NK.tolist()
    torch.testing.assert_close(found.weight_NK, wanted.weight_NK)
