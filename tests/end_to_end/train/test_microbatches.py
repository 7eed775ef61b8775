"""What a run says of steps that are cut into microbatches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rec.config import RunConfig
from rec.nn.replicated import Replicated
from rec.systems.api import Phase
from rec.systems.gavamoe import GaVaMoE
from rec.systems.magnet import Magnet
from rec.systems.msmrec import MSMRec
from rec.train.config import PhaseConfig, TrainConfig
from rec.train.job import train_here
from rec.train.microbatches import cut_in_words
from rec.train.phases import stretches
from rec.train.replicas import Running
from tests.end_to_end.train.test_loop import quiet

LIMITED = {"experts": 4, "capacity_factor": 1.0}


def told(kind: Any, table: dict[str, Any], **train: Any) -> list[str]:
    """Return what is said of each phase of a system."""
    _, tables = kind.sample(12, np.random.default_rng(0))
    system = kind(kind.Config.model_validate(table), tables)
    found = stretches(system, TrainConfig(**train))
    return [cut_in_words(system, stretch, system.model()) for stretch in found]


def test_what_is_of_a_microbatch_is_named() -> None:
    said = ["train.accumulate cuts steps into microbatches: view_contrast_user, view_contrast_item compare rows of one"]
    said[0] += " microbatch with each other; all else is of the whole step"
    assert told(Magnet, {"width": 8, "contrast_weight": 0.1}, accumulate=2) == said
    assert told(Magnet, {"width": 8, "contrast_weight": 0.1}) == [""]
    assert told(Magnet, {"width": 8, "contrast_weight": 0.0}, accumulate=2) == [""]


def test_capacity_is_that_of_a_microbatch_and_the_key_is_told() -> None:
    table = {"width": 8, "blocks": 2, "gate": "none", "feedforward_mixture": LIMITED}
    (limited,) = told(MSMRec, table, tokens=40)
    assert limited.startswith(
        "train.tokens cuts steps into microbatches: what exceeds an expert's capacity is dropped in"
    )
    assert told(MSMRec, table | {"feedforward_mixture": {"experts": 4, "balance_weight": 0.1}}, accumulate=3) == [""]
    writer = {"writer": PhaseConfig(accumulate=4)}
    assert told(GaVaMoE, {"language": {"width": 16, "layers": 1, "heads": 2, "hidden": 8}}, phases=writer) == [""] * 3


def test_batch_normalisation_over_rows_is_told_and_one_that_all_compute_alike_is_not() -> None:
    class Plain:
        def within_batch(self) -> tuple[str, ...]:
            return ()

    system: Any = Plain()
    (stretch,) = stretches(_magnet(), TrainConfig(accumulate=2))
    rows, alike = nn.ModuleDict({"norm": nn.BatchNorm1d(3)}), nn.ModuleDict({"all": Replicated(nn.BatchNorm1d(3))})
    assert "batch normalisation is over each microbatch (norm)" in cut_in_words(system, stretch, rows)
    assert cut_in_words(system, stretch, alike) == ""


def _magnet() -> Magnet:
    _, tables = Magnet.sample(12, np.random.default_rng(0))
    return Magnet(Magnet.Config.model_validate({"width": 8}), tables)


@pytest.mark.parametrize("capacity", [0.0, 1.0])
def test_a_run_says_it_once(run_config: Any, tmp_path: Path, capacity: float) -> None:
    experts = {"experts": 4, "capacity_factor": capacity}
    train = {"accumulate": 2, "epochs": 2}
    config: RunConfig = run_config(out=str(tmp_path), train=train, model={"feedforward_mixture": experts})
    heard: list[dict[str, Any]] = []
    train_here(config, heard.append, quiet)
    notes = [event["text"] for event in heard if event["kind"] == "note"]
    assert len(notes) == bool(capacity)


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
def test_running_statistics_move_once_by_the_mean_over_microbatches(momentum: float) -> None:
    norm = nn.BatchNorm1d(1, momentum=momentum)
    running = Running(norm)
    for value, counts in ((1.0, True), (3.0, True), (100.0, False)):
        norm(torch.full((4, 1), value))
        running.take(counts)
    running.settle()
    assert float(norm.running_mean) == pytest.approx(momentum * (1 + 3) / 2)  # type: ignore[arg-type]
    assert float(norm.running_var) == pytest.approx(1 - momentum)  # type: ignore[arg-type]
    assert int(norm.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_a_phase_without_the_terms_says_nothing_of_them() -> None:
    (stretch,) = stretches(_magnet(), TrainConfig(accumulate=2))
    other = replace(stretch, phase=Phase(terms=("bpr",)))
    assert cut_in_words(_magnet(), stretch, nn.Linear(1, 1))
    assert cut_in_words(_magnet(), other, nn.Linear(1, 1)) == ""
