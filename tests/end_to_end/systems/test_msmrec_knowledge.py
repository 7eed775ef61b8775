"""KAR's adaptor on MSMRec: against a slow, obvious version, off and at its start, and what a user may know when."""

from typing import Any

import numpy as np
import pytest
import torch

from rec.strict import idle_keys
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.systems.msmrec.knowledge import ITEM, TOLD, USER
from tests.conformance import Conformance

SMALL: dict[str, Any] = {"width": 8, "blocks": 1, "max_length": 10, "dropout": 0.0, "gate": "none"}
BOTH = {"towers": "both", "shared": 2, "specific": 3, "hidden": 6}


def build(knowledge: dict[str, Any], **changes: Any) -> tuple[MSMRec, dict[str, Any]]:
    rows, tables = MSMRec.sample(12, np.random.default_rng(0))
    return MSMRec(MSMRecConfig(**(SMALL | changes), knowledge=knowledge), tables), dict(rows)


def awake(system: MSMRec) -> Any:
    """A model whose experts, which start by adding nothing, have something to say."""
    torch.manual_seed(0)
    module = system.model().eval()
    torch.nn.init.normal_(module.knowledge.layer.experts.down_EFD)
    return module


class TestConformance(Conformance):
    system = MSMRec
    configs = [
        SMALL | change
        for change in (
            {"knowledge": BOTH},
            {"knowledge": BOTH | {"per_row": 2, "balance_weight": 0.1}, "gate": "item"},
            {"knowledge": {"towers": "user", "specific": 2, "from_start": True}, "loss": "bce"},
            {"knowledge": {"towers": "item", "shared": 0}, "loss": "sampled", "negatives": 7, "item_table": "sharded"},
        )
    ]

    def still(self, system: Any, module: Any) -> None:
        """The same items stand against every row's."""
        count = 1 if system.config.loss == "bce" else system.config.negatives
        item_C = torch.arange(count) * 3 % system.num_items + 1

        def draw(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
            if system.config.loss == "sampled":
                return item_C, torch.ones(count)
            return item_C.expand(len(batch.item_N), -1), item_C[:0]

        system._draw = draw


def slow(module: Any, text_M: torch.Tensor, tower: int) -> torch.Tensor:
    """One text through every expert that its tower passes, one after the other: KAR's equations 5 to 7."""
    layer, shared, own = module.knowledge.layer, BOTH["shared"], BOTH["specific"]
    numbers = [*range(shared), *range(shared + tower * own, shared + (tower + 1) * own)]
    share = torch.softmax(text_M @ layer.router.weight_TDC[tower], 0)
    total = torch.zeros(SMALL["width"])
    for weight, number in zip(share, numbers, strict=True):
        hidden = torch.nn.functional.gelu(text_M @ layer.experts.up_EDF[number])
        total = total + weight * (hidden @ layer.experts.down_EFD[number])
    return total


def test_the_adaptor_equals_one_text_after_the_other() -> None:
    system, rows = build(BOTH | {"from_start": True})
    module, batch = awake(system), system.collate(rows)
    known = module.knowledge(batch)
    items, users = (torch.from_numpy(system.static[name]) for name in (ITEM, USER))
    for row in (0, 5, len(batch.item_N) - 1):
        torch.testing.assert_close(known.item_ND[row], slow(module, items[batch.item_N[row]], 0))
        torch.testing.assert_close(known.user_ND[row], slow(module, users[batch.where.sequence_N[row]], 1))


def test_items_join_their_ids_at_the_input_and_users_the_states() -> None:
    system, rows = build(BOTH | {"from_start": True})
    module, batch = awake(system), system.collate(rows)
    known = module.knowledge(batch)
    x_ND = (module.item(batch.item_N) + known.item_ND) * 8**0.5 + module.position(batch.position_N)
    state_ND, _ = module.encoder(x_ND, batch.where)
    torch.testing.assert_close(module(batch).state_ND, state_ND + known.user_ND)


@pytest.mark.parametrize("towers", ["none", "item", "user", "both"])
def test_off_and_at_its_start_it_is_sasrec_exactly(towers: str) -> None:
    plain, rows = build({})
    system, _ = build(BOTH | {"towers": towers} if towers != "none" else {"towers": "none"})
    a, b = plain.model().eval(), system.model().eval()
    b.load_state_dict(a.state_dict(), strict=False)
    assert torch.equal(a(plain.collate(rows)).state_ND, b(system.collate(rows)).state_ND)


def test_the_plain_models_weights_do_not_depend_on_the_adaptor() -> None:
    models = []
    for knowledge in ({}, BOTH):
        torch.manual_seed(0)
        models.append(build(knowledge, gate="item", projector_hidden=[6])[0].model())
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_an_expert_of_one_tower_is_never_passed_by_the_other() -> None:
    system, rows = build(BOTH)
    module, batch = awake(system), system.collate(rows)
    known = module.knowledge(batch)
    share_XE = known.mixed.routing.dense()
    items, users = share_XE[known.tower_X == 0], share_XE[known.tower_X == 1]
    assert (items[:, 5:] == 0).all()
    assert (items[:, :5] > 0).all()
    assert (users[:, 2:5] == 0).all()
    assert (users[:, [0, 1, 5, 6, 7]] > 0).all()
    torch.testing.assert_close(share_XE.sum(1), torch.ones(len(share_XE)))


def test_a_user_vector_is_added_once_all_that_its_text_names_is_seen() -> None:
    system, _ = build(BOTH)
    system.static[TOLD][:2] = (3, 9)
    module = awake(system)
    history = [np.array([1, 2, 3, 4, 5]), np.arange(1, 15) % 7 + 1]  # of the second, 10 of 14 items are read
    known = module.knowledge(system.collate({"user": np.array([0, 1]), "history": history}))
    added = (known.user_ND != 0).any(1).tolist()
    assert added[:5] == [False, False, True, True, True]
    assert added[5:] == [False] * 4 + [True] * 6  # rows are the 5th to the 14th item


def test_what_comes_later_changes_no_state() -> None:
    system, _ = build(BOTH)
    module = awake(system)
    a, b = (
        module(system.collate({"user": np.array([3]), "history": [np.array([1, 2, 3, *end])]})).state_ND
        for end in ([4, 5], [9, 9])
    )
    torch.testing.assert_close(a[:3], b[:3])


def test_nobody_known_gets_no_user_vector() -> None:
    system, _ = build(BOTH | {"from_start": True})
    module = awake(system)
    unknown = module.knowledge(system.collate({"history": [np.array([1, 2])]}))
    assert (unknown.user_ND == 0).all()
    assert (module.knowledge(system.collate({"user": np.array([0]), "history": [np.array([1, 2])]})).user_ND != 0).any()


def test_an_item_without_a_text_adds_nothing() -> None:
    system, _rows = build(BOTH)
    system.static[ITEM][4] = 0
    module = awake(system)
    known = module.knowledge(system.collate({"user": np.array([0]), "history": [np.array([4, 5])]}))
    assert (known.item_ND[0] == 0).all()
    assert (known.item_ND[1] != 0).any()


def test_keys_of_the_adaptor_are_told_to_be_idle_without_it() -> None:
    idle = idle_keys(MSMRecConfig(knowledge={"specific": 3, "balance_weight": 0.1}), "model.")
    assert set(idle) == {"model.knowledge.specific", "model.knowledge.balance_weight"}
