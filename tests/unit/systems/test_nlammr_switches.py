"""What each switch of NLA-MMR changes, and that its default changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rec.systems.nlammr.config import NLAMMRConfig
from rec.systems.nlammr.losses import accuracy_share
from rec.systems.nlammr.samples import V
from tests.support.nlammr import ROWS, built, loss_of, scores

DEFAULTS = (
    {"fusion": "concat"}, {"patient_moe": False}, {"history_gate": False}, {"missing_text_mask": False},
    {"section_dropout": 0.0}, {"ddi_weight": 0.0}, {"ddi_target": 0.0}, {"ddi_filter": "none"}, {"train_plm": "frozen"},
    {"ablate": "none"}, {"dedupe_molecules": False}, {"refresh_every": 1}, {"history": 2}, {"codes": False},
)  # fmt: skip


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
def test_a_switch_at_its_default_is_the_base_model(default: dict[str, Any]) -> None:
    assert loss_of(default) == loss_of({})
    (key,) = default
    assert NLAMMRConfig.model_fields[key].default == default[key]


def test_a_gate_that_is_all_text_ignores_structure_and_one_without_text_is_all_structure() -> None:
    system, rows, module = built({"fusion": "gate"})
    branch = module.medications.module
    with torch.no_grad():
        branch.project.gate.weight.zero_()
        branch.project.gate.bias.fill_(100.0)
    before = scores(system, module, rows)
    with torch.no_grad():
        branch.gin.atom.add_(1.0)
    moved_V = (scores(system, module.train().eval(), rows) != before).any(0)
    assert moved_V.tolist() == [v == 1 for v in range(V)]  # the one that nothing describes


def test_a_gate_is_forced_to_what_is_there() -> None:
    _, _, module = built({"fusion": "gate"})
    gate = module.medications.module.project
    text, structure = torch.randn(4, 24), torch.randn(4, 6)
    described, known = (
        torch.tensor([[True], [True], [False], [False]]),
        torch.tensor([[True], [False], [True], [False]]),
    )
    made = gate(text, structure, described, known)
    torch.testing.assert_close(made[1], gate.text(text)[1])
    torch.testing.assert_close(made[2], gate.structure(structure)[2])
    both = gate(text, structure, torch.ones(4, 1, dtype=torch.bool), torch.ones(4, 1, dtype=torch.bool))
    torch.testing.assert_close(made[[0, 3]], both[[0, 3]])


def test_open_gates_of_visits_are_the_base_model_and_shut_ones_have_no_history() -> None:
    system, rows, module = built()
    gated, _, gated_module = built({"history_gate": True})
    gated_module.load_state_dict(module.state_dict(), strict=False)
    with torch.no_grad():
        gated_module.patients.gate.weight.zero_()
        gated_module.patients.gate.bias.fill_(100.0)
    torch.testing.assert_close(scores(gated, gated_module, rows), scores(system, module, rows))
    with torch.no_grad():
        gated_module.patients.gate.bias.fill_(-100.0)
    first = {**rows, "earlier": [np.zeros(0, np.int64)] * ROWS, "earlier_medications": [[]] * ROWS}
    torch.testing.assert_close(scores(gated, gated_module, rows), scores(system, module, first))


def test_old_visits_can_weigh_less() -> None:
    system, rows, module = built({"history_gate": True})
    with torch.no_grad():
        module.patients.gate.weight.zero_()
        module.patients.gate.weight[0, -2] = -1.0
        texts = module.texts(system.collate(rows))
        plain_BH = module.patients.earlier(texts.query_BD, texts.earlier_BHD, texts.earlier_BH)
        weight_BH, _ = module.patients.history(texts.query_BD, texts)
    ratio_BH = (weight_BH / plain_BH.clamp(min=1e-9))[texts.earlier_BH.all(1)]
    assert (ratio_BH[:, 0] < ratio_BH[:, 1]).all()


def test_a_mask_of_missing_texts_is_the_base_model_where_all_is_there() -> None:
    there = {f"text_{name}_present": np.ones(40, bool) for name in ("symptoms", "diagnoses", "procedures")}
    there["medication_text_present"] = np.ones(V, bool)
    system, rows, module = built({}, there)
    masked, _, masked_module = built({"missing_text_mask": True}, there)
    masked_module.load_state_dict(module.state_dict(), strict=False)
    rows["visit"] = np.maximum(rows["visit"], 0)
    torch.testing.assert_close(scores(masked, masked_module, rows), scores(system, module, rows))


def test_missing_sections_have_no_weight_and_the_learned_vector_stands_for_all_of_them() -> None:
    system, rows, module = built({"missing_text_mask": True})
    rows["visit"][0] = np.flatnonzero(~system.static["text_all_present"])[0]
    texts = module.texts(system.collate(rows))
    weight_BS, joined_BD = module.patients.joined_sections(texts)
    nothing_B = ~texts.present_BS.any(1)
    assert (weight_BS[~texts.present_BS] == 0).all()
    torch.testing.assert_close(weight_BS.sum(1), (~nothing_B).float())
    assert nothing_B.any()
    assert torch.equal(joined_BD[nothing_B], module.patients.missing.expand(int(nothing_B.sum()), -1))


def test_sections_are_dropped_in_training_alone() -> None:
    system, rows, module = built({"missing_text_mask": True, "section_dropout": 0.9})
    texts = module.texts(system.collate(rows))
    weight_BS, _ = module.train().patients.joined_sections(texts)
    assert (weight_BS[texts.present_BS] == 0).any()
    weight_BS, _ = module.eval().patients.joined_sections(texts)
    assert (weight_BS[texts.present_BS] > 0).all()


@pytest.mark.parametrize(("rate", "share"), [(0.03, 1.0), (0.06, 1.0), (0.12, np.exp(-2.5)), (0.09, np.exp(-1.25))])
def test_accuracy_counts_less_above_the_target(rate: float, share: float) -> None:
    assert accuracy_share(rate, 0.06) == pytest.approx(share)


def test_the_target_turns_the_loss_by_the_rate_of_the_whole_step() -> None:
    system, rows, module = built({"ddi_weight": 0.5, "ddi_target": 0.01})
    terms = system.loss(module, system.collate(rows))
    values = {name: float(term.mean.detach()) for name, term in terms.items()}
    share = accuracy_share(values["ddi_rate"], 0.01)
    assert 0 < share < 1
    assert terms["bce"].weight_in(values) == pytest.approx(0.95 * share)
    assert terms["margin"].weight_in(values) == pytest.approx(0.05 * share)
    assert terms["ddi"].weight_in(values) == pytest.approx(0.5 * (1 - share))
    assert terms["ddi"].weight_in(values | {"ddi_rate": 0.0}) == 0
    chosen = system.probabilities(module, system.collate(rows)).detach().numpy() >= 0.5
    pairs = np.triu(chosen[:, :, None] & chosen[:, None], 1)
    assert values["ddi_rate"] == pytest.approx((pairs & system.interactions()).sum() / pairs.sum())


@pytest.mark.parametrize("how", ["greedy", "two_sat"])
def test_a_filter_leaves_no_interacting_pair_and_adds_nothing(how: str) -> None:
    system, rows, module = built({"ddi_filter": how})
    plain, _, _ = built()
    score_BV = system.probabilities(module, system.collate(rows)).detach().numpy()
    chosen, every = system.chosen(score_BV, 0.3), plain.chosen(score_BV, 0.3)
    together = (every[:, :, None] & every[:, None]) & system.interactions()
    assert together.any()
    assert not ((chosen[:, :, None] & chosen[:, None]) & system.interactions()).any()
    assert (chosen <= every).all()


def test_experts_are_in_the_place_of_the_layers_they_replace() -> None:
    _, _, module = built({"fusion": "moe", "patient_moe": True, "mixture": {"experts": 3, "capacity_factor": 1.0}})
    assert module.medications.module.project.num_experts == module.patients.project.num_experts == 3
    assert (module.medications.module.project.capacity_factor, module.patients.project.capacity_factor) == (0, 1)
    assert set(loss_of({"fusion": "moe", "patient_moe": True})) == {"bce", "margin", "balance/0", "balance/1"}


def test_molecules_are_encoded_again_after_so_many_steps_alone() -> None:
    system, rows, module = built({"refresh_every": 3, "ablate": "none"})
    module.train()
    batch, moved = system.collate(rows), []
    for _ in range(7):
        module.zero_grad()
        system.loss(module, batch)["bce"].sum.backward()
        gradient = module.medications.module.gin.atom.grad
        moved.append(bool((gradient != 0).any()))
        assert gradient is not None
        module.after_step()
    assert moved == [True, False, False, True, False, False, True]
    other = system.model()
    other.load_state_dict(module.state_dict())
    assert int(other.age) == 7  # a run that goes on goes on with the structure it had
    assert torch.equal(other.structure_VG, module.structure_VG)


def test_what_is_left_out_of_medications_does_not_matter() -> None:
    tables = {"medication_text": np.random.default_rng(0).standard_normal((V, 24)).astype(np.float32)}
    for ablate, same in (("text", True), ("structure", False)):
        system, rows, module = built({"ablate": ablate})
        other, _, other_module = built({"ablate": ablate}, tables)
        assert torch.equal(scores(system, module, rows), scores(other, other_module, rows)) is same
    assert module.medications.module.graph is None


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_texts_that_are_encoded_in_the_step_train_the_encoder(kind: str) -> None:
    system, rows, module = built({"train_plm": kind, "text": {"width": 8, "layers": 1, "heads": 2}})
    trained = system.phases()[0].trains
    assert (trained == ("*",)) is (kind == "full")
    with pytest.raises(AssertionError):  # nothing describes medications before the first epoch
        assert module.text_VD.abs().sum() > 0
    system.start_epoch(module, 0)
    first = module.text_VD.clone()
    assert (first[1] == 0).all()
    assert (first[0] != 0).any()
    system.loss(module.train(), system.collate(rows))["bce"].sum.backward()
    moved = [name for name, p in module.named_parameters() if name.startswith("text.") and p.grad is not None]
    assert moved
    assert not module.text_VD.requires_grad
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("text."):
                parameter.add_(0.5)
    system.start_epoch(module, 0)
    assert torch.equal(module.text_VD, first)  # a run that goes on inside the epoch keeps what it had
    system.start_epoch(module, 1)
    assert not torch.equal(module.text_VD, first)


def test_codes_add_a_logistic_regression_that_starts_from_how_often_medications_are_given() -> None:
    system, rows, module = built({"codes": True, "code_dropout": 0.5, "code_scale": 2.0})
    plain, _, without = built()
    without.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("codes")})
    share_V = np.clip(np.linspace(0, 1, V), 1e-3, 1 - 1e-3)
    start_V = np.log(share_V / (1 - share_V)).astype(np.float32)
    np.testing.assert_allclose(scores(system, module, rows), scores(plain, without, rows) + start_V, atol=1e-4)
    with torch.no_grad():
        module.codes.of_code_XV.copy_(torch.randn_like(module.codes.of_code_XV))
    weight_XV = module.codes.of_code_XV.detach().numpy()
    first = {"symptoms": 0, "diagnoses": 9, "procedures": 18}
    added_BV = scores(system, module, rows) - scores(plain, without, rows) - start_V
    for row in range(ROWS):
        own = [first[name] + int(code) for name in first for code in rows[name][row]]
        np.testing.assert_allclose(added_BV[row], 2 * weight_XV[own].sum(0), atol=1e-4)
