import numpy as np
import pytest
import torch

from rec.nn.retrieval import Ask, as_lists, top_among, top_items


def slow(score_BI, asks, seen):
    """The same by sorting in Python."""
    answers = []
    for row, ask in enumerate(asks):
        left_out = set(ask.exclude) | {0}
        if ask.candidates is None:
            left_out |= {int(i) for u, i in zip(*seen, strict=True) if int(u) == row}
        allowed = range(score_BI.shape[1]) if ask.candidates is None else ask.candidates
        kept = sorted({i for i in allowed if i not in left_out}, key=lambda i: -float(score_BI[row, i]))[: ask.k]
        answers.append((kept, [float(score_BI[row, i]) for i in kept]))
    return answers


@pytest.mark.parametrize("block", [7, 64, 1000])
@pytest.mark.parametrize("seed", range(10))
def test_blocks_find_what_sorting_finds(block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = 5, 200
    score = torch.from_numpy(rng.standard_normal((users, items)).astype(np.float32))
    seen = torch.from_numpy(rng.integers(0, users, 60)), torch.from_numpy(rng.integers(1, items, 60))
    pick = lambda n: tuple(int(i) for i in rng.choice(np.arange(1, items), n, replace=False))  # noqa: E731
    asks = [Ask(3), Ask(50, exclude=pick(5)), Ask(4, candidates=pick(20)), Ask(9, pick(3), pick(4)), Ask(500)]
    found = as_lists(*top_items(lambda part: score[:, part].clone(), items, asks, seen, block), asks)
    for (a, x), (b, y) in zip(found, slow(score, asks, seen), strict=True):
        assert a == b
        assert x == y


def test_candidates_of_an_index_are_ranked_without_what_was_seen() -> None:
    candidates = torch.tensor([[5, 3, 9, 0], [1, 2, 4, 7]])
    scores = torch.tensor([[1.0, 4.0, 3.0, 9.0], [1.0, 2.0, 3.0, 4.0]])
    seen = torch.tensor([0, 1]), torch.tensor([9, 7])
    asks = [Ask(3), Ask(2, exclude=(2,))]
    assert [i for i, _ in as_lists(*top_among(candidates, scores, asks, seen), asks)] == [[3, 5], [4, 1]]
