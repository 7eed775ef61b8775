import copy
from typing import Any

import pytest
import torch

from rec.errors import ConfigError
from rec.moe.dispatch import carry, order_by_expert
from rec.moe.experts import FeedForwardExperts
from rec.moe.routers import ClusterRouter, SoftClusterRouter, SoftmaxRouter
from rec.moe.routing import Routing
from rec.nn.language.causal import causal_model, decoder_layers
from rec.nn.language.gated import GatedConfig, balance_terms, expert_width, gate_layers, shuffled_gates, slice_into
from tests.support.small import small, states

B, T, VOCABULARY, CLUSTERS = 3, 7, 40, 3


def built(seed: int = 0, model: Any = None, clusters: int = CLUSTERS, **changes: Any) -> tuple[Any, Any, Any]:
    model = model or causal_model(small(), VOCABULARY, seed)
    layers, context = gate_layers(model, GatedConfig(**changes), clusters, seed)
    return model.eval(), layers, context


def tell(context: Any, kept_BT: torch.Tensor, cluster_B: torch.Tensor) -> torch.Tensor:
    gate_N = cluster_B[:, None].expand_as(kept_BT)[kept_BT]
    context.start(kept_BT, gate_N)
    return gate_N


def run(model: Any, context: Any, token_BT: torch.Tensor, cluster_B: torch.Tensor) -> torch.Tensor:
    kept_BT = token_BT >= 0
    tell(context, kept_BT, cluster_B)
    found: torch.Tensor = model.get_decoder()(
        input_ids=token_BT.clamp(min=0), attention_mask=kept_BT.long()
    ).last_hidden_state
    return found


@pytest.fixture
def token_BT() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (B, T), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("experts", "fine", "hidden"), [(1, 4, 24), (1, 1, 24), (2, 3, 24), (1, 5, 24), (1, 3, 400)])
def test_all_slices_with_weight_1_are_the_dense_network(experts: int, fine: int, hidden: int) -> None:
    dense = decoder_layers(causal_model(small(hidden=hidden), VOCABULARY, 1))[0].mlp
    parts = FeedForwardExperts(16, expert_width(hidden, fine), experts * fine, activation="swiglu")
    slice_into(parts, dense, fine)
    dense, parts = dense.double(), parts.double()
    x_ND = torch.randn(10, 16, dtype=torch.float64)
    every = torch.arange(experts * fine).expand(10, -1)
    weight = torch.full(every.shape, 1.0)
    routing = Routing(every, weight, weight)
    found = carry(x_ND, weight, order_by_expert(routing, experts * fine), parts)
    torch.testing.assert_close(found, experts * dense(x_ND), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("experts", "fine"), [(1, 4), (2, 2), (3, 1)])
def test_sliced_layers_with_even_gates_over_all_experts_are_the_model_as_it_was(
    experts: int, fine: int, token_BT: torch.Tensor
) -> None:
    plain = causal_model(small(), VOCABULARY, 1)
    wanted = states(plain.eval(), token_BT)
    model, layers, context = built(
        model=copy.deepcopy(plain), experts=experts, fine=fine, per_row=experts * fine, init="sliced"
    )
    for layer in layers:
        layer.router.weight_CDE.data.zero_()
    torch.testing.assert_close(run(model, context, token_BT, torch.tensor([0, 1, 2])), wanted, atol=1e-5, rtol=1e-5)


