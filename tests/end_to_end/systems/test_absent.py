"""What an item does not have gets no share: in models, in explanations of every system, in answers to requests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from rec.config import from_table
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.nn.modality import gate_per_user, or_none, present_only
from rec.nn.packed import layout
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.config import ServeConfig
from rec.serving.export import export
from rec.systems.healthmoe import HealthMoE
from rec.systems.healthmoe.config import HealthMoEConfig
from rec.systems.magnet import Magnet
from rec.systems.magnet.config import MagnetConfig
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.train.job import train_here
from tests.end_to_end.serving.test_app import Noted
from tests.support.own import own_tables, quiet

SMALL = {"width": 8, "blocks": 1, "max_length": 10, "dropout": 0.0}
GATES: list[dict[str, Any]] = [{"gate": g} for g in ("item", "user", "agreement", "mean", "published")] + [{"top_k": 2}]
ABSENT_NOTE = "nothing is known here of: "


def awake(system: Any) -> Any:
    """A model all of whose weights say something."""
    torch.manual_seed(0)
    module = system.model().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def msmrec(absent: list[tuple[int, int]], **changes: Any) -> tuple[MSMRec, Any, Any]:
    """Return a system, rows and a model, where some (item, text) are not there."""
    rows, tables = MSMRec.sample(12, np.random.default_rng(0))
    for item, text in absent:
        tables["text"][item, text] = 0
    system = MSMRec(MSMRecConfig(**(SMALL | changes)), tables)
    return system, system.collate(dict(rows)), awake(system)


def test_scores_of_what_is_absent_are_left_out_and_stay_where_all_is() -> None:
    score, present = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[True, False], [False, False]])
    assert present_only(score, present).tolist() == [[1.0, -torch.inf], [3.0, 4.0]]
    assert present_only(score, None) is score
    assert or_none([0.5, 0.5], torch.tensor([False, True])) == [None, 0.5]


def test_weights_per_user_are_of_items_with_texts_alone() -> None:
    where = layout([3, 2, 1])
    weight_NK = torch.tensor([[1.0, 0], [0, 0], [0, 1], [0.5, 0.5], [1, 0], [0, 0]])
    found = gate_per_user(weight_NK, where)
    assert found["length"].tolist() == [2, 2, 0]
    assert found["gate"].tolist() == [[0.5, 0.5], [0.75, 0.25], [0, 0]]
    assert found["gate_first"].tolist() == found["gate_even"].tolist() == [[1, 0], [0.5, 0.5], [0, 0]]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("output_mix", ["none", "mean", "gate"])
def test_msmrec_credits_no_text_that_an_item_does_not_have(gate: dict[str, Any], output_mix: str) -> None:
    system, batch, module = msmrec([(4, 1), (5, 0), (5, 1), (6, 0), (6, 1), (6, 2)], output_mix=output_mix, **gate)
    with torch.inference_mode():
        states = system.states(module, batch)
        told = {item: system.explain(module, batch, [item] * len(batch))[0] for item in (3, 4, 5, 6)}
        details = system.details(module, states, 0, [3, 4, 5, 6])["modalities"]
        scores = system.scores(module, states, slice(0, 31))[0]
    there = {3: [True] * 3, 4: [True, False, True], 5: [False, False, True], 6: [False] * 3}
    for place, (item, one) in enumerate(told.items()):
        assert [weight is not None for weight in one["modalities"]] == there[item]
        assert details[place] == pytest.approx(one["modalities"], nan_ok=False)
        assert sum(w or 0 for w in one["modalities"]) == pytest.approx(float(any(there[item])), abs=1e-6)
        assert [part for part, has in zip(one["parts"][1:], there[item], strict=True) if not has] == [0.0] * (
            3 - sum(there[item])
        )
        assert one["score"] == pytest.approx(float(scores[item]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("loss", ["ce", "ss", "bce"])
@pytest.mark.parametrize("gate", [{}, {"gate": "user"}, {"output_mix": "gate"}, {"top_share": 0.6}])
def test_msmrec_learns_where_texts_are_absent(loss: str, gate: dict[str, Any]) -> None:
    weights = {"entropy_weight": 0.1, "balance_weight": 0.1}
    more = {"negatives": 4} if loss == "ss" else {}
    system, batch, module = msmrec([(i, i % 3) for i in range(1, 31)] + [(7, 0), (7, 1)], loss=loss, **gate, **weights,
                                   **more)  # fmt: skip
    sum(term.mean for term in system.loss(module.train(), batch).values()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in module.parameters())


def test_scores_of_pairs_candidates_and_ranges_agree_where_texts_are_absent() -> None:
    _, batch, module = msmrec([(i, i % 3) for i in range(1, 31)], output_mix="gate")
    encoded = module(batch)
    full = module.scores(encoded.state_ND, encoded.user_ND, encoded)
    item = torch.randint(1, 31, (len(batch.item_N),))
    torch.testing.assert_close(module.pair_scores(item, encoded), full.gather(1, item[:, None])[:, 0])
    candidate = torch.randint(1, 31, (12, 4))
    expected = full.gather(1, candidate[batch.where.sequence_N])
    torch.testing.assert_close(module.candidate_scores(candidate, encoded, batch.where), expected)


def test_items_that_have_every_text_are_what_they_were() -> None:
    (_, _, all_there), (_, _, one_short) = msmrec([]), msmrec([(4, 1)])
    assert all_there.present_IK is None
    one, other = all_there.catalogue(), one_short.catalogue()
    others = torch.arange(31) != 4
    torch.testing.assert_close(one.item_ID[others], other.item_ID[others], rtol=0, atol=1e-6)
    assert not other.modality_IKD[4, 1].any()
    torch.testing.assert_close(other.item_ID[4], one_short.item.weight[4] + other.modality_IKD[4, [0, 2]].mean(0))


def test_magnet_credits_no_stream_that_an_item_does_not_have() -> None:
    columns, tables = Magnet.sample(12, np.random.default_rng(0))
    system = Magnet(MagnetConfig(width=8, modalities=("image",), content={"image": 1.0}), tables)
    batch, module = system.collate(dict(columns)), awake(system)
    with torch.inference_mode():
        for item, there in ((2, True), (3, False), (5, False), (7, True)):
            one = system.explain(module, batch, [item] * len(batch))[0]
            told = system.details(module, system.states(module, batch), 0, [item])["modalities"][0]
            for weights in (one["modalities"], told):
                assert (weights[1] is not None) == there
                assert sum(weight or 0 for weight in weights) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("head", ["ranking", "classification"])
def test_healthmoe_credits_nothing_that_is_known_of_neither_side(head: str) -> None:
    columns, tables = HealthMoE.sample(12, np.random.default_rng(0))
    tables["item_present"][[3, 4]] = [[True, False, True], [False, False, True]]
    tables["user_present"][0, 0] = False
    tables["item_contains"][:] = False
    small = {"width": 8, "hidden": 16, "out": 8, "negatives": 0, "encoders": "frozen", "head": head}
    system = HealthMoE(HealthMoEConfig.model_validate(small | {"item": ["text", "image", "attributes"]}), tables)
    batch, module = system.collate(dict(columns)), awake(system)
    with torch.inference_mode():
        states = system.states(module, batch)
        for item, there in ((3, [True, False, True]), (4, [False, False, True])):
            one = system.explain(module, batch, [item] * len(batch))[0]
            assert system.details(module, states, 0, [item])["modalities"][0] == pytest.approx(one["modalities"])
            told = dict(zip(system.modalities, one["modalities"], strict=True))
            parts = dict(zip(one["names"], one["parts"], strict=True))
            known = {"item text": there[0], "item image": there[1], "item attributes": there[2], "user text": False}
            for name, has in ((name, has) for name, has in known.items() if name in told):
                assert (told[name] is not None) == has
                assert has or parts[name] == pytest.approx(0, abs=1e-5)


@pytest.fixture(scope="module", params=["msmrec", "magnet", "healthmoe"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A served run of each system that explains, on tables where half of the items have no words."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    words = [f"salt number {n}" if n % 2 else "" for n in range(10)]
    sections = own_tables(folder, words=words, text={"encoder": "tfidf", "width": 4}) | {
        "text": {"modalities": ["words", "acting"], "width": 4}, "content": {"modalities": ["text"], "neighbours": 3},
    }  # fmt: skip
    systems: dict[str, tuple[str, dict[str, Any]]] = {
        "msmrec": ("rec.systems.msmrec:MSMRec", SMALL),
        "magnet": ("rec.systems.magnet:Magnet", {"width": 8, "modalities": ["text"], "content": {"text": 1.0}}),
        "healthmoe": (
            "rec.systems.healthmoe:HealthMoE",
            {
                "width": 8,
                "hidden": 16,
                "out": 8,
                "encoders": "frozen",
                "user": ["text"],
                "item": ["text", "id"],
                "modality_dropout": 0.1,
            },
        ),
    }
    system, model = systems[request.param]
    table = {"system": system, "out": f"{folder}/run", "model": model, "data": {"root": f"{folder}/data", **sections}}
    config = from_table(table | {"train": {"batch_size": 4, "epochs": 1}})
    prepare(config.data, InProcess(), quiet)
    train_here(config, lambda _: None, quiet)
    answerer = Answerer(export(config, f"{folder}/artifact", quiet))
    with TestClient(create(answerer, ServeConfig(), Noted(), None, "r")) as found:
        yield request.param, found


NAMES = {"msmrec": "words", "magnet": "text", "healthmoe": "item text"}


@pytest.mark.parametrize(("item", "has"), [("i4", False), ("i5", True), ("i0", False), ("i9", True)])
def test_answers_say_what_is_not_there(client: Any, item: str, has: bool) -> None:
    system, served = client
    name = NAMES[system]
    why = served.post("/v1/explain", json={"user": "u1", "item": item}).json()
    assert (why["modalities"][name] is not None) == has
    assert name not in why["parts"] or (why["parts"][name] is not None) == has
    assert sum(part or 0 for part in why["parts"].values()) == pytest.approx(why["score"], abs=1e-4)
    told = [note for note in why["notes"] if note.startswith(ABSENT_NOTE)]
    assert (name in "".join(told)) == (not has)
    if system == "msmrec":
        assert why["modalities"]["acting"] is None
        assert ("acting" in "".join(told)) is True
    best = served.post("/v1/recommend", json={"history": ["i2"], "user": "u1", "k": 10, "explain": True}).json()
    found = {entry["item"]: entry["modalities"] for entry in best["items"]}
    assert (found[item][name] is not None) == has


def test_what_is_shown_of_an_item_repeats_no_name(client: Any) -> None:
    _, served = client
    shown = served.get("/v1/entities/item/i4").json()
    assert "acting" not in str(shown.get("text", ""))
    assert "words" not in [value for value in shown.values() if isinstance(value, str)]


@pytest.mark.parametrize("gate", ["user", "agreement", "mean", "random"])
def test_weights_of_users_are_shared_out_over_what_each_item_has(gate: str) -> None:
    _, batch, module = msmrec([(3, 0), (4, 0), (4, 2), (5, 0), (5, 1), (5, 2)], gate=gate, output_mix="gate")
    encoded = module(batch)
    found = module.scores(encoded.state_ND, encoded.user_ND, encoded)
    assert not module.has_products
    for item in (1, 3, 4, 5):
        rows = len(encoded.state_ND)
        expected = module.pair_scores(torch.full((rows,), item), encoded)
        torch.testing.assert_close(found[:, item], expected)
