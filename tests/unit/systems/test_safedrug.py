"""Baselines on codes: conformance, a slow version, hand-worked losses, and what no score may depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rec.errors import ConfigError, RequestError
from rec.strict import idle_keys
from rec.systems.safedrug import CodeBaseline, CodeBaselineConfig, LogisticModel, RecurrentModel
from tests.conformance import Conformance, loss_of

LISTS = ("diagnoses", "procedures", "symptoms", "medications")


class TestCodeBaseline(Conformance):
    system = CodeBaseline
    configs = [
        {},
        {"history": "medications", "fields": ["symptoms", "diagnoses"]},
        {"history": "none", "ddi_weight": 0.0},
        {"kind": "logistic"},
        {"kind": "logistic", "history": "medications"},
    ]


def made(rows: int = 10, **keys: Any) -> tuple[CodeBaseline, dict[str, Any]]:
    """Return a system and rows that fit it."""
    columns, tables = CodeBaseline.sample(rows, np.random.default_rng(1))
    return CodeBaseline(CodeBaselineConfig.model_validate(keys), tables), dict(columns)


def scores(system: CodeBaseline, rows: dict[str, Any], seed: int = 0) -> torch.Tensor:
    """Return the scores of a fresh model whose every parameter counts."""
    torch.manual_seed(seed)
    module = system.model().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.inference_mode():
        return module(system.collate(rows))


@pytest.mark.parametrize("history", ["codes", "medications"])
def test_packed_sequences_give_what_each_gives_alone(history: str) -> None:
    system, rows = made(history=history)
    torch.manual_seed(0)
    module = system.model().eval()
    assert isinstance(module, RecurrentModel)
    found_BV = module(system.collate(rows))
    read = ("diagnoses", "procedures", "medications")[: len(module.units)]
    for row, found_V in enumerate(found_BV):
        states, offset = [], 0
        for unit, name in zip(module.units, read, strict=True):
            earlier = rows[f"earlier_{name}"][row]
            visits = [[], *earlier] if name == "medications" else [*earlier, rows[name][row]]
            codes = [torch.as_tensor(np.asarray(visit, np.int64)) + offset for visit in visits]
            states.append(unit(torch.stack([module.code(code_N).sum(0) for code_N in codes]))[1][0])
            offset += system.sizes[name]
        torch.testing.assert_close(found_V, module.head(module.query(torch.cat(states))))


def test_logistic_regression_by_hand() -> None:
    system, _ = made(kind="logistic", history="medications")
    rows = {
        "patient": np.array([0]), "diagnoses": [[1, 4]], "procedures": [[2]], "symptoms": [[]], "medications": [[0]],
        "earlier_diagnoses": [[[4], [4, 5]]], "earlier_procedures": [[]], "earlier_symptoms": [[]],
        "earlier_medications": [[[7], [8, 9]]],
    }  # fmt: skip
    module = system.model()
    assert isinstance(module, LogisticModel)
    torch.nn.init.normal_(module.weight.weight)
    now_CV, earlier_CV = module.weight.weight.split(module.codes)
    wanted_V = now_CV[[1, 4]].sum(0) + now_CV[9 + 2] + now_CV[[9 + 5 + 8, 9 + 5 + 9]].sum(0)
    wanted_V = wanted_V + (2 * earlier_CV[4] + earlier_CV[5] + earlier_CV[9 + 5 + 7]) / 2
    torch.testing.assert_close(module(system.collate(rows))[0], module.bias_V + wanted_V)


@pytest.mark.parametrize("kind", ["recurrent", "logistic"])
@pytest.mark.parametrize("history", ["none", "codes", "medications"])
def test_scores_depend_on_what_is_read_alone(kind: str, history: str) -> None:
    extra = {"ddi_weight": 0.0005} if kind == "recurrent" else {}
    system, rows = made(kind=kind, history=history, **extra)
    before_BV = scores(system, rows)
    rng = np.random.default_rng(5)

    def changed(name: str) -> torch.Tensor:
        size = {**system.sizes, "symptoms": 4}[name.removeprefix("earlier_")]
        drawn = [
            [rng.choice(size, 2, replace=False) for _ in row] if name.startswith("earlier_") else [size - 1]
            for row in rows[name]
        ]
        return scores(system, rows | {name: drawn})

    assert torch.equal(changed("medications"), before_BV)
    assert torch.equal(changed("symptoms"), before_BV)
    assert not torch.equal(changed("diagnoses"), before_BV)
    assert torch.equal(changed("earlier_medications"), before_BV) == (history != "medications")
    found_BV = changed("earlier_diagnoses")
    first = [row for row, visits in enumerate(rows["earlier_diagnoses"]) if not len(visits)]
    assert torch.equal(found_BV, before_BV) == (history == "none")
    assert torch.equal(found_BV[first], before_BV[first])


def test_above_the_target_a_visit_learns_to_avoid_interactions() -> None:
    """Of 12 medications 0 and 1 interact; sets of 2, 4 and 5 of them have rates of 1, 1/6 and 1/10."""
    system, rows = made(3, ddi_target=0.06, ddi_slack=0.05)
    system.interaction_VV = np.zeros((12, 12), bool)
    system.interaction_VV[0, 1] = system.interaction_VV[1, 0] = True
    score_BV = torch.full((3, 12), -20.0)
    for row, size in enumerate((2, 4, 5)):
        score_BV[row, :size] = 20.0
    score_BV.requires_grad_()
    terms = system.loss(lambda _: score_BV, system.collate(rows))
    kept = 1 + (0.06 - 0.1) / 0.05
    assert terms["ddi"].sum.item() == pytest.approx(2 * (1 + 1 + (1 - kept)))
    gradient_BV = torch.autograd.grad(terms["bce"].sum, score_BV)[0]
    assert gradient_BV[:2].abs().sum() == 0
    wanted_V = score_BV[2].sigmoid() - system.labels(system.collate(rows))[2].float()
    torch.testing.assert_close(gradient_BV[2], kept * wanted_V)


def test_below_the_target_the_loss_is_that_without_interactions() -> None:
    system, rows = made(ddi_target=1.0)
    plain, _ = made(ddi_weight=0.0)
    losses = []
    for one in (system, plain):
        torch.manual_seed(3)
        losses.append(loss_of(one, one.model().eval(), rows))
    torch.testing.assert_close(losses[0], losses[1], atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["recurrent", "logistic"])
def test_sixteen_visits_are_learned_by_heart(kind: str) -> None:
    extra = {"ddi_weight": 0.0, "dropout": 0.0} if kind == "recurrent" else {}
    system, rows = made(16, kind=kind, history="medications", fields=["diagnoses", "procedures", "symptoms"], **extra)
    batch = system.collate(rows)
    torch.manual_seed(0)
    module = system.model().train()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss_of(system, module, rows).backward()
        optimizer.step()
    held_BV = system.probabilities(module.eval(), batch) >= 0.5
    both, either = (held_BV & batch.given_BV).sum(), (held_BV | batch.given_BV).sum()
    assert both / either > 0.9


@pytest.mark.parametrize("kind", ["recurrent", "logistic"])
def test_half_precision_weights_learn(kind: str) -> None:
    system, rows = made(kind=kind)
    module = system.model().to(torch.bfloat16)
    loss_of(system, module, rows).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_earlier_visits_of_one_field_are_enough_and_others_must_agree() -> None:
    system, rows = made(4)
    assert len(system.collate(rows | {"earlier_procedures": [[]] * 4, "earlier_medications": [[]] * 4})) == 4
    with pytest.raises(RequestError, match="row 3: earlier_procedures tells of 1 visits and another field of 3"):
        system.collate(rows | {"earlier_procedures": [[], [], [], [[1]]]})


def test_a_visit_without_any_code_has_scores() -> None:
    for kind in ("recurrent", "logistic"):
        system, rows = made(2, kind=kind)
        nothing = {name: [[]] * 2 for name in rows if name != "patient"}
        assert scores(system, rows | nothing).isfinite().all()


def test_keys_without_effect_and_against_each_other() -> None:
    assert idle_keys(CodeBaselineConfig.model_validate({"kind": "logistic", "width": 8})) == {
        "width": ("kind", "logistic")
    }
    for table in ({"fields": ["diagnoses", "diagnoses"]}, {"fields": []}):
        with pytest.raises(ValueError, match="fields"):
            CodeBaselineConfig.model_validate(table)


def test_interactions_that_nothing_is_known_of() -> None:
    columns, tables = CodeBaseline.sample(3, np.random.default_rng(1))
    tables = {name: table for name, table in tables.items() if not name.startswith("interaction")}
    with pytest.raises(ConfigError, match=r"model.ddi_weight: the data set tells no interactions; set it to 0"):
        CodeBaseline(CodeBaselineConfig(), tables).model()
    for keys in ({"ddi_weight": 0.0}, {"kind": "logistic"}):
        system = CodeBaseline(CodeBaselineConfig.model_validate(keys), tables)
        assert loss_of(system, system.model(), columns).isfinite()
        assert system.interactions() is None
        assert system.severities() == {}


def test_severities_are_told_by_the_smaller_medication_first() -> None:
    system, _ = made()
    pairs = np.argwhere(np.triu(system.interactions()))
    assert system.severities() == {tuple(pairs[0].tolist()): "severe"}
