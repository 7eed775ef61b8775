"""LightGCN and its kin: what every system must do, and known answers."""

from typing import Any

import numpy as np
import pytest
import torch

from rec.errors import ConfigError
from rec.systems.lightgcn import LightGCN, LightGCNConfig
from tests.conformance import Conformance, EveryUsersOther, loss_of, same_by_fanout, take

SMALL = {"width": 8}


class TestLightGCN(Conformance):
    system = LightGCN
    configs = [
        SMALL,
        SMALL | {"layers": 0, "regularisation": 0.0},
        SMALL | {"edge_dropout": 0.5, "content": {"text": 0.9}},
        SMALL | {"content": {"text": 0.5}, "content_form": "given", "layers": 1},
        SMALL | {"layers": 0, "features": ["text"]},
        SMALL | {"edge_dropout": 0.5, "content": {"text": 0.9}, "fanout": 2},
    ]

    def still(self, system: Any, module: Any) -> None:
        module.unseen = EveryUsersOther()


def built(**changes: Any) -> tuple[LightGCN, dict[str, Any], Any]:
    columns, tables = LightGCN.sample(12, np.random.default_rng(0))
    system = LightGCN(LightGCNConfig.model_validate(SMALL | changes), tables)
    torch.manual_seed(0)
    return system, dict(columns), system.model()


def test_without_layers_scores_are_products_of_the_tables() -> None:
    system, rows, module = built(layers=0)
    module.eval()
    batch = system.collate(rows)
    with torch.inference_mode():
        wanted = module.user.weight @ module.item.weight.T
        found = system.queries(module, system.states(module, batch)) @ system.item_vectors(module).T
    torch.testing.assert_close(found, wanted)


def test_an_epochs_edges_follow_from_seed_and_epoch_and_evaluation_has_all() -> None:
    system, _, module = built(edge_dropout=0.5)
    drawn = []
    for epoch in (0, 1, 0):
        system.start_epoch(module, epoch)
        drawn.append(module.drawn.to_dense())
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    edges = len(module.user_E)
    assert int((drawn[0] > 0).sum()) == 2 * (edges // 2)
    module.eval()
    whole = module.catalogue()
    module.train()
    assert not torch.equal(whole, module.nodes())
    assert int((module.whole.to_dense() > 0).sum()) == 2 * edges


def test_a_user_who_is_not_known_is_the_mean_of_what_they_come_with() -> None:
    system, rows, module = built()
    module.eval()
    with torch.inference_mode():
        batch = system.collate({"user": [-1, 3], "history": [[2, 5], rows["history"][3]], "target": [[], []]})
        query = system.queries(module, system.states(module, batch))
        item_ID = system.item_vectors(module)
    torch.testing.assert_close(query[0], item_ID[[2, 5]].mean(0))
    torch.testing.assert_close(query[1], module.catalogue()[3])


@pytest.mark.parametrize(
    "table", [{"layers": 0, "edge_dropout": 0.5}, {"features": ["text"], "content": {"text": 1.0}}]
)
def test_keys_that_do_not_fit_together_are_refused(table: dict[str, Any]) -> None:
    from rec.config import check

    with pytest.raises(ConfigError):
        check(LightGCNConfig, table, "model.")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": 0},
        {"layers": 0, "features": ["text"]},
        {"edge_dropout": 0.5, "content": {"text": 0.9}},
        {"content": {"text": 0.9}, "content_form": "given"},
    ],
)
def test_drawn_neighbours_that_are_all_neighbours_change_nothing(changes: dict[str, Any]) -> None:
    same_by_fanout(built, changes)


def test_rows_cut_over_ranks_have_the_loss_and_gradient_of_the_whole_batch() -> None:
    system, rows, module = built(regularisation=0.5)
    module.unseen = EveryUsersOther()
    whole = loss_of(system, module, rows)
    wanted = torch.autograd.grad(whole, list(module.parameters()))
    cuts = [take(rows, index) for index in ([0, 1, 2], [3], list(range(4, 12)))]
    terms = [system.loss(module, system.collate(cut)) for cut in cuts]
    value, found = 0.0, [torch.zeros_like(parameter) for parameter in module.parameters()]
    for name, first in terms[0].items():
        total = sum(float(t[name].sum.detach()) for t in terms), sum(float(t[name].count) for t in terms)
        value += first.weight * first.value_of(*total)
        part = sum(t[name].part_of(*total) for t in terms) * first.weight
        gradients = torch.autograd.grad(part, list(module.parameters()), retain_graph=True, materialize_grads=True)
        found = [one + other for one, other in zip(found, gradients, strict=True)]
    assert value == pytest.approx(float(whole.detach()), rel=1e-6)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_norms_are_those_of_the_batchs_rows() -> None:
    system, rows, module = built()
    module.unseen = EveryUsersOther()
    batch = system.collate(rows)
    terms = system.loss(module, batch)
    user = batch.user_B[batch.target_row_P]
    ends = {"user": module.user(user), "liked": module.item(batch.target_P), "other": module.item(user % 7 + 12)}
    for name, row in ends.items():
        torch.testing.assert_close(terms[f"norm_{name}"].mean, row.norm() / len(user))


def test_norms_with_vectors_are_those_of_both_halves_of_an_item() -> None:
    system, rows, module = built(layers=0, features=("text",))
    batch = system.collate(rows)
    liked = batch.target_P
    both_PD = torch.cat([module.item(liked), module.project(module.feature_IM[liked])], 1)
    torch.testing.assert_close(system.loss(module, batch)["norm_liked"].mean, both_PD.norm() / len(liked))
