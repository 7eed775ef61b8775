"""Scores of pairs by parts equal those of the network on every pair's whole row."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rec.moe import pairs
from rec.moe.config import MixtureConfig
from rec.moe.experts import FeedForward, UnlikeExperts
from rec.moe.layer import Mixed, MixtureOfExperts
from rec.moe.pairs import LinearPairScores, PairScores, splits
from rec.moe.routers import SoftmaxRouter
from tests.support.moe import LowRankExperts

LEFT, RIGHT, INNER, OUT = 12, 20, 4, 6
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"experts": 0},
    "plain swiglu": {"experts": 0, "activation": "swiglu"},
    "top-2 of 4": {"experts": 4},
    "top-1 of 4": {"experts": 4, "per_row": 1},
    "dense": {"experts": 3, "per_row": 3},
    "one": {"experts": 1, "per_row": 1},
    "sigmoid": {"experts": 4, "router": "sigmoid"},
    "shared, scaled": {"experts": 4, "shared": True, "routed_scale": 2.0},
    "starts at zero": {"experts": 4, "shared": True, "zero_start": True},
    "fine, swiglu, noise": {"experts": 4, "fine": 2, "shared": True, "activation": "swiglu", "noise": True},
    "limited": {"experts": 4, "capacity_factor": 1.0},
}


def network_of(keys: dict[str, Any], inner: int, gate_width: int = 0) -> nn.Module:
    width = LEFT + RIGHT + inner
    config = MixtureConfig.model_validate(keys)
    if not config.experts:
        return FeedForward(width, 16, out=OUT, activation=config.activation).eval()
    layer = config.layer(width, 16, 0, OUT, gate_width).eval()
    if config.router == "sigmoid":
        layer.router.moves_E.copy_(torch.tensor([200, -100, 50, 0]))
    return layer


def sides(inner: int, left: int = 5, right: int = 17) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (left, LEFT), (left, inner), (right, RIGHT), (right, inner)
    left_BL, inner_BW, right_IR, inner_IW = (torch.randn(*shape, generator=generator) for shape in shapes)
    return left_BL, inner_BW, right_IR, inner_IW


def head_of(seed: int = 2) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(seed)
    return nn.Linear(OUT, 7), nn.Linear(7, 1)


def whole_rows(left_BL: Tensor, inner_BW: Tensor, right_IR: Tensor, inner_IW: Tensor) -> Tensor:
    """Return every pair's whole row, pair by pair."""
    rows = [
        torch.cat([left_BL[b], right_IR[i], inner_BW[b] * inner_IW[i]])
        for b in range(len(left_BL))
        for i in range(len(right_IR))
    ]
    return torch.stack(rows)


def obvious(network: nn.Module, up: nn.Linear, down: nn.Linear, both: tuple[Tensor, ...]) -> Tensor:
    """Return all scores by the network on whole rows, the slow and obvious way."""
    mixed = network(whole_rows(*both))
    y_NO = mixed.y_ND if isinstance(mixed, Mixed) else mixed
    return down(nn.functional.gelu(up(y_NO))).view(len(both[0]), -1)


