"""Evaluation is never silent: events in training, lines for people."""

from collections.abc import Callable
from typing import Any

import pytest

from rec.config import RunConfig, override
from rec.evaluation.run import evaluate_run
from rec.train import loop
from rec.train.job import train_here
from rec.train.narrator import Narrator
from tests.support.toy_phases import toy_table


def test_validation_reports_how_far_it_is(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "EVALUATING_S", 0.0)
    events: list[dict[str, Any]] = []
    narrator = Narrator(lambda _: None)

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        narrator(event)

    train_here(run_config(train={"epochs": 2, "evaluate_batch_size": 64}), report, lambda _: None)
    done = [event["done"] for event in events if event["kind"] == "evaluating"]
    assert done == [64, 128, 192, 256, 301] * 2
    assert {event["total"] for event in events if event["kind"] == "evaluating"} == {301}
    assert capsys.readouterr().err.count("evaluate val 64/301 examples") == 2


def test_the_loss_on_validation_reports_how_far_it_is(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVALUATING_S", 0.0)
    events: list[dict[str, Any]] = []
    keys = {"epochs": 1, "evaluate_batch_size": 64, "metric": "val_loss"}
    train_here(run_config(train=keys), events.append, lambda _: None)
    assert [event["done"] for event in events if event["kind"] == "evaluating"] == [64, 128, 192, 256, 301]


def test_what_a_phase_does_before_reports_how_far_it_is(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVALUATING_S", 0.0)
    events: list[dict[str, Any]] = []
    train_here(run_config(**toy_table(train={"epochs": 1, "evaluate_batch_size": 64})), events.append, lambda _: None)
    found = [event for event in events if event["kind"] == "preparing"]
    assert [event["done"] for event in found if event["split"] == found[0]["split"]][-1] > 64


def test_quick_validation_reports_nothing(run_config: Callable[..., RunConfig]) -> None:
    kinds: list[str] = []
    train_here(run_config(train={"epochs": 1}), lambda event: kinds.append(event["kind"]), lambda _: None)
    assert "evaluated" in kinds
    assert "evaluating" not in kinds


def test_evaluation_and_its_baselines_show_lines(trained: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_run(override(trained, ["train.evaluate_batch_size=64"]), "test")
    lines = capsys.readouterr().err
    for line in (
        "evaluate test 0/301",
        "evaluate test 301/301",
        "baselines on test 64/301",
        "baselines on test 301/301",
    ):
        assert line in lines
