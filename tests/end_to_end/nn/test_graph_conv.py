"""Propagation beside torch-geometric's."""

from __future__ import annotations

import pytest
import torch

from rec.nn.graph import bipartite, mean_of_layers


def test_propagation_equals_that_of_torch_geometric() -> None:
    """LightGCN's layers of torch-geometric are a second opinion; ours are faster (docs/tried.md)."""
    geometric = pytest.importorskip("torch_geometric.nn", reason="needs the extra `molecules`")
    users, items, layers = 40, 30, 3
    drawn = torch.Generator().manual_seed(0)
    user_E, item_E = (torch.rand(users, items, generator=drawn) < 0.1).nonzero(as_tuple=True)
    other_E = item_E + users
    edge_2E = torch.stack([torch.cat([user_E, other_E]), torch.cat([other_E, user_E])])
    x_ND = torch.randn(users + items, 8, generator=drawn, requires_grad=True)
    y_ND = torch.randn(users + items, 8, generator=drawn)
    found_ND = mean_of_layers(bipartite(user_E, item_E, users, items), x_ND, layers)
    (found_ND * y_ND).sum().backward()
    assert x_ND.grad is not None
    gradient_ND, x_ND.grad = x_ND.grad, None
    wanted = [x_ND]
    for _ in range(layers):
        wanted.append(geometric.LGConv()(wanted[-1], edge_2E))
    wanted_ND = torch.stack(wanted).mean(0)
    (wanted_ND * y_ND).sum().backward()
    torch.testing.assert_close(found_ND, wanted_ND)
    torch.testing.assert_close(gradient_ND, x_ND.grad)
