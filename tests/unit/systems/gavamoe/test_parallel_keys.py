"""What GaVaMoE tells ahead of a step and of a run: counts of its terms, memory of a worker."""

from fnmatch import fnmatch
from typing import Any

import numpy as np
import pytest

from rec.systems.gavamoe import GaVaMoE, GaVaMoEConfig
from rec.train.config import ParallelConfig, PhaseConfig, TrainConfig

SMALL = {
    "pairs": {"clusters": 3, "latent": 4, "embedding": 8, "layers": 0, "hidden": 8},
    "language": {"width": 16, "layers": 2, "heads": 2, "hidden": 16, "max_tokens": 20},
}


def system(**changes: Any) -> tuple[GaVaMoE, Any]:
    rows, tables = GaVaMoE.sample(12, np.random.default_rng(0))
    found = GaVaMoE(GaVaMoEConfig.model_validate({**SMALL, "experts": {"experts": 2}, **changes}), tables)
    return found, found.collate(rows)


@pytest.mark.parametrize("rating", ["none", "given", "predicted"])
def test_counts_are_those_of_the_terms_in_every_phase(rating: str) -> None:
    made, batch = system(experts={"experts": 2, "balance_weight": 0.0}, prompt={"rating": rating})
    module = made.model()
    for phase in made.phases():
        module.phase = phase.name
        terms = made.loss(module, batch)
        told = made.counts(module, batch)
        assert told is not None
        counted = {name: float(term.count) for name, term in terms.items()}
        assert {name: told[name] for name in counted} == counted
        assert any(fnmatch(name, glob) for glob in phase.terms for name in told)


@pytest.mark.parametrize("rating", ["none", "given", "predicted"])
def test_a_balance_wants_a_pass_that_counts(rating: str) -> None:
    made, batch = system(experts={"experts": 2, "balance_weight": 0.1}, prompt={"rating": rating})
    module = made.model()
    module.phase = "writer"
    assert made.counts(module, batch) is None


def test_memory_follows_the_keys_of_the_writers_phase() -> None:
    made, _ = system()
    plain = made.memory(TrainConfig(batch_size=64), ParallelConfig())
    parts = made.memory(TrainConfig(batch_size=64, phases={"writer": PhaseConfig(accumulate=4)}), ParallelConfig())
    fewer = made.memory(TrainConfig(batch_size=128, phases={"writer": PhaseConfig(batch_size=16)}), ParallelConfig())
    assert parts.activations == fewer.activations == plain.activations // 4
    length = made.prompter.prompt([1.0], ["feature"], [""]).token_MBP.shape[2] + 20
    budget = made.memory(
        TrainConfig(batch_size=64, phases={"writer": PhaseConfig(tokens=16 * length)}), ParallelConfig()
    )
    assert budget.activations == parts.activations
    assert budget.keeps_gradients
    own = sum(p.numel() for p in made.model().parameters())
    assert plain.weights == pytest.approx(4 * own, rel=0.1)  # stage 1 but for its tables is left out
