"""HealthMoE: what every system must do, and what this one promises."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rec.errors import ConfigError, RequestError
from rec.evaluation.tasks.ranking.answers import recommend_batch
from rec.moe.balance import balance
from rec.moe.layer import MixtureOfExperts
from rec.moe.routing import keep_all
from rec.nn.pairs import chosen_positives
from rec.nn.retrieval import Ask
from rec.systems.healthmoe import HealthMoE
from rec.systems.healthmoe.config import HealthMoEConfig
from tests.conformance import Conformance, take

CONFIGS = Path(__file__).parents[3] / "rec" / "configs"
SMALL = {"width": 8, "hidden": 16, "out": 8, "dropout": 0.0, "negatives": 0, "modality_dropout": 0.3}
TINY = {"text": {"width": 16, "layers": 1}, "image": {"width": 16, "layers": 1}}
WITH_HISTORY = {"user": ["text", "attributes", "history"], "item": ["text", "image", "id"]}


class TestHealthMoE(Conformance):
    system = HealthMoE
    configs = [
        SMALL | TINY,
        SMALL | WITH_HISTORY | {"encoders": "frozen"},
        SMALL | TINY | {"mixture": {"experts": 0}, "loss": "bpr", "item": ["text", "attributes"], "negatives": 4},
        SMALL | TINY | {"head": "classification", "mixture": {"experts": 4, "per_row": 4}},
        SMALL | TINY | {"mixture": {"experts": 3, "per_row": 1, "router": "uniform", "noise": True}},
        SMALL | TINY | {"hidden": 0, "mixture": {"experts": 0}, "item": ["image", "attributes"]},
    ]

    def still(self, system: Any, module: Any) -> None:
        """No modality is left out by chance, and everybody's relevant items count."""
        module.config = module.config.model_copy(update={"modality_dropout": 0.0, "positives": 100})


def built(rows: int = 12, **changes: Any) -> tuple[HealthMoE, dict[str, Any], Any]:
    columns, tables = HealthMoE.sample(rows, np.random.default_rng(0))
    system = HealthMoE(HealthMoEConfig.model_validate(SMALL | TINY | changes), tables)
    torch.manual_seed(0)
    return system, dict(columns), system.model().eval()


def scores(system: HealthMoE, module: Any, rows: dict[str, Any]) -> torch.Tensor:
    with torch.inference_mode():
        item_ID = module.catalogue()
        return module.all_scores(module.states(system.collate(rows), item_ID), item_ID)


def test_the_reference_design_joins_four_projections_of_256() -> None:
    _, tables = HealthMoE.sample(4, np.random.default_rng(0))
    config = HealthMoEConfig.model_validate({"item": ["text", "image"], "product": False})
    module: Any = HealthMoE(config, tables).model()
    experts = module.mixture.experts
    assert (experts.up_EDF.shape, experts.down_EFD.shape) == ((4, 1024, 512), (4, 512, 256))
    assert config.mixture.per_row == 2
    mixed = module.mixture(torch.randn(5, 1024))
    torch.testing.assert_close(mixed.routing.weight_NK.sum(1), torch.ones(5))
    assert mixed.y_ND.shape == (5, 256)


