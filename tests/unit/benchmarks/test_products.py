"""Products of a step, recorded."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from rec.benchmarks.products import bare, recorded


def test_products_of_both_ways_are_recorded_and_nothing_else() -> None:
    module = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    index_N = torch.tensor([1, 2, 2])
    made = recorded(lambda: module(index_N).relu().sum().backward())
    found = Counter(made.names())
    # Two layers forward; backward two products each, for weights and for what comes in.
    assert found == {"embedding": 1, "embedding_dense_backward": 1, "addmm": 2, "mm": 4}


def test_made_again_they_change_nothing_of_the_step() -> None:
    total_ND, add_MD = torch.zeros(3, 2), torch.ones(4, 2)
    made = recorded(lambda: total_ND.index_add_(0, torch.tensor([0, 0, 1, 2]), add_MD))
    before = total_ND.clone()
    bare(made)()
    assert torch.equal(total_ND, before)
    assert made.names() == ["index_add_"]


def test_what_lies_transposed_is_kept_so() -> None:
    x_MN = torch.randn(3, 4).T
    made = recorded(lambda: x_MN @ torch.randn(3, 2))
    assert made.calls[0][1][0].stride() == x_MN.stride()
