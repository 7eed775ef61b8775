"""What the keys of a mixture do to the layer."""

import torch

from rec.moe.config import MixtureConfig


def test_routed_experts_that_start_at_zero_leave_what_is_shared() -> None:
    layer = MixtureConfig(experts=4, shared=True, zero_start=True).layer(6, 8, 0, 5)
    x = torch.randn(9, 6)
    assert layer.shared is not None
    torch.testing.assert_close(layer(x).y_ND, layer.shared(x))
    layer(x).y_ND.square().sum().backward()
    assert bool((layer.experts.down_EFD.grad.abs().amax((1, 2)) > 0).all())


def test_a_scale_of_k_makes_even_weights_the_sum_of_the_experts() -> None:
    layer = MixtureConfig(experts=3, per_row=3, routed_scale=3.0).layer(6, 8, 0)
    layer.router.gate.weight.data.zero_()
    x = torch.randn(9, 6)
    every = sum(layer.experts.member(e)(x) for e in range(3))
    torch.testing.assert_close(layer(x).y_ND, every)


def test_a_gate_sees_the_columns_it_is_given_and_no_others() -> None:
    for router in ("softmax", "sigmoid"):
        layer = MixtureConfig(experts=4, router=router).layer(6, 8, 0, gate_width=2)
        x, other = torch.randn(9, 6), torch.randn(9, 6)
        other[:, :2] = x[:, :2]
        torch.testing.assert_close(layer(x).routing.weight_NK, layer(other).routing.weight_NK)
        other[:, 0] += 1
        assert not torch.equal(layer(x).routing.weight_NK, layer(other).routing.weight_NK)
