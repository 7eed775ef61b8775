"""Adjacency, propagation and drawn edges, beside dense matrices."""

import numpy as np
import scipy.sparse
import torch

from rec.nn.graph import (
    adjacency,
    bipartite,
    drawn_edges,
    mean_of_layers,
    observed_products,
    product,
    profiles,
    pseudo_edges,
)
from rec.nn.negatives import Unseen

USER, ITEM = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 2, 2])


def dense() -> torch.Tensor:
    matrix = torch.zeros(7, 7)  # users 0 to 2 and items 0 to 3; user 3 does not exist, item 3 has no edge
    matrix[USER, 3 + ITEM] = 1
    matrix += matrix.T.clone()
    degree = matrix.sum(1)
    scale = torch.where(degree > 0, degree.clamp(min=1).rsqrt(), torch.zeros(()))
    return scale[:, None] * matrix * scale


def test_propagation_equals_the_dense_matrix() -> None:
    graph, wanted = bipartite(USER, ITEM, 3, 4), dense()
    torch.testing.assert_close(graph.to_dense(), wanted)
    x = torch.randn(7, 5, requires_grad=True)
    y = torch.randn(7, 5)
    (mean_of_layers(graph, x, 2) * y).sum().backward()
    found, x.grad = x.grad, None
    ((x + wanted @ x + wanted @ wanted @ x) / 3 * y).sum().backward()
    torch.testing.assert_close(found, x.grad)
    torch.testing.assert_close(mean_of_layers(graph, x, 0), x)


def test_the_gradient_of_a_graph_with_directions_goes_against_them() -> None:
    row, column, weight = torch.tensor([0, 0, 2]), torch.tensor([1, 2, 1]), torch.tensor([0.5, 2.0, 1.0])
    forward, backward = adjacency(row, column, weight, 3), adjacency(column, row, weight, 3)
    x = torch.randn(3, 2, requires_grad=True)
    y = torch.randn(3, 2)
    (product(forward, x, backward) * y).sum().backward()
    torch.testing.assert_close(x.grad, forward.to_dense().T @ y)


def test_an_observer_is_told_of_each_product_and_its_gradient_once() -> None:
    graph, x, spent = bipartite(USER, ITEM, 3, 4), torch.randn(7, 5, requires_grad=True), []
    with observed_products(spent.append):
        mean = mean_of_layers(graph, x, 3)
    mean_of_layers(graph, x, 3).sum().backward()
    assert len(spent) == 3
    mean.sum().backward()
    assert len(spent) == 3 + 3
    assert min(spent) > 0


def test_profiles_are_means_of_a_users_items() -> None:
    user, item = torch.tensor([2, 0, 2, 2]), torch.tensor([1, 3, 0, 3])
    x = torch.randn(4, 5, requires_grad=True)
    matrix, transposed = profiles(user, item, 4, 4)
    found = product(matrix, x, transposed)
    wanted = torch.stack([x[3], torch.zeros(5), x[[1, 0, 3]].mean(0), torch.zeros(5)])
    torch.testing.assert_close(found, wanted)
    y = torch.randn(4, 5)
    assert torch.allclose(*(torch.autograd.grad((part * y).sum(), x)[0] for part in (found, wanted)))


def test_pseudo_edges_go_to_the_most_similar_items_that_a_user_has_not() -> None:
    rng = np.random.default_rng(0)
    own = rng.random((40, 25)) < 0.15
    own[3] = False
    similar = np.where(rng.random((25, 25)) < 0.3, rng.integers(1, 4, (25, 25)), 0).astype(np.float32)
    user, item = np.nonzero(own)
    for at_once in (7, 100):
        found = pseudo_edges(user, item, scipy.sparse.csr_array(similar), 40, 4, at_once)
        wanted = []
        for row in range(40):
            if own[row].any():
                score = np.where(own[row], 0, own[row] / own[row].sum() @ similar)
                best = sorted(np.flatnonzero(score > 1e-6), key=lambda i: (-round(score[i], 5), i))[:4]
                wanted += [(row, i) for i in best]
        assert len(found[0]) == len(wanted)
        agree = len(set(zip(*map(np.ndarray.tolist, found), strict=True)) & set(wanted)) / len(wanted)
        assert agree > 0.97  # sums in another order break ties another way


def test_edges_of_popular_nodes_are_drawn_less_often() -> None:
    user, item = torch.arange(400), torch.cat([torch.zeros(200, dtype=torch.int64), torch.arange(1, 201)])
    generator = torch.Generator().manual_seed(0)
    drawn = [drawn_edges(user, item, 0.2, generator) for _ in range(50)]
    assert all(len(kept) == 80 == len(kept.unique()) for kept in drawn)
    popular = np.mean([(kept < 200).float().mean().item() for kept in drawn])
    # 200 edges of weight 200^-1/2 beside 200 of weight 1: a share of 0.066 at first, more as the others run out.
    assert 0.05 < popular < 0.11


def test_what_is_drawn_was_never_seen_and_may_be_drawn() -> None:
    rng = np.random.default_rng(0)
    user, item = np.divmod(rng.permutation(30 * 20)[:400], 20)
    item += 1
    allowed = torch.arange(1, 18)
    unseen = Unseen(torch.from_numpy(user), torch.from_numpy(item), allowed)
    seen = set(zip(user.tolist(), item.tolist(), strict=True))
    who = torch.arange(30).repeat(300)
    pairs = set(zip(who.tolist(), unseen.draw(who).tolist(), strict=True))
    assert not pairs & seen
    assert {i for _, i in pairs} <= set(range(1, 18))
    assert len(pairs) == 30 * 17 - sum(i <= 17 for _, i in seen)  # every one that may be drawn was
