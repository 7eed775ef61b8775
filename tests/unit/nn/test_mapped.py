"""Graphs whose edges stay in files, beside those in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rec.nn import mapped
from rec.nn.graph import bipartite, drawn_edges, normalised, product, profiles
from rec.nn.mapped import MappedGraph, MappedJoint, MappedProfile, scratch
from rec.nn.negatives import MappedUnseen, Unseen
from rec.nn.sampled import drawn_rows

USERS, ITEMS = 9, 11
"""The last user and item have no edge; item 0 is padding."""


def edges() -> np.ndarray:
    rng = np.random.default_rng(0)
    pair = np.unique(rng.integers(0, USERS - 1, 40) * ITEMS + rng.integers(1, ITEMS - 1, 40))
    edge = np.stack([pair // ITEMS, pair % ITEMS], 1).astype(np.int32)
    return edge[np.lexsort((rng.random(len(edge)), edge[:, 0]))]  # items of a user are in no order


def tables(edge: np.ndarray) -> dict[str, np.ndarray]:
    place = np.argsort(edge[:, 1], kind="stable")
    return {
        "user_count": np.bincount(edge[:, 0], minlength=USERS),
        "item_count": np.bincount(edge[:, 1], minlength=ITEMS),
        "edge_train": edge,
        "edge_by_item_user": edge[place, 0],
        "edge_by_item_place": place,
    }


def whole(edge: np.ndarray) -> torch.Tensor:
    user, item = torch.from_numpy(edge).long().T
    return bipartite(user, item, USERS, ITEMS)


@pytest.fixture(params=[5, 1 << 22])
def at_once(request, monkeypatch) -> int:
    """How many edges are read at once: some, or all."""
    monkeypatch.setattr(mapped, "EDGES_AT_ONCE", request.param)
    return request.param


def test_products_are_those_of_the_matrix_in_memory(at_once: int) -> None:
    edge, x = edges(), torch.randn(USERS + ITEMS, 4, requires_grad=True)
    graph = MappedGraph.of(tables(edge))
    found = product(graph, x)
    torch.testing.assert_close(found, whole(edge).to_dense() @ x)
    y = torch.randn_like(found)
    torch.testing.assert_close(torch.autograd.grad((found * y).sum(), x)[0], whole(edge).to_dense().T @ y)
    user, item = torch.from_numpy(edge).long().T
    mean = profiles(user, item, USERS, ITEMS)[0].to_dense()
    torch.testing.assert_close(MappedProfile(graph) @ x[:ITEMS], mean @ x[:ITEMS])


def test_rows_are_those_of_the_matrix_in_memory() -> None:
    edge, x, node = edges(), torch.randn(USERS + ITEMS, 4), torch.tensor([0, 3, USERS - 1, USERS, USERS + 2])
    near = drawn_rows(MappedGraph.of(tables(edge)), node, 100)
    torch.testing.assert_close(near.times(x[near.node_Y]), whole(edge).to_dense()[node] @ x)


def test_edges_are_drawn_as_in_memory() -> None:
    edge, x = edges(), torch.eye(USERS + ITEMS)
    user, item = torch.from_numpy(edge).long().T
    kept = drawn_edges(user, item, 0.4, torch.Generator().manual_seed(3))
    wanted = bipartite(user[kept], item[kept], USERS, ITEMS)
    torch.testing.assert_close(MappedGraph.of(tables(edge)).drawn(0.4, 3) @ x, wanted.to_dense())


def test_edges_drawn_block_by_block_are_as_many_with_the_same_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = edges()
    user, item = torch.from_numpy(edge).long().T
    share, draws = 0.4, 200
    wanted = torch.zeros(len(edge))
    for seed in range(10 * draws):
        wanted[drawn_edges(user, item, share, torch.Generator().manual_seed(seed))] += 1
    monkeypatch.setattr(mapped, "EDGES_AT_ONCE", 9)
    graph = MappedGraph.of(tables(edge))
    kept = torch.stack([graph._kept(int(share * len(edge)), 1000 * seed) for seed in range(draws)])
    assert bool((kept.sum(1) == int(share * len(edge))).all())
    assert float((kept.sum(0) - wanted / 10).abs().max()) < 5 * (1.1 * draws * 0.25) ** 0.5
    matrix = graph.drawn(share, 0) @ torch.eye(USERS + ITEMS)
    assert torch.equal(matrix, matrix.T)
    assert int((matrix > 0).sum()) == 2 * int(share * len(edge))


def test_negatives_are_drawn_as_in_memory() -> None:
    edge = edges()
    user, item = torch.from_numpy(edge).long().T
    graph, warm = MappedGraph.of(tables(edge)), item.unique()
    pairs = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS))
    known = set(map(tuple, edge.tolist()))
    assert graph.has(*pairs.T).tolist() == [tuple(pair) in known for pair in pairs.tolist()]
    asked = torch.tensor([0, 1, 2, USERS - 1]).repeat(50)
    drawn = []
    for unseen in (Unseen(user, item, warm), MappedUnseen(graph, warm)):
        torch.manual_seed(0)
        drawn.append(unseen.draw(asked))
    assert torch.equal(*drawn)


def test_a_user_with_all_items_is_told() -> None:
    edge = np.array([(0, 1), (0, 2), (1, 1)], np.int32)
    assert MappedUnseen(MappedGraph.of(tables(edge)), torch.tensor([1, 2])).full_F.tolist() == [0]


def test_edges_are_not_copied_and_those_drawn_are_in_files(tmp_path) -> None:
    held = {}
    for name, table in tables(edges()).items():
        np.save(tmp_path / f"{name}.npy", table)
        held[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="c")
    graph = MappedGraph.of(held)
    assert np.shares_memory(graph.item_E.numpy(), held["edge_train"])
    assert np.shares_memory(graph.user_F.numpy(), held["edge_by_item_user"])
    assert np.shares_memory(graph.place_F.numpy(), held["edge_by_item_place"])
    drawn = graph.drawn(0.5, 0)
    address = drawn.item_E.data_ptr()
    maps = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
    ends = ((*(int(end, 16) for end in parts[0].split("-")), parts[-1]) for parts in maps)
    assert [name for first, last, name in ends if first <= address < last] == ["(deleted)"]
    assert scratch(0).shape == (0,)


def test_interactions_in_files_and_further_edges_are_one_normalised_graph(at_once: int) -> None:
    edge, x = edges(), torch.randn(USERS + ITEMS, 4, requires_grad=True)
    one, other = torch.tensor([[1, 2], [2, 3], [3, 1], [10, 4]]).T + USERS
    row, column = torch.cat([one, other]), torch.cat([other, one])
    weight = torch.tensor([0.5, 0.25, 1.0, 2.0]).repeat(2)
    joint = MappedJoint(MappedGraph.of(tables(edge)), row, column, weight)
    user, item = torch.from_numpy(edge).long().T
    ones = torch.ones(2 * len(user))
    rows, columns = torch.cat([user, item + USERS, row]), torch.cat([item + USERS, user, column])
    wanted = normalised(rows, columns, torch.cat([ones, weight]), USERS + ITEMS).to_dense()
    found = product(joint, x)
    torch.testing.assert_close(found, wanted @ x)
    y = torch.randn_like(found)
    torch.testing.assert_close(torch.autograd.grad((found * y).sum(), x)[0], wanted.T @ y)
    node = torch.arange(USERS + ITEMS)
    near = drawn_rows(joint, node, 100)  # more than any node has: nothing is left to chance
    torch.testing.assert_close(near.times(x[near.node_Y]), wanted @ x)
