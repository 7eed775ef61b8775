"""Whether a mixture is better than its twins: intervals over examples and seeds, and what follows from several."""

import numpy as np
import pytest

from rec.evaluation.bootstrap import paired
from rec.evaluation.verdict import NORMAL, Gain, conclusion, gain, spread_of_seeds


def found(low: float, high: float, seeds: int = 3, margin: float = 0.01) -> Gain:
    return Gain(mean=(low + high) / 2, low=low, high=high, seeds=seeds, margin=margin)


@pytest.mark.parametrize(
    ("low", "high", "seeds", "standing"),
    [
        (0.02, 0.04, 2, "better"),
        (-0.04, -0.02, 2, "worse"),
        (-0.005, 0.008, 2, "alike"),
        (0.001, 0.008, 2, "alike"),  # nobody would notice
        (-0.005, 0.03, 2, "open"),
        (0.02, 0.04, 1, "open"),  # one seed tells nothing of their spread
    ],
)
def test_what_an_interval_says(low: float, high: float, seeds: int, standing: str) -> None:
    assert found(low, high, seeds).standing == standing


@pytest.mark.parametrize(
    ("gains", "standing", "name"),
    [
        ({"a": found(0.02, 0.04), "b": found(0.02, 0.03)}, "better", "b"),
        ({"a": found(0.02, 0.04), "b": found(-0.03, -0.02), "c": found(-0.09, -0.08)}, "worse", "c"),
        ({"a": found(0.02, 0.04), "b": found(-0.005, 0.005), "c": found(-0.03, 0.09)}, "alike", "b"),
        ({"a": found(0.02, 0.04), "c": found(-0.03, 0.09)}, "open", "c"),
    ],
)
def test_a_mixture_pays_if_it_beats_every_twin(gains: dict[str, Gain], standing: str, name: str) -> None:
    assert conclusion(gains) == (standing, name)


def test_spread_over_seeds_is_pooled_over_runs() -> None:
    variance, spare = spread_of_seeds([[1.0, 3.0], [10.0, 10.0, 13.0], [5.0]])
    assert (variance, spare) == ((2.0 + 6.0) / 3, 3)
    assert spread_of_seeds([[1.0], [2.0]]) == (0.0, 0)


def test_less_is_better_turns_the_sign() -> None:
    told = {"mean": -0.1, "low": -0.2, "high": 0.0}
    one = gain(told, [[1.0], [2.0]], 1, higher_is_better=False, margin=0.01)
    assert (one.mean, one.low, one.high) == pytest.approx((0.1, 0.0, 0.2))
    assert pytest.approx(1.96, abs=1e-3) == NORMAL


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Runs whose true difference is 0.02, with noise of examples that both share, of their own, and of seeds."""
    rng, truth, held = np.random.default_rng(0), 0.02, 0
    rounds, seeds, examples = 200, 3, 400
    for _ in range(rounds):
        shared = rng.normal(0.3, 0.3, examples)
        runs = {}
        for name, more in (("ours", truth), ("theirs", 0.0), ("another", 0.1)):
            own = rng.normal(0, 0.1, examples)
            runs[name] = [shared + more + own + rng.normal(0, 0.01) for _ in range(seeds)]
        result = paired(np.mean(runs["ours"], 0), np.mean(runs["theirs"], 0), 300, rng)
        values = [[float(one.mean()) for one in several] for several in runs.values()]
        one = gain(result.difference.plain(), values, seeds, higher_is_better=True, margin=0.0)
        held += one.low <= truth <= one.high
    assert 0.92 <= held / rounds <= 1.0
