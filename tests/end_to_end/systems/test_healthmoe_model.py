"""HealthMoE's scores of all items equal those of the mixture on every pair's joined projections."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from rec.benchmarks.counting import counting
from rec.moe import pairs
from rec.moe.layer import Mixed
from rec.moe.pairs import LinearPairScores, PairScores
from rec.systems.healthmoe import model
from tests.end_to_end.systems.test_healthmoe import SMALL, WITH_HISTORY, built

KEYS: dict[str, dict[str, Any]] = {
    "reference": {},
    "gate on the user": {"gate": "user"},
    "no product": {"product": False},
    "no product, gate on the user": {"product": False, "gate": "user"},
    "frozen vectors, history": WITH_HISTORY | {"encoders": "frozen"},
    "linear": {"hidden": 0, "mixture": {"experts": 0}},
    "linear, no product": {"hidden": 0, "mixture": {"experts": 0}, "product": False},
    "plain network": {"mixture": {"experts": 0}},
    "as food": {
        "gate": "user",
        "mixture": {"per_row": 1, "shared": True, "noise": False, "zero_start": True, "routed_scale": 2.0},
    },
    "sigmoid, fine, swiglu": {"mixture": {"router": "sigmoid", "fine": 2, "activation": "swiglu"}},
    "dense": {"mixture": {"per_row": 4}},
}


def obvious(module: Any, user_BD: Tensor, item_ID: Tensor) -> Tensor:
    """Return all scores by the mixture on joined rows, the slow and obvious way."""
    width, rows = module.config.width, []
    for user_D in user_BD:
        for item_D in item_ID:
            row = [user_D, item_D]
            if module.config.product:
                row.append(user_D.view(-1, width).mean(0) * item_D.view(-1, width).mean(0))
            rows.append(torch.cat(row))
    out = module.mixture(torch.stack(rows))
    return module.head(out.y_ND if isinstance(out, Mixed) else out).view(len(user_BD), -1)


@torch.no_grad()
def sides(system: Any, rows: Any, module: Any) -> tuple[Tensor, Tensor]:
    item_ID = module.catalogue()
    return module.states(system.collate(rows), item_ID), item_ID


@pytest.mark.parametrize("name", list(KEYS))
def test_scores_equal_those_of_the_mixture_on_joined_rows(name: str) -> None:
    system, rows, module = built(**KEYS[name])
    user_BD, item_ID = sides(system, rows, module)
    expected = obvious(module, user_BD, item_ID)
    prepared = module.item_scoring(item_ID)
    assert isinstance(prepared.scores, LinearPairScores if "linear" in name else PairScores)
    torch.testing.assert_close(module.all_scores(user_BD, item_ID), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.scores_of(user_BD, prepared), expected, rtol=1e-5, atol=1e-5)
    some = module.scores_of(user_BD[3:], prepared, slice(2, 9))
    torch.testing.assert_close(some, expected[3:, 2:9], rtol=1e-5, atol=1e-5)


def test_experts_that_are_elsewhere_are_asked_with_joined_rows() -> None:
    system, rows, module = built()
    user_BD, item_ID = sides(system, rows, module)
    expected = module.all_scores(user_BD, item_ID)
    called, carry = [], module.mixture.carry

    def elsewhere(x_ND: Tensor, *rest: Any) -> Tensor:
        called.append(len(x_ND))
        return carry(x_ND, *rest)

    module.mixture.carry = elsewhere
    prepared = module.item_scoring(item_ID)
    assert prepared.scores is None
    torch.testing.assert_close(module.scores_of(user_BD, prepared, block=10), expected, rtol=1e-5, atol=1e-5)
    assert called == [120, 120, 60]
    some = module.scores_of(user_BD, prepared, slice(2, 9))
    torch.testing.assert_close(some, expected[:, 2:9], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("width", "out"), [(8, 8), (16, 8), (8, 32)])
def test_passes_of_joined_rows_are_as_large_as_their_memory_lets_them(
    width: int, out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, rows, module = built(width=width, out=out, mixture={"experts": 4, "per_row": 2})
    user_BD, item_ID = sides(system, rows, module)
    columns = 4 * width + 5 * width + 2 * (5 * width + out) + 2 * 2 * 16  # joined, with product, and what experts make
    assert all(name in ("text", "attributes") for name in module.config.user)
    assert len(module.config.of_items) == 2
    called, carry = [], module.mixture.carry

    def elsewhere(x_ND: Tensor, *rest: Any) -> Tensor:
        called.append(len(x_ND))
        return carry(x_ND, *rest)

    expected = module.all_scores(user_BD, item_ID)
    module.mixture.carry = elsewhere
    prepared = module.item_scoring(item_ID)
    torch.testing.assert_close(module.scores_of(user_BD, prepared), expected, rtol=1e-5, atol=1e-5)
    assert called == [len(user_BD) * len(item_ID)]
    called.clear()
    # Sized for the users that all ranks are taken to have, not for the twelve of this one.
    monkeypatch.setattr(pairs, "PROCESSOR_BYTES", 4 * columns * model.USERS_OF_RANKS * 7)
    torch.testing.assert_close(module.scores_of(user_BD, prepared), expected, rtol=1e-5, atol=1e-5)
    assert called == [12 * 7, 12 * 7, 12 * 7, 12 * 4]


@pytest.mark.parametrize("name", list(KEYS))
def test_scores_elsewhere_are_those_of_the_processor_with_few_waits_and_passes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, rows, module = built(**KEYS[name])
    user_BD, item_ID = sides(system, rows, module)
    monkeypatch.setattr(pairs, "TILE", 5)
    module.all_scores(user_BD[:1], item_ID)
    expected, heard = module.all_scores(user_BD, item_ID), list[Mixed]()
    if module.config.mixture.experts:
        module.mixture.register_forward_hook(lambda _, __, mixed: heard.append(mixed))
    module.all_scores(user_BD, item_ID)
    with torch.no_grad(), counting(where=True) as found:
        score_BI = module.all_scores(user_BD, item_ID)
    torch.testing.assert_close(score_BI, expected, rtol=1e-5, atol=1e-5)
    told = 3 if name == "as food" or "gate on the user" in name else 2
    assert found.syncs.total() <= told, found.places
    if heard:
        torch.testing.assert_close(heard[1].routing.dense(), heard[0].routing.dense(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 64, 65, 200])
def test_the_host_waits_once_for_some_left_rows_of_a_tile(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    system, columns, module = built()
    user_BD, item_ID = sides(system, columns, module)
    user_BD = user_BD.repeat(17, 1)[:rows]
    expected = module.all_scores(user_BD, item_ID)
    heard: list[Mixed] = []
    module.mixture.register_forward_hook(lambda _, __, mixed: heard.append(mixed))
    monkeypatch.setattr(pairs, "PASS_BYTES", 1)
    monkeypatch.setattr(pairs, "TILE", 10)  # three tiles of 25 items
    with torch.no_grad(), counting(where=True) as found:
        score_BI = module.all_scores(user_BD, item_ID)
    torch.testing.assert_close(score_BI, expected, rtol=1e-5, atol=1e-5)
    assert found.syncs["wait"] == 3 * -(-rows // pairs.DECIDED)
    assert found.syncs.total() == found.syncs["wait"], found.places


def test_tiles_elsewhere_are_as_large_as_their_memory_lets_them() -> None:
    system, rows, module = built()
    _, item_ID = sides(system, rows, module)
    scores = module.item_scoring(item_ID).scores
    assert scores.tile_rows(item_ID) == pairs.TILE
    with counting():
        # 8 of the head, 4 x 16 of the tile, and for each of 2 choices 16 hidden, 8 out and what is kept of 64 rows.
        assert scores.tile_rows(item_ID) == pairs.PASS_BYTES // (4 * (8 + 64 + 2 * (16 + 8 + 4 * 64)))


def test_weights_in_bfloat16_score_as_the_same_weights_in_float32() -> None:
    system, rows, module = built(mixture={"shared": True})
    user_BD, item_ID = (side.bfloat16() for side in sides(system, rows, module))
    module.bfloat16()
    exact = copy.deepcopy(module).float()
    expected = obvious(exact, user_BD.float(), item_ID.float())
    torch.testing.assert_close(module.all_scores(user_BD, item_ID), expected, rtol=1e-5, atol=1e-5)


def test_a_classifier_scores_some_items_as_it_scores_all() -> None:
    system, rows, module = built(head="classification")
    user_BD, item_ID = sides(system, rows, module)
    score_BI = module.all_scores(user_BD, item_ID)
    some = module.scores_of(user_BD, module.item_scoring(item_ID), slice(2, 9))
    torch.testing.assert_close(some, score_BI[:, 2:9])


def test_training_changes_what_was_made_of_items() -> None:
    system, rows, module = built(**SMALL)
    user_BD, item_ID = sides(system, rows, module)
    before = module.all_scores(user_BD, item_ID)
    assert module.all_scores(user_BD, item_ID).equal(before)
    module.train()
    with torch.no_grad():
        for parameter in module.mixture.parameters():
            parameter.mul_(1.5)
    module.eval()
    after = module.all_scores(user_BD, item_ID)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, obvious(module, user_BD, item_ID), rtol=1e-5, atol=1e-5)


def test_the_next_items_are_not_taken_for_those_before() -> None:
    system, rows, module = built()
    user_BD, item_ID = sides(system, rows, module)
    other_ID = item_ID.flip(0)
    score_BI = module.all_scores(user_BD, item_ID)
    torch.testing.assert_close(module.all_scores(user_BD, other_ID), score_BI.flip(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.all_scores(user_BD, item_ID), score_BI)


def test_a_gate_on_the_user_tells_its_listeners_of_each_user() -> None:
    for gate in ("user", "pair"):
        system, rows, module = built(gate=gate)
        user_BD, item_ID = sides(system, rows, module)
        top_BI = torch.arange(len(item_ID)).expand(len(user_BD), -1)
        share_BIE = system.gates(module, user_BD, item_ID, top_BI)
        heard: list[Mixed] = []
        module.mixture.register_forward_hook(lambda _, __, mixed, heard=heard: heard.append(mixed))
        module.all_scores(user_BD, item_ID)
        (mixed,) = heard
        torch.testing.assert_close(mixed.routing.dense(), share_BIE.mean(1))
