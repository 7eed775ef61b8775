"""A run that starts from another's weights: dense networks become experts, routers are drawn anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rec.config import RunConfig
from rec.data.prepared import Prepared
from rec.data.stream import CachedReader
from rec.errors import ConfigError
from rec.moe.experts import DrawnExperts
from rec.nn.making import fill, made_undrawn
from rec.train.feed import PlannedFeed
from rec.train.job import build, open_data, train_here
from rec.train.start import Start, start_of

MIXTURE = {"gate": "none", "dropout": 0.0}
ONE, SOME = ({"experts": count, "per_row": 1} for count in (1, 4))
Make = Callable[..., RunConfig]


def quiet(_: Any) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def dense(planted: Prepared, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run with one expert, which is a dense network."""
    from rec.config import from_table

    out = str(tmp_path_factory.mktemp("dense") / "run")
    table = {
        "system": "rec.systems.msmrec:MSMRec",
        "out": out,
        "model": {"width": 16, "blocks": 1, "max_length": 20, **MIXTURE, "feedforward_mixture": ONE},
        "data": {"root": planted.root},
        "train": {"batch_size": 32, "epochs": 1, "learning_rate": 5e-3},
    }
    train_here(from_table(table), quiet, quiet)
    return out


def start(folder: str) -> Start:
    found = start_of(folder)
    assert found is not None
    return found


def test_mean_of_copies_is_the_dense_network(dense: str, run_config: Make) -> None:
    losses: list[torch.Tensor] = []
    for mixture in (ONE, {"experts": 4, "router": "uniform", "per_row": 4}):
        config = run_config(model={**MIXTURE, "feedforward_mixture": mixture})
        data = open_data(config)
        system = build(config, data)
        torch.manual_seed(len(losses))
        module = system.model().eval()
        told = start(dense).put(module)
        reader = CachedReader(data.storage, system.columns)
        batch = next(iter(PlannedFeed(data, system, config.train, reader, 0, 1).evaluate("val")))[0]
        losses.append(system.loss(module, batch)["ce"].mean.detach())
        assert dense in told
    torch.testing.assert_close(losses[0], losses[1])


def test_a_run_begins_where_the_other_ended_and_goes_on_without_it(
    dense: str, run_config: Make, tmp_path: Path
) -> None:
    copy, notes = tmp_path / "copy", []
    shutil.copytree(dense, copy)
    config = run_config(
        model={**MIXTURE, "feedforward_mixture": SOME | {"routed_scale": 4.0}},
        train={"epochs": 1, "start_from": str(copy), "seed": 3},
    )

    def hear(event: dict[str, Any]) -> None:
        notes.extend([event["text"]] if event["kind"] == "note" else [])

    train_here(config, hear, quiet)
    assert any(str(copy) in note and "drawn anew" in note for note in notes), notes
    shutil.rmtree(copy)
    more = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 2})})
    assert train_here(more, quiet, quiet).epoch == 2


def test_experts_drawn_where_they_live_start_alike(dense: str, run_config: Make) -> None:
    config = run_config(model={**MIXTURE, "feedforward_mixture": SOME})
    system = build(config, open_data(config))

    def make() -> torch.nn.Module:
        torch.manual_seed(5)
        model: torch.nn.Module = system.model()
        return model

    whole, undrawn = make(), made_undrawn(make, DrawnExperts)
    for module in (whole, undrawn):
        start(dense).put(module)
    parts = [part for part in undrawn.modules() if isinstance(part, DrawnExperts)]
    assert all(parameter.is_meta for part in parts for parameter in part.parameters())
    fill(undrawn)
    expected, found = whole.state_dict(), undrawn.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ({"model": {"width": 8}}, r"train.start_from: \S+ of \S+ has shape \(\d+, 16\), expected \(\d+, 8\)"),
        ({"train": {"start_from": "nowhere"}}, "train.start_from: nowhere holds no run that was trained"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_folder(
    dense: str, run_config: Make, words: dict[str, Any], found: str
) -> None:
    model = {**MIXTURE, "feedforward_mixture": SOME} | words.get("model", {})
    config = run_config(model=model, train={"start_from": dense} | words.get("train", {}))
    with pytest.raises(ConfigError, match=found):
        train_here(config, quiet, quiet)
    assert not Path(config.out).exists()
