"""Shapley values against their definition over orders."""

import itertools

import pytest
import torch

from rec.nn.shapley import shapley, subsets


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_values_are_the_mean_gain_over_all_orders(count: int) -> None:
    torch.manual_seed(0)
    score = torch.randn(2, 1 << count, dtype=torch.float64)
    place = {tuple(row): n for n, row in enumerate(subsets(count).tolist())}
    parts = shapley(score)
    orders = list(itertools.permutations(range(count)))
    for m in range(count):
        gains = []
        for order in orders:
            before = [p in order[: order.index(m)] for p in range(count)]
            after = [p == m or b for p, b in enumerate(before)]
            gains.append(score[:, place[tuple(after)]] - score[:, place[tuple(before)]])
        torch.testing.assert_close(parts[:, 1 + m], torch.stack(gains).mean(0))
    torch.testing.assert_close(parts.sum(1), score[:, -1])
