"""MSMRec: the conformance tests, and what its specification asks for."""

from typing import Any

import numpy as np
import pytest
import torch

from rec.errors import ConfigError, RequestError
from rec.evaluation.measure import measure, metrics
from rec.evaluation.records import ragged
from rec.evaluation.tasks.ranking.answers import recommend_batch
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from tests.conformance import Alone, Conformance, take

SMALL = {"width": 8, "blocks": 1, "max_length": 10, "dropout": 0.0}


def build(seed: int = 0, **changes: Any) -> tuple[MSMRec, dict[str, Any]]:
    rows, tables = MSMRec.sample(12, np.random.default_rng(0))
    return MSMRec(MSMRecConfig(**(SMALL | changes)), tables, seed), dict(rows)


def awake(system: MSMRec) -> Any:
    """A model whose projector, which starts at zero, has something to say."""
    torch.manual_seed(0)
    module = system.model().eval()
    for name, parameter in module.named_parameters():
        if "projector" in name:
            torch.nn.init.normal_(parameter)
        elif "item.weight" in name or "position.weight" in name:
            torch.nn.init.normal_(parameter[1:])
    return module


class TestConformance(Conformance):
    system = MSMRec
    configs = [
        SMALL | change
        for change in (
            {},
            {"gate": "none"},
            {"gate": "none", "block": "published", "loss": "bce"},
            {"gate": "none", "block": "hstu"},
            {"gate": "user", "loss": "ss", "negatives": 5},
            {"gate": "published", "output_mix": "none"},
            {"gate": "mean", "loss": "gbce", "negatives": 4},
            {"fusion": "bilinear", "output_mix": "gate"},
            {"fusion": "attention", "output_mix": "gate", "loss": "ss", "negatives": 3, "projector_shared": False},
            {"fusion": "network", "loss": "ss", "negatives": 3},
            {"gate": "random", "output_mix": "gate"},
            {"gate": "agreement", "output_mix": "gate", "gate_window": 3, "entropy_weight": 0.1},
            {"gate": "agreement", "strict_gate": True, "loss": "ss", "negatives": 3},
            {"gate": "user", "output_mix": "gate", "loss": "bce"},
            {"top_k": 2, "projector_hidden": [6], "entropy_weight": 0.1, "balance_weight": 0.1},
            {"top_share": 0.7, "strict_gate": True, "output_mix": "gate"},
            {"feedforward_mixture": {"experts": 3, "fine": 2, "shared": True, "noise": True, "z_weight": 0.01}},
            {"gate": "none", "feedforward_mixture": {"experts": 4, "per_row": 1, "router": "sigmoid"}},
            {"gate": "none", "feedforward_mixture": {"experts": 3, "router": "random"}},
            {"gate": "none", "feedforward_mixture": {"experts": 3, "router": "uniform"}},
            {"texts": "shuffled"},
            {"texts": "random", "heads": 2, "feedforward": 16},
            {"texts": "concatenated"},
            {"mask_seen": "input", "temperature": 0.1},
            {"mask_seen": "none", "mix_scale": 1.0},
            {"gate": "none", "loss": "sampled", "negatives": 7},
            {"gate": "none", "loss": "sampled", "negatives": 7, "item_table": "sharded"},
            {"loss": "sampled", "negatives": 7, "output_mix": "gate", "item_table": "sharded"},
            {"loss": "ss", "negatives": 3, "top_k": 2, "item_table": "sharded"},
            {"loss": "bce", "gate": "mean", "item_table": "sharded", "feedforward_mixture": {"experts": 2}},
        )
    ]

    def still(self, system: Any, module: Any) -> None:
        """The same items stand against every row's."""
        config = system.config
        count = 1 if config.loss == "bce" else config.negatives
        item_C = torch.arange(count) * 3 % system.num_items + 1

        def draw(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
            if config.loss == "sampled":
                return item_C, torch.ones(count)
            asking = len(batch.item_N) if config.loss == "bce" else len(batch)
            return item_C.expand(asking, -1), item_C[:0]

        system._draw = draw


@pytest.mark.parametrize("gate", ["item", "user", "agreement", "none"])
def test_later_items_change_neither_state_nor_gate(gate: str) -> None:
    system, _ = build(gate=gate)
    module = awake(system)
    a = module(system.collate({"history": [np.array([1, 2, 3, 4, 5])]}))
    b = module(system.collate({"history": [np.array([1, 2, 3, 9, 9])]}))
    torch.testing.assert_close(a.state_ND[:3], b.state_ND[:3])
    assert not torch.allclose(a.state_ND[3:], b.state_ND[3:])
    if a.routing is not None:
        torch.testing.assert_close(a.routing.probability_NE[:3], b.routing.probability_NE[:3])


def test_the_published_gate_is_not_causal_and_equals_its_formula() -> None:
    system, _ = build(gate="published")
    module = awake(system)
    torch.nn.init.normal_(module.modality)
    history = np.array([3, 1, 2])
    found = module(system.collate({"history": [history]})).routing.probability_NE
    length, width = 10, 8
    padded = torch.zeros(length, dtype=torch.int64)
    padded[-3:] = torch.from_numpy(history)
    place = torch.where(padded > 0, torch.arange(1, length + 1), 0)
    user = (width**0.5 * module.item.weight[padded] + module.position.weight[place]).mean(0)
    expected = (module.modality @ user).softmax(0)
    torch.testing.assert_close(found, expected.expand(3, -1))


def test_company_and_its_length_do_not_change_scores() -> None:
    system, rows = build()
    module = awake(system)
    together = module(system.collate(rows))
    for i in range(12):
        alone = module(system.collate(take(rows, [i])))
        start = system.collate(rows).where.start_B[i]
        torch.testing.assert_close(together.state_ND[start : start + len(rows["history"][i])], alone.state_ND)


@pytest.mark.parametrize("output_mix", ["none", "mean", "gate"])
def test_a_projector_at_zero_is_sasrec_exactly(output_mix: str) -> None:
    plain, rows = build(gate="none")
    mixed, _ = build(output_mix=output_mix)
    torch.manual_seed(1)
    a = plain.model().eval()
    b = mixed.model().eval()
    b.load_state_dict(a.state_dict(), strict=False)
    batch = plain.collate(rows)
    x, y = a(batch), b(batch)
    torch.testing.assert_close(x.state_ND, y.state_ND, rtol=0, atol=0)
    torch.testing.assert_close(a.scores(x.state_ND, x.user_ND, x), b.scores(y.state_ND, y.user_ND, y), rtol=0, atol=0)


@pytest.mark.parametrize("fusion", ["inner", "bilinear", "attention"])
@pytest.mark.parametrize("cut", [{}, {"top_k": 2}, {"top_share": 0.6}])
def test_two_product_ranking_equals_an_item_vector_per_user(fusion: str, cut: dict) -> None:
    system, rows = build(fusion=fusion, output_mix="gate", **cut)
    module = awake(system)
    encoded = module(system.collate(rows))
    found = module.scores(encoded.state_ND, encoded.user_ND, encoded)
    for n in (0, 7):
        for i in (1, 5, 30):
            routing = module.route(encoded.user_ND[n : n + 1], encoded.modality_IKD[i : i + 1], None)
            item = encoded.item_ID[i] + routing.dense()[0] @ encoded.modality_IKD[i]
            torch.testing.assert_close(found[n, i], encoded.state_ND[n] @ item, rtol=1e-4, atol=1e-4)


def test_pair_and_candidate_scores_equal_the_full_ones() -> None:
    system, rows = build(output_mix="gate")
    module, batch = awake(system), system.collate(rows)
    encoded = module(batch)
    full = module.scores(encoded.state_ND, encoded.user_ND, encoded)
    item = torch.randint(1, 31, (len(batch.item_N),))
    torch.testing.assert_close(module.pair_scores(item, encoded), full.gather(1, item[:, None])[:, 0])
    candidate = torch.randint(1, 31, (12, 4))
    expected = full.gather(1, candidate[batch.where.sequence_N])
    torch.testing.assert_close(module.candidate_scores(candidate, encoded, batch.where), expected)


def test_texts_without_content_weigh_the_same() -> None:
    rows, tables = MSMRec.sample(12, np.random.default_rng(0))
    tables["text"][:] = 0
    system = MSMRec(MSMRecConfig(**SMALL), tables)
    routing = awake(system)(system.collate(rows)).routing
    torch.testing.assert_close(routing.probability_NE, torch.full_like(routing.probability_NE, 1 / 3))


def test_permuted_modalities_permute_the_gate() -> None:
    rows, tables = MSMRec.sample(12, np.random.default_rng(0))
    order = [2, 0, 1]
    a, b = (MSMRec(MSMRecConfig(**SMALL), {**tables, "text": t}) for t in (tables["text"], tables["text"][:, order]))
    x, y = (awake(s)(s.collate(rows)).routing.probability_NE for s in (a, b))
    torch.testing.assert_close(x[:, order], y)


def test_the_strict_gate_does_not_see_the_steps_own_item() -> None:
    system, _ = build(strict_gate=True)
    module = awake(system)
    encoded = module(system.collate({"history": [np.array([4, 5, 6]), np.array([7, 8])]}))
    vectors = module.item.weight
    assert encoded.user_ND[0].abs().max() == encoded.user_ND[3].abs().max() == 0
    torch.testing.assert_close(encoded.user_ND[2], (vectors[4] + vectors[5]) / 2)
    torch.testing.assert_close(encoded.user_ND[4], vectors[7])


def test_padding_that_is_attended_changes_scores_only_where_asked() -> None:
    plain, _ = build(gate="none")
    padded, _ = build(gate="none", attend_padding=True)
    module = awake(plain)
    rows = {"history": [np.array([1, 2, 3])]}
    a, b = (module(s.collate(rows)).state_ND for s in (plain, padded))
    assert (len(a), len(b)) == (3, 10)
    assert not torch.allclose(a, b[-3:])


def test_the_targets_of_a_step_are_the_next_items() -> None:
    system, _ = build()
    batch = system.collate({"history": [np.array([1, 2, 3]), np.array([7])], "target": np.array([4, 8])})
    assert batch.next_item_N.tolist() == [2, 3, 4, 8]
    assert batch.position_N.tolist() == [8, 9, 10, 10]


def test_long_histories_are_cut_for_the_encoder_and_masked_whole() -> None:
    system, _ = build(gate="none")
    history = np.arange(1, 16)
    batch = system.collate({"history": [history], "target": np.array([20])})
    assert batch.item_N.tolist() == history[-10:].tolist()
    assert batch.seen_item_M.tolist() == history.tolist()
    ranked = {}
    for mask in ("all", "input", "none"):
        other, _ = build(gate="none", mask_seen=mask)
        records = measure(other, Alone(awake(other)), iter([(batch, True)]))
        ranked[mask] = ragged(records["ranking"], "rank")[0][0]
    assert ranked["all"] <= ranked["input"] <= ranked["none"]


def test_predictions_are_unseen_items_with_weights_that_sum_to_one() -> None:
    system, rows = build()
    answers = recommend_batch(system, awake(system), system.collate(rows))
    for answer, history in zip(answers, rows["history"], strict=True):
        assert not set(answer["items"]) & {0, *history.tolist()}
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        assert np.allclose(np.sum(answer["modalities"], axis=1), 1, atol=1e-5)


def test_a_short_run_learns_the_planted_cycle() -> None:
    system, rows = build(gate="none", width=16)
    torch.manual_seed(0)
    module = system.model().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    for _ in range(150):
        term = system.loss(module, system.collate(rows))["ce"]
        optimizer.zero_grad()
        term.mean.backward()
        optimizer.step()
    found = metrics(system, measure(system, Alone(module), iter([(system.collate(rows), True)])))
    assert found["hit@10"] > 0.9


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.top_k: at most the 3 modalities, got 4"):
        build(top_k=4)
    system, _ = build()
    with pytest.raises(RequestError, match="row 1: history is empty"):
        system.collate({"history": [np.array([1]), np.array([], dtype=np.int64)]})


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": "none", "loss": "ss", "negatives": 3},
        {"loss": "gbce", "negatives": 3},
        {"loss": "bce", "output_mix": "gate", "fusion": "bilinear"},
        {"loss": "sampled", "negatives": 9, "output_mix": "gate"},
        {"loss": "sampled", "negatives": 9, "gate": "user", "projector_shared": False},
    ],
)
def test_picking_items_changes_neither_losses_nor_gradients_nor_scores(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    system, rows = build(**changes)
    sharded, _ = build(**changes, item_table="sharded")
    whole, module = awake(system).train(), sharded.model().train()
    module.load_state_dict(whole.state_dict())
    batch = system.collate(rows)

    def step(system: MSMRec, module: Any) -> tuple[float, dict[str, torch.Tensor]]:
        torch.manual_seed(3)
        module.zero_grad()
        (term,) = system.loss(module, batch).values()
        term.sum.backward()
        return float(term.sum), {name: p.grad for name, p in module.named_parameters()}

    loss, grads = step(system, whole)
    found, sharded_grads = step(sharded, module)
    assert found == pytest.approx(loss, rel=1e-6)
    local, grad = module.item.touched()
    table = torch.zeros_like(grads["item.weight"]).index_copy(0, local, grad)
    torch.testing.assert_close(table, grads.pop("item.weight"), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sharded_grads, grads, rtol=1e-4, atol=1e-6)
    with torch.inference_mode():
        states = system.states(whole.eval(), batch)
        scores = system.scores(whole, states, slice(3, 20))
        torch.testing.assert_close(sharded.scores(module.eval(), states, slice(3, 20)), scores)
    # A whole table of many items picks, too.
    monkeypatch.setattr("rec.systems.msmrec.model.FEW_ITEMS", 10)
    picked, picked_grads = step(system, whole.train())
    assert picked == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(picked_grads.pop("item.weight"), table, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(picked_grads, grads, rtol=1e-4, atol=1e-6)


def test_a_step_projects_no_more_items_than_it_needs() -> None:
    system, rows = build(loss="sampled", negatives=4, item_table="sharded")
    module, seen = system.model(), []
    module.projector.register_forward_hook(lambda _, given, out: seen.append((given[0], len(out))))
    system.loss(module, system.collate(take(rows, [0])))["sampled"].sum.backward()
    ((items, count),) = seen
    assert count == len(items) <= len(set(rows["history"][0].tolist())) + 1 + 4


def test_a_sharded_table_learns_the_planted_cycle() -> None:
    rows, tables = MSMRec.sample(256, np.random.default_rng(0))
    config = MSMRecConfig(width=32, max_length=10, dropout=0.0, gate="none", loss="sampled", item_table="sharded")
    system = MSMRec(config, tables)
    torch.manual_seed(0)
    engine = LocalEngine(system.model(), TrainConfig(learning_rate=0.01))
    for _ in range(60):
        (term,) = system.loss(engine, system.collate(rows)).values()
        engine.backward(term.mean)
        engine.step(0.01)
    found = measure(system, Alone(engine.module), iter([(system.collate(rows), True)]))
    assert metrics(system, found)["hit@10"] > 0.9