def test_beside_a_kept_network_sliced_experts_add_nothing_at_first(token_BT: torch.Tensor) -> None:
    plain = causal_model(small(), VOCABULARY, 1)
    wanted = states(plain.eval(), token_BT)
    model, layers, context = built(model=copy.deepcopy(plain), experts=4, shared="dense", init="sliced")
    found = run(model, context, token_BT, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert all(type(layer.shared).__name__ == "LlamaMLP" for layer in layers)
    found.square().sum().backward()
    assert all(layer.experts.down_EFD.grad.abs().sum() > 0 for layer in layers)


def test_random_experts_start_anew(token_BT: torch.Tensor) -> None:
    plain = causal_model(small(), VOCABULARY, 1)
    wanted = states(plain.eval(), token_BT)
    model, _, context = built(model=copy.deepcopy(plain), experts=4)
    assert not torch.allclose(run(model, context, token_BT, torch.tensor([0, 1, 2])), wanted, atol=1e-2)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_one_gate_is_an_ordinary_top_k_mixture(k: int, token_BT: torch.Tensor) -> None:
    model, layers, context = built(experts=4, per_row=k, clusters=1)
    zero_B = torch.zeros(B, dtype=torch.int64)
    found = run(model, context, token_BT, zero_B)
    for layer in layers:
        plain = SoftmaxRouter(16, 4, k)
        plain.gate.weight.data = layer.router.weight_CDE.data[0].T
        layer.router = Unhinted(plain)
    torch.testing.assert_close(run(model, context, token_BT, zero_B), found, atol=1e-6, rtol=1e-6)


class Unhinted(torch.nn.Module):
    """An ordinary gate, which is told nothing of clusters."""

    def __init__(self, router: torch.nn.Module) -> None:
        super().__init__()
        self.router = router

    def forward(self, x_ND: torch.Tensor, _: torch.Tensor) -> Routing:
        found: Routing = self.router(x_ND)
        return found


def test_every_token_has_its_own_pairs_gate_after_shuffling(token_BT: torch.Tensor) -> None:
    model, _, context = built(experts=4)
    cluster_B = torch.tensor([2, 0, 1])
    found = run(model, context, token_BT, cluster_B)
    for order in ([1, 2, 0], [2, 1, 0]):
        other = run(model, context, token_BT[order], cluster_B[order])
        torch.testing.assert_close(other, found[order], atol=1e-6, rtol=1e-6)
    changed = run(model, context, token_BT, torch.tensor([2, 1, 1]))
    torch.testing.assert_close(changed[[0, 2]], found[[0, 2]], atol=1e-6, rtol=1e-6)
    assert (changed[1] - found[1]).abs().max() > 1e-3


def test_a_token_does_not_depend_on_company_and_padding_reaches_no_expert(token_BT: torch.Tensor) -> None:
    model, _, context = built(experts=4)
    cluster_B = torch.tensor([2, 0, 1])
    padded = torch.cat([torch.full((B, 3), -1), token_BT], 1)
    padded[0, :5] = -1
    found = run(model, context, padded, cluster_B)
    assert found.isfinite().all()
    kept = int((padded >= 0).sum())
    assert all(len(mixed.y_ND) == kept for mixed in context.mixed.values())
    for row in range(B):
        own = padded[row][padded[row] >= 0][None]
        alone = run(model, context, own, cluster_B[row : row + 1])
        torch.testing.assert_close(alone[0], found[row][padded[row] >= 0], atol=1e-5, rtol=1e-5)


def test_weights_of_a_token_sum_to_1(token_BT: torch.Tensor) -> None:
    model, _, context = built(experts=4, fine=2, per_row=3)
    run(model, context, token_BT, torch.tensor([0, 1, 2]))
    for mixed in context.mixed.values():
        torch.testing.assert_close(mixed.routing.weight_NK.sum(1), torch.ones(B * T))


def test_chosen_layers_alone_are_gated() -> None:
    model, layers, _ = built(experts=4, layers=(1,))
    kinds = [type(layer.mlp).__name__ for layer in decoder_layers(model)]
    assert (kinds, len(layers)) == (["LlamaMLP", "GatedFeedForward"], 1)
    assert built(experts=0)[1] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layers": (2,)}, "experts.layers: no layer 2; the model has 2"),
        ({"layers": (-1,)}, "experts.layers: no layer -1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        built(**changes)


@pytest.mark.parametrize(("experts", "fine", "per_row"), [(2, 1, 3), (1, 1, 2), (1, 4, 5)])
def test_a_token_takes_no_more_experts_than_there_are(experts: int, fine: int, per_row: int) -> None:
    with pytest.raises(ValueError, match=f"per_row: must be at most experts . fine = {experts * fine}, got {per_row}"):
        GatedConfig(experts=experts, fine=fine, per_row=per_row)


def test_only_swiglu_is_sliced() -> None:
    from transformers import PhiConfig, PhiForCausalLM

    form = PhiConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(ConfigError, match=r"experts\.init: 'sliced' needs feed-forward networks of gate_proj"):
        built(model=PhiForCausalLM(form), init="sliced")
    model, _, context = built(model=PhiForCausalLM(form))
    assert run(model, context, torch.tensor([[1, 2]]), torch.tensor([0])).shape == (1, 2, 16)


def test_soft_gates_of_one_cluster_alone_are_its_gate() -> None:
    hard, soft = ClusterRouter(8, 3, 5, 2), SoftClusterRouter(8, 3, 5, 2)
    soft.load_state_dict(hard.state_dict())
    x_ND, cluster_N = torch.randn(12, 8), torch.arange(12) % 3
    one, other = hard(x_ND, cluster_N), soft(x_ND, torch.nn.functional.one_hot(cluster_N, 3))
    torch.testing.assert_close(one.probability_NE, other.probability_NE)
    even = soft(x_ND, torch.full((12, 3), 1 / 3))
    score_NE = sum(x_ND @ soft.weight_CDE[c] for c in range(3)) / 3
    torch.testing.assert_close(even.probability_NE, score_NE.softmax(1))


def test_balance_is_of_every_gate_by_itself(token_BT: torch.Tensor) -> None:
    model, layers, context = built(experts=4, per_row=4)
    for layer in layers:
        layer.router.weight_CDE.data.zero_()
    gate_N = tell(context, token_BT >= 0, torch.tensor([0, 1, 2]))
    model.get_decoder()(input_ids=token_BT)
    terms = balance_terms(layers, list(context.mixed.values()), gate_N, 0.1)
    assert [float(term.mean.detach()) for term in terms.values()] == pytest.approx([1.0, 1.0])
    assert balance_terms(layers, list(context.mixed.values()), gate_N, 0.0) == {}


def test_tokens_of_a_gate_do_not_change_anothers_balance(token_BT: torch.Tensor) -> None:
    found = []
    for other in (1, 2):
        model, layers, context = built(experts=4)
        gate_N = tell(context, token_BT >= 0, torch.tensor([0, other, other]))
        model.get_decoder()(input_ids=token_BT)
        term = next(iter(balance_terms(layers, list(context.mixed.values()), gate_N, 1.0).values()))
        gradient = torch.autograd.grad(term.sum, layers[0].router.weight_CDE)[0]
        found.append(gradient[0])
        assert gradient[3 - other].abs().sum() == 0
    torch.testing.assert_close(*found)


def test_random_gates_follow_from_the_pair_and_have_the_shares_of_clusters() -> None:
    user_B, item_B, share_C = torch.arange(4000) % 80, torch.arange(4000) // 80, torch.tensor([0.5, 0.3, 0.2])
    found = shuffled_gates(user_B, item_B, share_C, 3)
    assert (torch.bincount(found, minlength=3) / 4000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert torch.equal(shuffled_gates(user_B[7:9], item_B[7:9], share_C, 3), found[7:9])
    assert not torch.equal(shuffled_gates(user_B, item_B, share_C, 4), found)


@pytest.mark.parametrize(("hidden", "fine", "width"), [(14_336, 12, 1280), (512, 4, 128), (24, 5, 5), (400, 3, 256)])
def test_experts_have_a_fraction_of_the_width(hidden: int, fine: int, width: int) -> None:
    assert expert_width(hidden, fine) == width


def test_layers_that_compute_again_give_the_same_and_count_once(token_BT: torch.Tensor) -> None:
    found = []
    for checkpointing in (False, True):
        model = causal_model(small(checkpointing=checkpointing), VOCABULARY, 1)
        model, layers, context = built(model=model, experts=4)
        model.train()
        gate_N = tell(context, token_BT >= 0, torch.tensor([0, 1, 2]))
        state_BTD = model.get_decoder()(inputs_embeds=model.get_input_embeddings()(token_BT)).last_hidden_state
        terms = balance_terms(layers, list(context.mixed.values()), gate_N, 0.1)
        (state_BTD.square().sum() + sum(term.sum for term in terms.values())).backward()
        found.append([layer.usage.total for layer in layers] + [p.grad for p in model.parameters()])
    assert float(found[0][0][:4].sum()) == B * T * 2
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