@pytest.mark.parametrize("size", [1, 7, 24, 25, 1000])
def test_what_must_not_be_shown_is_found_in_blocks_of_items(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    system, rows, _ = built()
    monkeypatch.setattr("rec.systems.healthmoe.system.ITEMS_AT_ONCE", size)
    contains, avoid = system.static["item_contains"], system.static["user_avoid"]
    found = system.examples(system.collate(rows)).forbidden_BI
    expected = [[bool((contains[item] & avoid[user]).any()) for item in range(25)] for user in rows["user"]]
    assert found is not None
    assert found.tolist() == expected
    assert any(map(any, expected))


def test_one_expert_equals_a_plain_network_and_dense_the_full_softmax() -> None:
    _, _, module = built(mixture={"experts": 4, "per_row": 4})
    layer = module.mixture
    assert isinstance(layer, MixtureOfExperts)
    x = torch.randn(9, layer.experts.up_EDF.shape[1])
    probability = layer.router(x).probability_NE
    members = torch.stack([layer.experts.member(e)(x) for e in range(4)], 1)
    torch.testing.assert_close(layer(x).y_ND, torch.einsum("ne,neo->no", probability, members), rtol=1e-4, atol=1e-5)
    _, _, single = built(mixture={"experts": 1, "per_row": 1})
    torch.testing.assert_close(single.mixture(x).y_ND, single.mixture.experts.member(0)(x), rtol=1e-4, atol=1e-5)


def test_what_is_not_said_of_the_mixture_stays_as_the_reference_design_has_it() -> None:
    mixture = HealthMoEConfig.model_validate({"mixture": {"per_row": 1}}).mixture
    assert (mixture.experts, mixture.per_row, mixture.noise) == (4, 1, True)


def test_a_gate_on_the_user_sends_all_items_of_a_user_to_the_same_experts() -> None:
    for gate, same in (("user", True), ("pair", False)):
        system, rows, module = built(gate=gate, mixture={"experts": 4, "per_row": 2})
        item_ID = module.catalogue()[1:]
        user_BD = module.states(system.collate(rows), module.catalogue())
        shape = (len(user_BD), len(item_ID), -1)
        x_ND = torch.cat([user_BD[:, None].expand(shape), item_ID.expand(shape)], 2).flatten(0, 1)
        expert_BIK = module.mix(x_ND)[1].routing.expert_NK.view(len(user_BD), len(item_ID), 2)
        assert bool((expert_BIK == expert_BIK[:, :1]).all()) is same
        assert bool((expert_BIK == expert_BIK[:1]).all()) is False


def test_even_routing_gives_a_balance_of_one_hundredth() -> None:
    routing = keep_all(torch.full((40, 4), 0.25))
    assert 0.01 * balance(routing, torch.full((4,), 40.0)) / 40 == pytest.approx(0.01)


def test_pixels_of_an_absent_picture_change_nothing() -> None:
    system, rows, module = built()
    before = scores(system, module, rows)
    absent = ~module.tables["item_present"][:, 1]
    assert absent.any()
    module.tables["item_pixels"] = module.tables["item_pixels"].clone()
    module.tables["item_pixels"][absent] = 255
    module.train().eval()
    after = scores(system, module, rows)
    assert before.isfinite().all()
    torch.testing.assert_close(after, before)
    module.tables["item_pixels"][~absent] = 0
    module.train().eval()
    assert not torch.allclose(scores(system, module, rows), before)


def test_a_score_does_not_depend_on_the_rest_of_the_batch_or_the_size_of_blocks() -> None:
    system, rows, module = built()
    whole = scores(system, module, rows)
    alone = torch.cat([scores(system, module, take(rows, [n])) for n in range(12)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        item_ID = module.catalogue()
        small = module.all_scores(module.states(system.collate(rows), item_ID), item_ID, block=3)
    torch.testing.assert_close(whole, small, rtol=1e-4, atol=1e-5)


def test_the_classifier_sees_nothing_of_items_and_ranks_no_new_one() -> None:
    system, rows, module = built(head="classification")
    before = scores(system, module, rows)
    module.tables["item_tokens"] = torch.zeros_like(module.tables["item_tokens"])
    torch.testing.assert_close(scores(system, module, rows), before)
    cold = ~module.known_I
    assert (before[:, cold] == -torch.inf).all()
    _, _, ranking = built()
    assert scores(system, ranking, rows)[:, cold].isfinite().all()


def test_cold_items_are_never_drawn_as_what_nobody_wants() -> None:
    system, rows, module = built(negatives=200)
    seen: list[torch.Tensor] = []
    original = module.item_side
    module.item_side = lambda index, *rest, **named: seen.append(index) or original(index, *rest, **named)
    system.loss(module.train(), system.collate(rows))
    cold = set((~module.known_I).nonzero()[:, 0].tolist())
    assert cold
    assert not cold & set(seen[0].tolist())


def test_what_is_to_be_found_is_no_part_of_the_history_in_training() -> None:
    system, rows, _ = built(**WITH_HISTORY)
    rows["history"], rows["target"] = [np.zeros(0, np.int32)] * 12, [np.arange(1, 8, dtype=np.int32)] * 12
    torch.manual_seed(0)
    row, item, history = chosen_positives(system.collate(rows), 8, True)
    for user in range(12):
        wanted, known = set(item[row == user].tolist()), set(history[1][history[0] == user].tolist())
        assert len(wanted) == 4
        assert wanted | known == set(range(1, 8))
        assert not wanted & known


@pytest.mark.parametrize("head", ["ranking", "classification"])
def test_what_a_user_must_avoid_never_comes_back(head: str) -> None:
    system, rows, module = built(rows=40, head=head)
    rng = np.random.default_rng(1)
    contains = np.asarray(system.static["item_contains"])
    told = False
    for _ in range(30):
        avoid = [[t for t in system.tags if rng.random() < 0.4] for _ in range(40)]
        asked = rows | {"profile": [{"avoid": names} for names in avoid]}
        pool = tuple(rng.permutation(24)[:12] + 1)
        asks = [Ask(k=int(rng.integers(1, 25)), candidates=pool if rng.random() < 0.3 else None) for _ in range(40)]
        batch = system.collate(asked)
        with torch.inference_mode():
            answers = recommend_batch(system, module, batch, asks)
        for n, (answer, ask) in enumerate(zip(answers, asks, strict=True)):
            mine = set(avoid[n]) | {t for t, x in zip(system.tags, system.static["user_avoid"][n], strict=True) if x}
            for item in answer["items"]:
                assert not mine & {t for t, x in zip(system.tags, contains[item], strict=True) if x}
            for entry in answer["withheld"]:
                told = True
                assert set(entry["contains"]) == mine & {
                    t for t, x in zip(system.tags, contains[entry["item"]], strict=True) if x
                }
            assert len(answer["items"]) <= ask.k
            assert set(answer["items"]) <= set(ask.candidates or range(1, 25))
    assert told
    forbidden = int(np.flatnonzero(contains[:, 0])[0])
    one = system.collate(take(rows, [0]) | {"profile": [{"avoid": [system.tags[0]]}]})
    with pytest.raises(RequestError, match="never recommended to this user: it contains fish"), torch.inference_mode():
        system.explain(module, one, [forbidden])


def test_a_profile_takes_the_place_of_what_the_tables_say() -> None:
    system, rows, module = built()
    stranger = take(rows, [0, 0, 0]) | {"user": [-1, -1, -1], "history": [[], [], []]}
    plain = scores(system, module, stranger | {"profile": [None, {"text": "salt soup"}, {"text": "sweet cake"}]})
    assert not torch.allclose(plain[0], plain[1])
    assert not torch.allclose(plain[1], plain[2])
    for profile, text in (
        ({"avoid": ["stone"]}, "'stone' is not known; known: fish, milk"),
        ({"attributes": {"x": 1}}, "x"),
    ):
        with pytest.raises(RequestError, match=text):
            system.collate(take(rows, [0]) | {"profile": [profile]})


@pytest.mark.parametrize("name", ["fish", "Fish", " FISH "])
def test_a_request_avoids_a_tag_however_it_is_written(name: str) -> None:
    system, rows, _ = built()
    stranger = take(rows, [0]) | {"user": [-1], "history": [[]]}
    assert system.collate(stranger | {"profile": [{"avoid": [name]}]}).avoid_BT.tolist() == [[True, False]]


def test_a_request_avoids_every_way_in_which_an_older_data_set_writes_a_tag() -> None:
    system, rows, _ = built()
    names = json.dumps(["Fish", "fish"]).encode()
    system.static = {**system.static, "tag_names": np.frombuffer(names, dtype=np.uint8)}
    stranger = take(rows, [0]) | {"user": [-1], "history": [[]]}
    assert system.collate(stranger | {"profile": [{"avoid": ["FISH"]}]}).avoid_BT.tolist() == [[True, True]]


def test_parts_of_an_explanation_are_what_removing_modalities_does() -> None:
    system, rows, module = built(item=["text"], user=["text"])
    batch = system.collate(take(rows, [1]))
    with torch.inference_mode():
        parts = system.explain(module, batch, [5])[0]["parts"]
        value = {}
        for out in ((), ("user text",), ("item text",), ("user text", "item text")):
            item_ID = module.catalogue(out)
            value[out] = float(module.all_scores(module.states(batch, item_ID, out), item_ID)[0, 5])
    nothing, no_user, no_item, full = (
        value[k] for k in (("user text", "item text"), ("user text",), ("item text",), ())
    )
    assert parts[0] == pytest.approx(nothing, abs=1e-5)
    assert parts[1] == pytest.approx(((no_item - nothing) + (full - no_user)) / 2, abs=1e-5)
    assert parts[2] == pytest.approx(((no_user - nothing) + (full - no_item)) / 2, abs=1e-5)


def test_spoiling_pictures_leaves_a_model_of_texts_alone() -> None:
    system, rows, module = built(item=["text"])
    with torch.inference_mode():
        told = system.analyser(module)(system.collate(rows))
    assert not any(name.startswith("spoiled") for name in told)
    system, rows, module = built()
    with torch.inference_mode():
        told = system.analyser(module)(system.collate(rows))
    assert {name for name in told if name.startswith("spoiled")} == {
        "spoiled/jpeg quality 10", "spoiled/jpeg quality 30", "spoiled/blur", "spoiled/crop",
        "spoiled/another item of the class",
    }  # fmt: skip
    assert (told["reliance/item image"] > 0).all()
    torch.testing.assert_close(told["expert share"].sum(1), torch.ones(12))


def test_lora_moves_its_own_weights_and_nothing_else_of_an_encoder() -> None:
    from fnmatch import fnmatch

    system, rows, module = built(
        text={"width": 16, "layers": 1, "lora": 2}, image={"width": 16, "layers": 1, "lora": 2}
    )
    (phase,) = system.phases()
    module.train()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(any(fnmatch(name, glob) for glob in phase.trains))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0)
    for _ in range(3):
        terms = system.loss(module, system.collate(rows)).values()
        optimizer.zero_grad()
        sum(t.weight * t.mean for t in terms).backward()
        optimizer.step()
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    inside = {name for name in moved if name.startswith(("text.", "image."))}
    assert inside
    assert all("lora_" in name for name in inside)
    assert any(name.startswith("image.") for name in inside)
    assert any(name.startswith("mixture.") for name in moved)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"hidden": 0}, "hidden: 0 needs mixture.experts=0"),
        ({"item": ["id"], "modality_dropout": 0.0}, "modality_dropout: above 0 with item ids"),
        ({"head": "classification", "user": ["history"]}, "history looks at items"),
        ({"user": []}, "at least one modality each"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(table: dict[str, Any], text: str) -> None:
    from rec.config import check

    with pytest.raises(ConfigError, match=text):
        check(HealthMoEConfig, table, "model.")


def test_a_picture_size_that_patches_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="must divide the 16 pixels prepared, got 5"):
        built(image={"width": 16, "layers": 1, "patch": 5})


@pytest.mark.parametrize(
    ("name", "notice"),
    [
        ("food", "not dietary or medical advice"),
        ("hummus", "not dietary or medical advice"),
        ("recipes", "not dietary or medical advice"),
        ("ml-100k-posters", ""),
        ("ml-100k-one-healthmoe", ""),
    ],
)
def test_foods_are_no_dietary_advice_and_films_do_not_say_so(name: str, notice: str) -> None:
    config = tomllib.loads((CONFIGS / f"{name}.toml").read_text())["model"]
    assert built(notice=HealthMoEConfig.model_validate(config).notice)[0].notice == notice
