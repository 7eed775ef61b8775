"""Rows to places and back, and experts of a segment, against their definitions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rec import transfer
from rec.moe import dispatch
from rec.moe.dispatch import order_by_expert
from rec.moe.experts import FeedForwardExperts, activate
from rec.moe.grouping import group, grouped_product
from rec.moe.routing import Routing
from rec.moe.rows import Combine, Gather, summed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("choices", [1, 2, 5])
def test_places_are_summed_and_rounded_once(dtype: torch.dtype, choices: int) -> None:
    torch.manual_seed(0)
    y_PD, place_NK = torch.randn(9, 16).to(dtype), torch.randint(0, 9, (7, choices))
    weight_NK = torch.rand(7, choices)
    wanted = (y_PD.double()[place_NK] * weight_NK.to(dtype).double()[:, :, None]).sum(1)
    assert_equal(summed(y_PD, place_NK, weight_NK), wanted)
    assert_equal(summed(y_PD.T.contiguous().T, place_NK), y_PD.double()[place_NK].sum(1))


def assert_equal(found: Tensor, wanted: Tensor) -> None:
    half = 2**-8 if found.dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found.double(), wanted, rtol=half, atol=1e-6)


@pytest.mark.parametrize("used", [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0]])
def test_gradients_of_gathering_and_combining_are_those_of_the_definition(used: list[int]) -> None:
    """Row 0 fills the padding; a slot that is not in use points to the first place, and neither adds anything."""
    torch.manual_seed(0)
    used_S = torch.tensor(used, dtype=torch.bool)
    place_S = torch.where(used_S, torch.tensor([5, 0, 2, 6, 3, 1]), 0)
    row_P = torch.zeros(8, dtype=torch.int64).scatter_(0, place_S[used_S], (torch.arange(6) // 2)[used_S])
    x_ND = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weight_NK = (torch.rand(3, 2, dtype=torch.float64) * used_S.view(3, 2)).requires_grad_()
    mask = None if used_S.all() else used_S
    y_ND = Combine.apply(Gather.apply(x_ND, row_P, place_S, mask).sin(), weight_NK, row_P, place_S)
    wanted_ND = (x_ND.sin()[:, None] * (weight_NK * used_S.view(3, 2))[:, :, None]).sum(1)
    torch.testing.assert_close(y_ND, wanted_ND)
    (grad_ND, grad_NK), wanted = (torch.autograd.grad(y.square().sum(), [x_ND, weight_NK]) for y in (y_ND, wanted_ND))
    torch.testing.assert_close(grad_ND, wanted[0])
    torch.testing.assert_close(grad_NK * used_S.view(3, 2), wanted[1])


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
@pytest.mark.parametrize("counts", [[3, 0, 40, 2], [0, 0, 5, 5], [60, 1, 0, 0]])
def test_both_layers_of_a_segment_give_what_two_products_give(counts: list[int], frozen: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    experts, grouping = FeedForwardExperts(6, 10, 4, out=5), group(torch.tensor(counts), 8)
    x_PD = torch.randn(grouping.total(sum(counts)), 6, requires_grad=True)
    inputs = [x_PD, experts.up_EDF, experts.down_EFD]
    for number in frozen:
        inputs[number].requires_grad_(False)
    asked = [value for value in inputs if value.requires_grad]
    hidden_PF = activate(grouped_product(x_PD, experts.up_EDF, grouping), "gelu")
    pair = experts(x_PD, grouping), grouped_product(hidden_PF, experts.down_EFD, grouping)
    torch.testing.assert_close(*pair)
    grad_PO = torch.randn(5).expand(len(x_PD), 5)  # as a sum's gradient comes, not contiguous
    for found, wanted in zip(*(torch.autograd.grad(y, asked, grad_PO) for y in pair), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weight", [[[0.5, 0.5]] * 4, [[0.5, 0.0], [0.0, 0.0], [0.2, 0.3], [0.0, 1.0]]])
@pytest.mark.parametrize("call_rows", [0, 100])
def test_places_are_the_same_where_the_host_knows_them_and_where_not(
    monkeypatch: pytest.MonkeyPatch, weight: list[list[float]], call_rows: int
) -> None:
    routing = Routing(torch.tensor([[2, 0], [0, 1], [2, 1], [0, 2]]), torch.tensor(weight), torch.zeros(4, 3))
    order = order_by_expert(routing, 3)
    grouping = group(order.count_E, call_rows)
    here, there = (find(order, grouping, 8) for find in (dispatch._places_on_host, dispatch._places))
    for one, other in zip(here, there, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    monkeypatch.setattr(transfer, "host_knows", lambda value: False)
    other = dispatch.sized(order_by_expert(routing, 3))
    assert order.counts == other.counts
    for name in ("row_A", "slot_A", "expert_A", "count_E"):
        assert torch.equal(getattr(order, name), getattr(other, name)), name


def test_an_order_that_was_cut_to_its_assignments_has_places_for_all_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As other ranks' rows come: their sizes are told, and the products' need not be."""
    torch.manual_seed(0)
    experts = FeedForwardExperts(8, 16, 3).bfloat16()
    x_ND, weight_NK = torch.randn(4, 8).bfloat16(), torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.2, 0.3], [0.0, 1.0]])
    routing = Routing(torch.tensor([[2, 0], [0, 1], [2, 1], [0, 2]]), weight_NK, torch.zeros(4, 3))
    order = order_by_expert(routing, 3)
    wanted = dispatch.carry(x_ND, weight_NK, order, experts)
    monkeypatch.setattr(transfer, "host_knows", lambda value: False)
    order = replace(order_by_expert(routing, 3), counts=order.counts)
    torch.testing.assert_close(dispatch.carry(x_ND, weight_NK, order, experts), wanted)
