"""How alike the items of a history are, beside the slow obvious way."""

import itertools

import numpy as np
import pytest
import torch

from rec.nn.agreement import SHRINK, Agreement
from rec.nn.packed import layout

LENGTHS = (1, 4, 7, 2)


def vectors(items: int = 30, modalities: int = 3, size: int = 5) -> torch.Tensor:
    found = torch.randn(items + 1, modalities, size, generator=torch.Generator().manual_seed(0))
    found[0] = 0
    return found


def slow(vectors_IKM: torch.Tensor, history: list[int], k: int, window: int) -> float:
    """The same for one history, pair by pair."""
    unit = {i: v / np.linalg.norm(v) for i, v in enumerate(vectors_IKM[:, k].double().numpy()) if np.any(v)}
    every = [float(unit[a] @ unit[b]) for a, b in itertools.combinations(unit, 2)]
    recent = [i for i in (history[-window:] if window else history) if i in unit]
    pairs = [float(unit[a] @ unit[b]) for a, b in itertools.combinations(recent, 2)]
    if not pairs:
        return 0.0
    others = len(recent) - 1
    return (np.mean(pairs) - np.mean(every)) / np.std(every) * others / (others + SHRINK)


@pytest.mark.parametrize("window", [0, 1, 3, 100])
@pytest.mark.parametrize("absent", [(), (4, 9, 21)])
def test_it_is_the_mean_cosine_of_pairs_beside_that_of_the_catalogue(window: int, absent: tuple[int, ...]) -> None:
    vectors_IKM = vectors()
    vectors_IKM[list(absent), 1] = 0
    where, rng = layout(LENGTHS), np.random.default_rng(0)
    item_N = torch.from_numpy(np.concatenate([rng.choice(30, n, replace=False) + 1 for n in LENGTHS]))
    found = Agreement(vectors_IKM, window, seed=0).known(vectors_IKM, item_N, where)
    assert found.shape == (sum(LENGTHS), 3)
    for n in range(len(item_N)):
        start = int(where.start_B[where.sequence_N[n]])
        history = item_N[start : n + 1].tolist()
        expected = [slow(vectors_IKM, history, k, window) for k in range(3)]
        assert found[n].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_modality_in_which_all_items_are_alike_tells_nothing() -> None:
    vectors_IKM = vectors()
    vectors_IKM[1:, 2] = 1.0
    found = Agreement(vectors_IKM, 0, seed=0).known(vectors_IKM, torch.arange(1, 15), layout(LENGTHS))
    assert found[:, 2].abs().max() < 1e-3
    assert found.isfinite().all()


def test_what_is_shared_by_a_history_is_told_from_what_is_not() -> None:
    vectors_IKM = vectors(items=200, size=8)
    vectors_IKM[1:21, 1] = vectors_IKM[1, 1] + 0.1 * vectors_IKM[1:21, 1]
    found = Agreement(vectors_IKM, 0, seed=0).known(vectors_IKM, torch.arange(1, 21), layout([20]))[-1]
    assert found.argmax() == 1
    assert found[1] > 1.5
    assert found[[0, 2]].abs().max() < 0.3


def test_an_item_that_comes_again_counts_once() -> None:
    vectors_IKM, again = vectors(), Agreement(vectors(), 0, seed=0)
    assert (again.known(vectors_IKM, torch.tensor([7] * 5), layout([5])) == 0).all()
    once = again.known(vectors_IKM, torch.tensor([7, 3, 9]), layout([3]))[-1]
    twice = again.known(vectors_IKM, torch.tensor([7, 7, 3, 7, 9, 3]), layout([6]))[-1]
    torch.testing.assert_close(once, twice)
    apart = again.known(vectors_IKM, torch.tensor([7, 3, 7, 9]), layout([2, 2]))  # of two users
    torch.testing.assert_close(apart[1], again.known(vectors_IKM, torch.tensor([7, 3]), layout([2]))[1])
    assert apart[3].abs().max() > 0
    recent = Agreement(vectors_IKM, 2, seed=0).known(vectors_IKM, torch.tensor([7, 3, 9, 7]), layout([4]))
    assert recent[3].abs().max() > 0  # the first 7 is no longer compared


@pytest.mark.parametrize("having", [0, 1, 2, 7])
def test_a_text_that_few_items_have_tells_nothing(having: int) -> None:
    vectors_IKM = vectors(items=6000)
    vectors_IKM[having + 1 :, 1] = 0
    found = Agreement(vectors_IKM, 0, seed=0).known(vectors_IKM, torch.arange(1, 15), layout(LENGTHS))
    assert (found[:, 1] == 0).all()
    assert found[:, 0].abs().max() > 0


def test_how_alike_items_are_is_learned_from_those_that_have_a_text() -> None:
    vectors_IKM = vectors(items=6000)
    vectors_IKM[41:, 1] = 0
    some, few = Agreement(vectors_IKM, 0, seed=0), Agreement(vectors_IKM[:41], 0, seed=0)
    torch.testing.assert_close(some.mean_K[1], few.mean_K[1])
    torch.testing.assert_close(some.per_deviation_K[1], few.per_deviation_K[1])
