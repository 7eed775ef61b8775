"""MAGNET: what every system must do, and the invariants of its parts."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rec.errors import ConfigError
from rec.moe.balance import balance
from rec.moe.routing import keep_all, keep_top_k
from rec.systems.magnet import Magnet
from rec.systems.magnet.config import MagnetConfig, TriggerConfig
from rec.systems.magnet.mixture import RoleExperts, Trigger
from tests.conformance import Conformance, EveryUsersOther, loss_of, same_by_fanout

SMALL = {"width": 8}


class TestMagnet(Conformance):
    system = Magnet
    configs = [
        SMALL
        | {"routing_terms": True, "contrast_weight": 0.1, "contrast_nodes": 5, "shared": 0.5, "mixture_weight": 0.3},
        SMALL | {"view": "joint", "streams": "feat", "templates": "free", "per_pair": 9, "edge_dropout": 0.0},
        SMALL | {"expert": "mlp", "base_residual": False, "per_pair": 3, "routing_terms": False},
        SMALL | {"mixture": "off", "contrast_weight": 0.0, "modalities": ["text"], "content": {"text": 1.0}},
        SMALL | {"fanout": 2, "edge_dropout": 0.5},
        SMALL | {"mixture": "random", "shared": 0.2},
    ]

    def still(self, system: Any, module: Any) -> None:
        module.unseen = EveryUsersOther()
        module.mixture.config = module.mixture.config.model_copy(update={"noise": 0.0})

    def test_every_trained_parameter_moves(self, built) -> None:
        if built[0].config.mixture == "off":
            pytest.skip("the router decides nothing")
        super().test_every_trained_parameter_moves(built)


def built(**changes: Any) -> tuple[Magnet, dict[str, Any], Any]:
    columns, tables = Magnet.sample(12, np.random.default_rng(0))
    system = Magnet(MagnetConfig.model_validate(SMALL | changes), tables)
    torch.manual_seed(0)
    module = system.model()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return system, dict(columns), module


def test_templates_follow_their_roles() -> None:
    for modalities in (("image", "text"), ("image", "text", "audio")):
        config = MagnetConfig.model_validate({"modalities": list(modalities)})
        share = RoleExperts(config).template_EA
        streams = len(modalities) + 1
        torch.testing.assert_close(share.sum(1), torch.ones(3 * streams))
        anchor = torch.arange(streams).repeat_interleave(3)
        assert torch.equal(share[0::3].argmax(1), anchor[0::3])
        assert torch.equal(share[1::3].argmax(1), anchor[1::3])
        assert torch.equal(share[2::3].argmin(1), anchor[2::3])
    assert MagnetConfig().experts()[:4] == (
        "behaviour-dominant", "behaviour-balanced", "behaviour-complementary", "image-dominant"
    )  # fmt: skip
    assert RoleExperts(MagnetConfig()).template_EA[0].tolist() == pytest.approx([0.8, 0.1, 0.1])


@pytest.mark.parametrize("expert", ["template", "mlp"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"per_pair": 9},
        {"mixture": "off"},
        {"base_residual": False, "per_pair": 1},
        {"shared": 0.4, "per_pair": 3, "mixture_weight": 0.5},
    ],
)
def test_scores_of_the_catalogue_are_those_of_pairs(expert: str, changes: dict[str, Any]) -> None:
    system, rows, module = built(expert=expert, **changes)
    module.eval()
    with torch.inference_mode():
        states = system.states(module, system.collate(rows))
        found = module.scores(states["state_BAD"]).float()
        item = torch.arange(found.shape[1])
        wanted = system.candidate_scores(module, states, item.expand(len(found), -1))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_shares_of_a_missing_picture_go_to_what_is_there() -> None:
    _, _, module = built()
    experts = module.mixture.experts
    stack = torch.randn(20, 3, 8)
    present = module.present(torch.arange(1, 21))
    assert present is not None
    assert present[2:5].tolist() == [[1, 0, 1]] * 3  # items 3 to 5 have no picture
    other = stack.clone()
    other[2:5, 1] = 99.0
    torch.testing.assert_close(experts.of_nodes(stack, present), experts.of_nodes(other, present))
    share = experts.template_EA[0, [0, 2]] / experts.template_EA[0, [0, 2]].sum()
    torch.testing.assert_close(experts.of_nodes(stack, present)[0, 2], share[0] * stack[2, 0] + share[1] * stack[2, 2])


def test_gates_have_k_shares_that_sum_to_one_and_all_of_them_are_the_softmax() -> None:
    for k in (2, 9):
        _, _, module = built(per_pair=k)
        module.eval()
        routing = module.mixture.route(torch.randn(30, 3, 8), torch.randn(30, 3, 8))
        share = routing.dense()
        assert ((share > 0).sum(1) == k).all()
        torch.testing.assert_close(share.sum(1), torch.ones(30))
        if k == 9:
            torch.testing.assert_close(share, routing.probability_NE)


def test_coverage_is_one_for_even_use_and_e_over_k_at_collapse() -> None:
    even = keep_all(torch.full((40, 9), 1 / 9))
    assert balance(even, torch.full((9,), 40.0)).item() / 40 == pytest.approx(1)
    probability = torch.zeros(40, 9)
    probability[:, :2] = 0.5
    collapsed = keep_top_k(probability, 2)
    assert balance(collapsed, torch.tensor([40.0, 40.0, *[0.0] * 7])).item() / 40 == pytest.approx(9 / 2)


def counts(entropy: str) -> torch.Tensor:
    return torch.full((9,), 10.0) if entropy == "high" else torch.tensor([45.0, 45.0, *[0.0] * 7])


def test_the_trigger_fires_after_a_window_of_high_entropy_and_one_dip_starts_anew() -> None:
    config = TriggerConfig(window=5, warmup=3, smoothing=0.0, ramp=4)
    trigger = Trigger(config, 9)
    for step in ["low", "high", "high", "high", "high", "low", "high", "high", "high", "high"]:
        trigger.observe(counts(step))
        assert trigger.switched == -1
    assert trigger.entropy == pytest.approx(1, abs=1e-6)
    trigger.observe(counts("high"))
    assert trigger.switched == 11
    ramps = []
    for _ in range(5):
        ramps.append(trigger.ramp)
        trigger.observe(counts("low"))
    assert ramps == [0, 0.25, 0.5, 0.75, 1]
    assert trigger.switched == 11  # never back
    assert trigger.entropy == pytest.approx(math.log(2) / math.log(9), abs=1e-6)  # .315: always the same two


def test_a_trigger_that_goes_on_from_a_checkpoint_fires_at_the_same_step() -> None:
    config = TriggerConfig(window=6, warmup=2)
    whole, first, second = (Trigger(config, 9) for _ in range(3))
    for step in range(20):
        whole.observe(counts("high"))
        now = first if step < 5 else second
        now.observe(counts("high"))
        if step == 4:
            second.load_state_dict(first.state_dict())
    assert whole.switched == second.switched == 8
    assert torch.equal(whole.state, second.state)


def test_a_fixed_step_switches_whatever_the_entropy() -> None:
    trigger = Trigger(TriggerConfig(kind="fixed_step", step=4), 9)
    for _ in range(6):
        trigger.observe(counts("low"))
    assert trigger.switched == 4


def test_every_ablation_is_one_override_that_fits() -> None:
    from rec.config import from_table, override

    plain = from_table({"system": "rec.systems.magnet:Magnet", "out": "x", "data": {"root": "y"}})
    for overrides in MagnetConfig.VARIANTS.values():
        assert len(overrides) <= 1
        MagnetConfig.model_validate(override(plain, overrides).model)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"per_pair": 10}, "at most the 9 experts"),
        ({"modalities": []}, "at least one beside behaviour"),
        ({"features": ["text"], "content": {}}, "name modalities instead"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(table: dict[str, Any], words: str) -> None:
    from rec.config import check

    with pytest.raises(ConfigError, match=words):
        check(MagnetConfig, table, "model.")


def test_an_explanation_tells_experts_streams_and_what_the_ranks_were_and_became() -> None:
    system, rows, module = built()
    module.eval()
    with torch.inference_mode():
        batch = system.collate(rows)
        items = [int(part[0]) for part in rows["target"]]
        found = system.explain(module, batch, items)
        user_BAD = system.states(module, batch)["state_BAD"]
        full, base = module.scores(user_BAD).float(), user_BAD[:, 0] @ module.items().stack_IAD[:, 0].T
    for row, (told, item) in enumerate(zip(found, items, strict=True)):
        assert told["score"] == pytest.approx(full[row, item].item(), rel=1e-4, abs=1e-4)
        assert sum(told["experts"]) == pytest.approx(1, abs=1e-5)
        assert sum(weight or 0 for weight in told["modalities"]) == pytest.approx(1, abs=1e-5)
        free = [i for i in range(1, full.shape[1]) if i not in set(map(int, rows["history"][row]))]
        assert told["rank"] == 1 + sum(full[row, i] > full[row, item] for i in free)
        assert told["base_rank"] == 1 + sum(base[row, i] > base[row, item] for i in free)
        assert len(told["names"]) == len(told["parts"]) == 10


def test_reliance_is_the_templates_weighed_by_the_experts_shares() -> None:
    system, rows, module = built()
    module.eval()
    with torch.inference_mode():
        batch = system.collate(rows)
        told = system.analyser(module)(batch)
    assert set(told) == {"expert share", "reliance/behaviour", "reliance/image", "reliance/text"}
    torch.testing.assert_close(told["expert share"].sum(1), torch.ones(len(batch)))
    whole = sum(told[f"reliance/{name}"] for name in system.modalities)
    torch.testing.assert_close(whole, torch.ones(len(batch)))


def test_graphs_move_with_the_weights() -> None:
    def tensors(value: Any) -> list[torch.Tensor]:
        if isinstance(value, list | tuple):
            return [tensor for part in value for tensor in tensors(part)]
        return [value] if isinstance(value, torch.Tensor) else []

    system, _, module = built(view="joint")
    system.start_epoch(module, 0)
    module.to("meta")
    found = [tensor for value in vars(module).values() for tensor in tensors(value)]
    assert len(found) > 12
    assert {tensor.device.type for tensor in [*found, module.unseen.key_E]} == {"meta"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"view": "joint", "edge_dropout": 0.0},
        {"streams": "feat", "expert": "mlp", "modalities": ["text"], "content": {"text": 1.0}},
    ],
)
def test_drawn_neighbours_that_are_all_neighbours_change_nothing(changes: dict[str, Any]) -> None:
    same_by_fanout(built, changes | {"contrast_weight": 0.1, "noise": 0.0})


def test_contrast_of_some_nodes_takes_every_so_manyth_and_others_at_the_next_step() -> None:
    system, rows, module = built(contrast_weight=0.1, contrast_nodes=5, view="joint", edge_dropout=0.0)
    batch = system.collate(rows)
    for step in range(4):
        found = system.loss(module, batch)["view_contrast_user"]
        plain_XD, content_XD = (F.normalize(view_ND[:12][step % 3 :: 3]) for view_ND in module.views()[:2])
        logit_XX = plain_XD @ content_XD.T / system.config.temperature
        assert found.count == 4
        torch.testing.assert_close(found.mean, F.cross_entropy(logit_XX, torch.arange(4)))
        module.mixture.trigger.observe(torch.ones(module.mixture.num_experts))
    every = {n: built(contrast_weight=0.1, contrast_nodes=n, noise=0.0) for n in (0, 1000)}
    for module in (m for _, _, m in every.values()):
        module.unseen = EveryUsersOther()
    means = [s.loss(m, s.collate(r))["view_contrast_item"].mean for s, r, m in every.values()]
    assert means[0] == means[1]


@pytest.mark.parametrize("view", ["late", "joint"])
def test_an_item_that_nobody_has_yet_ranks_by_what_is_like_it(view: str) -> None:
    """Users of even numbers like even items; the two cold items are like the even and the odd ones."""
    users, items = 20, 12
    kind = np.arange(1, items + 1) % 2
    liked = [(user, item) for user in range(users) for item in range(3, items + 1) if item % 2 == user % 2]
    near = [(a, b) for a in range(1, items + 1) for b in range(1, items + 1) if a != b and kind[a - 1] == kind[b - 1]]
    edge, pair = np.array(liked, np.int32), np.array(near, np.int32)
    tables = {
        "user_count": np.bincount(edge[:, 0]),
        "item_count": np.bincount(edge[:, 1], minlength=items + 1),
        "edge_train": edge,
    }
    for name in ("image", "text"):
        tables |= {f"graph_{name}_edge": pair, f"graph_{name}_weight": np.ones(len(pair), np.float32)}
        tables |= {f"feature_{name}": np.pad(np.eye(2, dtype=np.float32)[kind], ((1, 0), (0, 0)))}
    system = Magnet(
        MagnetConfig.model_validate(SMALL | {"view": view, "edge_dropout": 0.0, "contrast_weight": 0}), tables
    )
    torch.manual_seed(0)
    module = system.model()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    rows = {"user": edge[:, 0], "history": [[] for _ in edge], "target": [[item] for item in edge[:, 1]]}
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(system, module, rows).backward()
        optimizer.step()
    module.eval()
    with torch.inference_mode():
        known = {"user": np.arange(users), "history": [[] for _ in range(users)], "target": [[] for _ in range(users)]}
        score = module.scores(system.states(module, system.collate(known))["state_BAD"]).float()
    odd = torch.arange(users) % 2 == 1
    assert bool(((score[:, 1] > score[:, 2]) == odd).all())  # item 1 is odd, item 2 even, and nobody has either
