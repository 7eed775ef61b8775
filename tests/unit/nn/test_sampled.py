"""Propagation over drawn neighbours, beside the whole matrix."""

import torch

from rec.nn.graph import mean_of_layers, normalised
from rec.nn.sampled import drawn_rows, sampled_layers

NODES = 30


def graph() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    row, column = torch.randint(0, NODES - 2, (2, 70), generator=generator)  # the last two nodes have no edge
    weight = torch.rand(70, generator=generator)
    return normalised(torch.cat([row, column]), torch.cat([column, row]), torch.cat([weight, weight]), NODES)


def test_rows_with_room_for_all_neighbours_are_exact() -> None:
    matrix, x = graph(), torch.randn(NODES, 4, requires_grad=True)
    node = torch.tensor([1, 5, 5, 28, 29, 0])
    near = drawn_rows(matrix, node, NODES)
    y = torch.randn(len(node), 4)
    found = near.times(x[near.node_Y])
    (found * y).sum().backward()
    found_grad, x.grad = x.grad, None
    wanted = matrix.to_dense()[node] @ x
    (wanted * y).sum().backward()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found_grad, x.grad)


def test_nodes_without_any_neighbour_give_zeros() -> None:
    near = drawn_rows(graph(), torch.tensor([28, 29]), 3)
    assert len(near.node_Y) == 0
    assert torch.equal(near.times(torch.zeros(0, 4)), torch.zeros(2, 4))


def test_drawn_neighbours_are_right_in_the_mean_and_no_more_than_asked_for() -> None:
    torch.manual_seed(0)
    matrix, x, node = graph(), torch.randn(NODES, 4), torch.arange(NODES)
    draws = []
    for _ in range(500):
        near = drawn_rows(matrix, node, 2)
        assert int((near.matrix_XY.crow_indices().diff()).max()) <= 2
        draws.append(near.times(x[near.node_Y]))
    drawn = torch.stack(draws)
    error = (drawn.mean(0) - matrix.to_dense() @ x).abs()
    deviation = drawn.std(0)
    assert bool((error <= 5 * deviation / 500**0.5 + 1e-5).all())
    assert float(deviation.max()) > 0.1


def test_layers_at_some_nodes_are_those_of_the_whole_graph() -> None:
    matrix, x, node = graph(), torch.randn(NODES, 4), torch.tensor([0, 3, 4, 20, 29])
    for layers in (0, 1, 3):
        found = torch.stack(sampled_layers(matrix, lambda ids: x[ids], node, layers, NODES)).mean(0)
        torch.testing.assert_close(found, mean_of_layers(matrix, x, layers)[node])
