"""How often a training step makes the host wait for a device: a fixed number, whatever is in the step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rec.benchmarks.counting import Counts, counting
from rec.benchmarks.scale.syncs import LAYER_SYNCS, STEP_SYNCS, step_counts
from rec.evaluation.measure import Recorder
from rec.evaluation.tasks.config import EvaluateConfig
from rec.nn import input_tables
from rec.systems.api import System
from rec.systems.gavamoe import GaVaMoE
from rec.systems.healthmoe import HealthMoE
from rec.systems.lightgcn import LightGCN
from rec.systems.magnet import Magnet
from rec.systems.msmrec import MSMRec
from rec.systems.nlammr import NLAMMR
from rec.systems.peter import PETER
from rec.systems.safedrug import CodeBaseline
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from rec.train.optim import steps_beside_parameters
from rec.train.phases import own_flags, select, stretches
from rec.train.progress import TrainingProgress
from rec.train.ranks import OneRank, RankFeed
from rec.train.update import Update
from rec.transfer import to_host

LANGUAGE = {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "max_tokens": 24}
ENCODERS = {"text": {"width": 16, "layers": 1}, "image": {"width": 16, "layers": 1}}
MOST: list[tuple[type[System[Any, Any]], dict[str, Any], dict[str, int]]] = [
    (MSMRec, {"width": 8, "max_length": 10, "feedforward_mixture": {"experts": 4}}, {"train": 4}),
    (HealthMoE, {"width": 8, "hidden": 16, "out": 8, "negatives": 0, **ENCODERS}, {"train": 10}),
    (LightGCN, {"width": 8}, {"train": 1}),
    (Magnet, {"width": 8}, {"train": 7}),
    (NLAMMR, {"width": 8, "graph_width": 6, "patient_moe": True}, {"train": 2}),
    (CodeBaseline, {}, {"train": 3}),
    (
        GaVaMoE,
        {"language": LANGUAGE, "experts": {"experts": 2, "per_row": 1}},
        {"vae": 1, "mixture": 1, "writer": 15},
    ),
    (PETER, {"width": 16, "layers": 2, "heads": 2, "hidden": 16}, {"train": 9}),
]
"""Systems, their configs, and the most waits of a step of each phase."""


def waits(system: System[Any, Any], rows: Any) -> dict[str, Counts]:
    """Return what the third step of each phase asks for."""
    keys = TrainConfig(clip_norm=1.0, metric="val_loss")
    torch.manual_seed(0)
    module, found = system.model(), {}
    own, progress = own_flags(module), TrainingProgress()
    for stretch in stretches(system, keys):
        phase = stretch.phase
        select(module, phase, own)
        module.phase = phase.name
        batch = system.collate(rows)
        if phase.before is not None:
            phase.before(module.eval(), RankFeed(OneRank(), lambda split, batch=batch: iter([(batch, True)])))
        engine = LocalEngine(module, stretch.config)
        module.train()
        system.start_epoch(module, 0)
        update = Update(system, stretch, engine, progress, lambda place: None)
        for _ in range(2):
            update([(batch, True)], 1e-3, False)
        with counting(where=True) as found[phase.name]:
            update([(batch, True)], 1e-3, False)
    return found


@pytest.mark.parametrize(("kind", "table", "most"), MOST, ids=[kind.__name__ for kind, *_ in MOST])
def test_a_step_waits_no_more_often_than_it_must(
    kind: type[System[Any, Any]], table: dict[str, Any], most: dict[str, int]
) -> None:
    rows, tables = kind.sample(12, np.random.default_rng(0))
    found = waits(kind(kind.Config.model_validate(table), tables), dict(rows))
    assert found.keys() == most.keys()
    for name, counts in found.items():
        assert counts.syncs.total() <= most[name], counts.places.most_common()
        assert counts.operations.total() > 50


@pytest.mark.parametrize(
    "keys",
    [{}, {"user": ["text", "history"], "item": ["image", "id"], "modality_dropout": 0.1}, {"encoders": "frozen"}],
)
def test_tables_that_no_device_can_hold_cost_one_wait_of_a_step(
    keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, tables = HealthMoE.sample(12, np.random.default_rng(0))
    config = HealthMoE.Config.model_validate({**MOST[1][1], **keys})
    kept = waits(HealthMoE(config, tables), dict(rows))["train"]
    monkeypatch.setattr(input_tables, "_room", lambda device: 0)
    read = waits(HealthMoE(config, tables), dict(rows))["train"]
    assert read.syncs - kept.syncs == {"wait": 1}, read.places
    assert kept.syncs["wait"] == 1


@pytest.mark.parametrize(("loss", "negatives"), [("ce", 0), ("bce", 1), ("gbce", 8)])
def test_neither_layers_nor_terms_nor_negatives_add_waits_to_the_rest_of_a_step(loss: str, negatives: int) -> None:
    drawn = {"negatives": negatives} if loss == "gbce" else {}
    few, more = (step_counts(layers, None, 0, loss=loss, **drawn).syncs.total() for layers in (1, 3))
    assert more - few <= 2 * LAYER_SYNCS
    assert few <= LAYER_SYNCS + STEP_SYNCS["1 process"]
    mixture = {"experts": 4, "router": "softmax", "balance_weight": 0.01, "z_weight": 0.01}
    assert step_counts(1, None, 0, loss=loss, feedforward_mixture=mixture, **drawn).syncs.total() == few


def test_half_precision_never_asks_how_many_rows_experts_have(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = MSMRec.model
    monkeypatch.setattr(MSMRec, "model", lambda self: whole(self).to(torch.bfloat16))
    found = step_counts(3, None, 0, where=True, loss="ce")
    assert found.syncs.total() == 1, found.places


def test_what_makes_the_host_wait_is_counted_and_copies_are_read_for_nothing() -> None:
    x_N = torch.arange(4.0)
    with counting() as found:
        x_N[x_N > 1] = 0.0  # one value under a mask is filled in
        x_N.sum()
        assert found.syncs.total() == 0
        x_N.tolist(), float(x_N[0]), x_N[x_N > 0], x_N.nonzero(), bool((x_N > 0).any()), x_N.long().bincount()
        torch.tensor([1.0], device="cpu"), x_N.new_tensor(2.0), x_N.cpu()
        assert found.syncs.total() == 9
        y_N, z_N = to_host([x_N + 1, x_N + 2])
        y_N.tolist(), float(z_N[1])
    assert found.syncs.total() == 10
    assert not found.collectives


def test_counts_of_steps_follow_their_parameters() -> None:
    """As a fused optimiser on a device wants them, whatever a checkpoint brings."""
    here, there = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, device="meta"))
    optimiser = torch.optim.Adam([here, there])
    optimiser.state[here], optimiser.state[there] = {"step": torch.tensor(3.0)}, {"step": torch.tensor(3.0)}
    steps_beside_parameters(optimiser)
    assert (optimiser.state[here]["step"].device.type, optimiser.state[there]["step"].device.type) == ("cpu", "meta")
    assert float(optimiser.state[here]["step"]) == 3


@pytest.mark.parametrize(("detail", "most"), [(None, 6), (EvaluateConfig(), 8)], ids=["metrics", "report"])
def test_the_columns_of_an_evaluated_batch_come_to_the_host_together(detail: EvaluateConfig | None, most: int) -> None:
    """What is left are four looks at the scores: is any not a number, are any equal."""
    rows, tables = MSMRec.sample(12, np.random.default_rng(0))
    system = MSMRec(MSMRec.Config.model_validate({}), tables)
    record = Recorder(system, system.model().eval(), detail)
    batch = system.collate(dict(rows))
    with torch.inference_mode(), counting(where=True) as found:
        made = record(batch)
    (records,) = made.values()
    assert found.syncs.total() <= most, found.places.most_common()
    assert len(records.column_names) > 6