@pytest.mark.parametrize("gate_width", [0, LEFT, 5], ids=["gate on the pair", "on the left row", "on some of it"])
@pytest.mark.parametrize("inner", [INNER, 0], ids=["product", "no product"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_scores_by_parts_equal_those_of_whole_rows(
    name: str, inner: int, gate_width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, (up, down), both = network_of(NETWORKS[name], inner, gate_width), head_of(), sides(inner)
    assert splits(network, LEFT)
    expected = obvious(network, up, down, both)
    left_BL, inner_BW, right_IR, inner_IW = both
    for tile, kept_bytes in ((2048, 1 << 28), (5, 1 << 28), (5, 0)):
        monkeypatch.setattr(pairs, "TILE", tile)
        monkeypatch.setattr(pairs, "KEPT_BYTES", kept_bytes)
        by_parts = PairScores(network, (LEFT, RIGHT, inner), up, down)
        right = by_parts.right(right_IR, inner_IW)
        assert (right.kept is None) is (kept_bytes == 0)
        torch.testing.assert_close(by_parts.scores(left_BL, inner_BW, right), expected, rtol=1e-5, atol=1e-5)
        some = by_parts.scores(left_BL[:2], inner_BW[:2], right, slice(4, 13))
        torch.testing.assert_close(some, expected[:2, 4:13], rtol=1e-5, atol=1e-5)
        assert by_parts.scores(left_BL[:0], inner_BW[:0], right).shape == (0, 17)


def test_weights_in_bfloat16_score_as_the_same_weights_in_float32() -> None:
    network, (up, down) = network_of(NETWORKS["shared, scaled"], INNER).bfloat16(), head_of()
    up, down = up.bfloat16(), down.bfloat16()
    both = tuple(side.bfloat16() for side in sides(INNER))
    exact = [copy.deepcopy(module).float() for module in (network, up, down)]
    expected = obvious(*exact, tuple(side.float() for side in both))
    by_parts = PairScores(network, (LEFT, RIGHT, INNER), up, down)
    score_BI = by_parts.scores(both[0], both[1], by_parts.right(both[2], both[3]))
    assert score_BI.dtype == torch.float32
    torch.testing.assert_close(score_BI, expected, rtol=1e-5, atol=1e-5)


def test_a_linear_layer_scores_by_parts_too() -> None:
    torch.manual_seed(0)
    for inner in (INNER, 0):
        network, head = nn.Linear(LEFT + RIGHT + inner, OUT), nn.Linear(OUT, 1)
        both = sides(inner)
        expected = head(network(whole_rows(*both))).view(5, 17)
        by_parts = LinearPairScores(network, (LEFT, RIGHT, inner), head)
        right = by_parts.right(both[2], both[3])
        torch.testing.assert_close(by_parts.scores(both[0], both[1], right), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            by_parts.scores(both[0], both[1], right, slice(3, 9)), expected[:, 3:9], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("keys", [{"experts": 4}, {"experts": 4, "router": "sigmoid"}, {"experts": 3, "per_row": 3}])
@pytest.mark.parametrize("gate_width", [0, LEFT])
def test_who_listens_to_the_layer_hears_each_left_rows_mean_routing(keys: dict[str, Any], gate_width: int) -> None:
    network, both = network_of(keys, INNER, gate_width), sides(INNER)
    routing = network(whole_rows(*both)).routing
    heard: list[Mixed] = []
    network.register_forward_hook(lambda _, __, mixed: heard.append(mixed))
    by_parts = PairScores(network, (LEFT, RIGHT, INNER), *head_of())
    by_parts.scores(both[0], both[1], by_parts.right(both[2], both[3]))
    (mixed,) = heard
    torch.testing.assert_close(mixed.routing.dense(), routing.dense().view(5, 17, -1).mean(1))
    torch.testing.assert_close(mixed.routing.probability_NE, routing.probability_NE.view(5, 17, -1).mean(1))
    used_E = (routing.dense().view(5, 17, -1).mean(1) > 0).sum(0)
    assert mixed.count_E.tolist() == used_E.tolist()


def test_what_cannot_be_taken_apart_is_told() -> None:
    width = LEFT + RIGHT
    layer = network_of({"experts": 4}, 0)
    assert isinstance(layer, MixtureOfExperts)
    assert splits(layer, LEFT)
    assert not splits(layer.train(), LEFT), "noise and capacity need whole batches"
    layer.eval().carry = lambda x, weight, order, experts: x
    assert not splits(layer, LEFT), "experts that are elsewhere"
    assert not splits(network_of({"experts": 4}, 0, LEFT + 1), LEFT), "a gate on columns of both sides"
    few = UnlikeExperts([nn.Linear(width, width) for _ in range(2)])
    for router, experts in (
        (SoftmaxRouter(width, 2, 1), few),
        (SoftmaxRouter(width, 2, 1), LowRankExperts(width, 3, 2)),
        (nn.Linear(width, 4), network_of({"experts": 4}, 0).experts),
    ):
        assert not splits(MixtureOfExperts(router, experts).eval(), LEFT)
    assert not splits(nn.Linear(width, 1), LEFT)
