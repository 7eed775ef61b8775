"""Evidence of experts: what groups tell of them, how alike they are, and layers without one of them."""

import numpy as np
import pytest
import torch

from rec.moe.evidence import mutual_information, output_similarity, outputs, rows_of, switched_off
from rec.moe.experts import FeedForwardExperts
from rec.moe.figures import layer_labels
from rec.moe.layer import MixtureOfExperts
from rec.moe.routers import ClusterRouter, SoftmaxRouter

WIDTH, EXPERTS = 6, 4


def layer(k: int = 2) -> MixtureOfExperts:
    torch.manual_seed(0)
    return MixtureOfExperts(SoftmaxRouter(WIDTH, EXPERTS, k), FeedForwardExperts(WIDTH, 8, EXPERTS)).eval()


def experts_of(module: MixtureOfExperts) -> FeedForwardExperts:
    assert isinstance(module.experts, FeedForwardExperts)
    return module.experts


ROWS = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        ([[5, 0], [0, 5]], np.log(2)),
        ([[1, 2, 3], [2, 4, 6], [0, 0, 0]], 0),
        ([[3, 1], [1, 3]], 0.75 * np.log(1.5) + 0.25 * np.log(0.5)),
        ([[1, 0, 0, 0], [0, 1, 1, 2]], np.log(5) - 0.8 * np.log(4)),
        ([[4, 2]], 0),
        ([[0, 0], [0, 0]], 0),
    ],
)
def test_what_a_group_tells_of_the_expert(count: list[list[int]], wanted: float) -> None:
    assert mutual_information(np.array(count)) == pytest.approx(wanted, abs=1e-12)


def test_experts_with_equal_weights_give_the_same_and_others_do_not() -> None:
    module = layer()
    experts = experts_of(module)
    with torch.no_grad():
        for parameter in (experts.up_EDF, experts.down_EFD):
            parameter[1] = parameter[0]
        experts.up_EDF[2] = experts.up_EDF[0]
        experts.down_EFD[2] = -3 * experts.down_EFD[0]
        experts.down_EFD[3] = 0
    found = output_similarity(module, ROWS)
    wanted = torch.tensor([[1.0, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_outputs_are_those_of_each_expert_alone() -> None:
    module = layer()
    found = outputs(module, ROWS)
    assert found.shape == (EXPERTS, len(ROWS), WIDTH)
    for expert in range(EXPERTS):
        torch.testing.assert_close(found[expert], experts_of(module).member(expert)(ROWS))
    assert output_similarity(layer(), ROWS[:0]).tolist() == torch.zeros(EXPERTS, EXPERTS).tolist()


@pytest.mark.parametrize(
    ("k", "off", "experts", "weights"),
    [
        (1, 0, [1], [4 / 7]), (1, 3, [0], [8 / 14]), (2, 0, [1, 2], [2 / 3, 1 / 3]), (2, 3, [0, 1], [2 / 3, 1 / 3]),
        (3, 1, [0, 2, 3], [8 / 11, 2 / 11, 1 / 11]), (4, 1, [0, 2, 3, 1], [8 / 11, 2 / 11, 1 / 11, 0]),
    ],
)  # fmt: skip
def test_the_share_of_an_expert_that_is_off_goes_to_the_next_choices(
    k: int, off: int, experts: list[int], weights: list[float]
) -> None:
    """Probabilities are as 8 to 4 to 2 to 1."""
    module = layer(k)
    gate = module.router.gate
    assert isinstance(gate, torch.nn.Linear)
    with torch.no_grad():
        gate.weight.zero_()
        gate.weight[:, 0] = torch.tensor([8.0, 4, 2, 1]).log()
    x_1D = torch.eye(WIDTH)[:1]
    before = module(x_1D)
    with switched_off(module, off):
        found = module(x_1D)
    assert found.routing.expert_NK.tolist() == [experts]
    assert found.routing.weight_NK[0].tolist() == pytest.approx(weights)
    torch.testing.assert_close(module(x_1D).y_ND, before.y_ND)


def test_gates_of_clusters_do_without_an_expert() -> None:
    router = ClusterRouter(WIDTH, 2, EXPERTS, 1)
    module = MixtureOfExperts(router, FeedForwardExperts(WIDTH, 8, EXPERTS)).eval()
    cluster_N = torch.arange(len(ROWS)) % 2
    for expert in range(EXPERTS):
        with switched_off(module, expert):
            found = module(ROWS, cluster_N)
        assert expert not in found.routing.expert_NK
        assert found.y_ND.isfinite().all()


@pytest.mark.parametrize(("most", "taken"), [(40, 40), (20, 20), (15, 14), (1, 1)])
def test_rows_are_heard_evenly_up_to_a_number(most: int, taken: int) -> None:
    module = layer()
    with rows_of({"a": module}, most) as found:
        module(ROWS)
    assert torch.equal(found["a"], ROWS[:: -(-40 // most)])
    assert len(found["a"]) == taken
    with rows_of({"a": module}, most) as found:
        pass
    assert found == {}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["language.model.layers.0.mlp.mixture", "language.model.layers.11.mlp.mixture"], ["layer 0", "layer 11"]),
        (["encoder.blocks.0.feedforward.layer"], ["layer 0"]),
        (["blocks.2", "mixture"], ["layer 2", "mixture"]),
        (["blocks.0.a", "blocks.0.b", "blocks.1.a"], ["blocks.0.a", "blocks.0.b", "layer 1"]),
        (["experts.0", "layers.1.layers.2.mixture"], ["experts.0", "layers.1.layers.2.mixture"]),
    ],
)
def test_layers_are_called_by_their_places(names: list[str], labels: list[str]) -> None:
    assert list(layer_labels(names).values()) == labels
