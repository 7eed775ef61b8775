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


def test_a_random_gate_routes_by_the_row_and_stays_as_it_was_drawn() -> None:
    layer, x = MixtureConfig(experts=4, router="random").layer(6, 8, 0), torch.randn(40, 6)
    before = layer.router.gate.weight.clone()
    mixed = layer(x)
    mixed.y_ND.square().sum().backward()
    trained = [weight for weight in layer.parameters() if weight.requires_grad]
    torch.optim.SGD(trained, 0.1).step()
    torch.testing.assert_close(layer.router.gate.weight, before, rtol=0, atol=0)
    assert len(mixed.routing.expert_NK[:, 0].unique()) > 1
    assert torch.equal(layer(x).routing.expert_NK, mixed.routing.expert_NK)


def test_a_uniform_gate_is_the_mean_of_all_experts() -> None:
    layer, x = MixtureConfig(experts=4, per_row=1, fine=2, router="uniform").layer(6, 8, 0), torch.randn(9, 6)
    every = sum(layer.experts.member(e)(x) for e in range(8)) / 8
    torch.testing.assert_close(layer(x).y_ND, every)


def test_controls_have_no_losses_of_a_gate() -> None:
    for router in ("random", "uniform"):
        config = MixtureConfig(experts=3, router=router)
        assert config.terms([config.layer(6, 8, 0)(torch.randn(9, 6))]) == {}
        assert config.twins("model.mixture") == {}
