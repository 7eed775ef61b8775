"""How often the host waits for a device while it answers a batch of requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import rec.batch
from rec import transfer
from rec.benchmarks.counting import counting
from rec.nn import history, packed
from rec.serving.answers import Answerer
from rec.serving.artifact import Artifact


@pytest.fixture(scope="module")
def answerers(artifact: Artifact, food_artifact: Artifact) -> dict[str, Answerer]:
    return {"users": Answerer(artifact), "patients": Answerer(food_artifact)}


def asked_of(answerer: Answerer, count: int, **more: Any) -> tuple[Any, list[Any]]:
    """Return the route of rankings, and what so many known subjects ask."""
    route = answerer.routes(answerer.config.serve)["recommend"]
    names = [answerer.services["ranking"].subjects.id(1 + n) for n in range(count)]  # type: ignore[attr-defined]
    bodies = [route.request.model_validate({"user": name, "k": 4, **more}) for name in names]
    return route, [one for body in bodies for one in route.parse(body)]


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("kind", ["users", "patients"])
def test_the_host_waits_once_for_the_answers_of_a_batch(answerers: dict[str, Answerer], kind: str, count: int) -> None:
    answerer = answerers[kind]
    route, asked = asked_of(answerer, count)
    expected = answerer.work(route, asked)
    service: Any = answerer.services["ranking"]
    with torch.inference_mode(), counting(where=True) as model:
        states = service._states(asked)
        answerer.system.scores(answerer.module, states, slice(0, len(service.items)))
    with counting(where=True) as found:
        answers = answerer.work(route, asked)
        answerer.shares()
    assert found.syncs - model.syncs == {"wait": 1}, found.places
    assert answers == expected
    assert kind == "users" or count < 9 or any(answer["withheld"] for answer in answers)


@pytest.mark.parametrize("kind", ["users", "patients"])
def test_what_is_left_out_of_answers_costs_no_wait(answerers: dict[str, Answerer], kind: str) -> None:
    answerer = answerers[kind]
    route, asked = asked_of(answerer, 3)
    first = answerer.work(route, asked)
    route, asked = asked_of(answerer, 3, exclude=[answer["items"][0]["item"] for answer in first])
    with counting(where=True) as found:
        answers = answerer.work(route, asked)
    assert found.syncs["wait"] <= 2, found.places
    assert found.syncs.total() == found.syncs["wait"], found.places
    gone = {answer["items"][0]["item"] for answer in first}
    assert not any(entry["item"] in gone for answer in answers for entry in answer["items"])


@pytest.mark.parametrize("kind", ["users", "patients"])
def test_a_batch_goes_to_a_device_by_one_way_whatever_is_in_it(
    answerers: dict[str, Answerer], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer, moved = answerers[kind], list[int]()

    def sent(value: torch.Tensor, device: torch.device | str) -> torch.Tensor:
        moved.append(id(value))
        return transfer.sent(value, device)

    for module in (rec.batch, history, packed):
        monkeypatch.setattr(module, "sent", sent)
    rows, _ = answerer.system.sample(4, np.random.default_rng(0))
    batch = answerer.contexts["ranking"].batch(dict(rows))
    moved.clear()
    there = batch.to("meta")
    tensors = list(tensors_of(batch))
    assert {id(tensor) for tensor in tensors} == set(moved)
    assert len(tensors) > 4
    assert all(tensor.device.type == "meta" for tensor in tensors_of(there))


def tensors_of(record: Any) -> Iterator[torch.Tensor]:
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, torch.Tensor):
            yield value
        elif dataclasses.is_dataclass(value):
            yield from tensors_of(value)
