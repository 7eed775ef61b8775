"""What gates and experts of GaVaMoE are worth, on models whose answer is known."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from rec.evaluation.measure import Recorder
from rec.evaluation.records import column, records_of
from rec.evaluation.task import Groups, Measured
from rec.evaluation.tasks.config import EvaluateConfig
from rec.moe.layer import layers_of, routings
from rec.systems.gavamoe import GaVaMoE, GaVaMoEConfig
from rec.systems.gavamoe.evidence import SampleEvidence, activations, chosen, measure, swap
from rec.systems.gavamoe.evidence_report import notes, sections
from rec.systems.gavamoe.model import GaVaMoEModel
from tests.conformance import take

LANGUAGE = {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "max_tokens": 24}


def made(rows: int = 12, **keys: Any) -> tuple[GaVaMoE, dict[str, Any], GaVaMoEModel]:
    columns, tables = GaVaMoE.sample(rows, np.random.default_rng(0))
    table = {"pairs": {"clusters": 3}, "language": LANGUAGE, "prompt": {"words": "short"}} | keys
    system = GaVaMoE(GaVaMoEConfig.model_validate(table), tables)
    module = system.model().eval()
    torch.manual_seed(1)
    with torch.no_grad():
        module.prior.mean_CZ.normal_()
        module.prior.log_variance_CZ.normal_()
    return system, dict(columns), module


def measured(system: Any, module: Any, rows: dict[str, Any], cut: int = 5, **keys: Any) -> Measured:
    count = len(rows["text"])

    def batches(split: str) -> Iterator[Any]:
        for start in range(0, count, cut):
            yield system.collate(take(rows, list(range(count))[start : start + cut]))

    return Measured(
        system=system, module=module, data=None, split="test", config=EvaluateConfig(bootstrap=100), seed=0,  # type: ignore[arg-type]
        records=records_of({"row": np.arange(count)}, count), values={}, batches=batches,
        groups=Groups(("few", "many"), np.arange(count) % 2), **keys,
    )  # fmt: skip


def by_hand(cluster: list[int], tokens: list[int], right: list[float], by_gate: list[list[float]]) -> SampleEvidence:
    found = SampleEvidence(gates=len(by_gate[0]), layers={})
    found.cluster, found.tokens, found.right = [np.array(cluster)], [np.array(tokens)], [np.array(right)]
    found.by_gate, found.group = [np.array(by_gate)], [np.arange(len(cluster)) % 2]
    return found


def test_wrong_gates_that_cost_so_much_per_token_are_told_to_cost_it() -> None:
    """The next gate costs 0.5 nats per token, the one after it 1.5; reviews of 4 and 2 tokens, two of a cluster."""
    cluster, tokens, right = [0, 0, 1, 1, 2, 2], [4, 2, 4, 2, 4, 2], [8.0, 4, 8, 6, 8, 4]
    more = (0.0, 0.5, 1.5)
    by_gate = [
        [nll + count * more[(gate - own) % 3] for gate in range(3)]
        for own, count, nll in zip(cluster, tokens, right, strict=True)
    ]
    system, rows, module = made()
    found = swap(by_hand(cluster, tokens, right, by_gate), 1, measured(system, module, rows))
    assert found["right"] == pytest.approx(38 / 18)
    assert found["wrong"]["difference"] == pytest.approx({"mean": 1.0, "low": 1.0, "high": 1.0})
    assert found["wrong"]["nll"] == pytest.approx(38 / 18 + 1)
    # Gate 1 is right for a third, the next one for cluster 0, and the one after for cluster 2.
    assert found["heaviest"]["gate"] == 1
    assert found["heaviest"]["difference"]["mean"] == pytest.approx((0 + 0.5 + 1.5) / 3)
    assert found["heaviest"]["difference"]["low"] < 2 / 3 < found["heaviest"]["difference"]["high"]
    assert [entry["reviews"] for entry in found["gates"]] == [4, 4, 4]
    assert found["gates"][0]["difference"]["mean"] == pytest.approx((0.5 + 1.5) / 2)
    np.testing.assert_allclose(found["by_cluster"], [[0, 0.5, 1.5], [1.5, 0, 0.5], [0.5, 1.5, 0]], atol=1e-12)
    lone = swap(by_hand([1, 1], [1, 1], [1.0, 1.0], [[2.0, 1.0], [2.0, 1.0]]), 0, measured(system, module, rows))
    assert lone["by_cluster"] == [[None, None], [1.0, 0.0]]
    assert lone["gates"][1]["difference"] is None
    words = notes({"why_no_swap": "", "swap": found, "reviews": 6, "layers": {}})
    assert words[0] == (
        "a wrong gate on purpose costs 1.0000 nats per token (95 % interval 1.0000 to 1.0000), over 6 reviews of the "
        "split"
    )


def test_what_clusters_tell_of_experts_is_told_beside_what_chance_tells() -> None:
    """Cluster 0 sends all to expert 0, cluster 1 to expert 1, in even numbers; groups are of either."""
    system, rows, module = made()
    found = by_hand([0, 1, 1, 0] * 10, [1] * 40, [1.0] * 40, [[1.0]] * 40)
    slots_BE = np.array([[6, 0], [0, 6], [0, 6], [6, 0]] * 10)
    found.slots = {"a": [slots_BE[:13], slots_BE[13:]], "b": [np.full((40, 2), 3)]}
    told = activations(found, measured(system, module, rows))
    assert told["a"]["clusters"] == {"0": [1, 0], "1": [0, 1]}
    assert told["a"]["groups"] == {"few": [0.5, 0.5], "many": [0.5, 0.5]}
    assert (told["a"]["information"], told["a"]["most"]) == pytest.approx((np.log(2), np.log(2)))
    assert 0 < told["a"]["shuffled"] < 0.1
    assert (told["b"]["information"], told["b"]["shuffled"]) == pytest.approx((0, 0))
    assert told["b"]["share"] == [0.5, 0.5]


def test_experts_with_equal_weights_make_every_gate_right_and_each_of_them_superfluous() -> None:
    system, rows, module = made(experts={"experts": 2, "per_row": 2})
    with torch.no_grad():
        for _, layer in layers_of(module):
            for parameter in layer.experts.parameters():
                parameter[1] = parameter[0]
    found = measure(measured(system, module, rows))
    assert found["reviews"] == found["off_reviews"] == 12
    assert found["swap"]["wrong"]["difference"] == pytest.approx({"mean": 0, "low": 0, "high": 0}, abs=1e-5)
    for entry in found["layers"].values():
        np.testing.assert_allclose(entry["similarity"], np.ones((2, 2)), atol=1e-4)
        assert [one["difference"]["mean"] for one in entry["off"]] == pytest.approx([0, 0], abs=1e-5)
        assert entry["share"] == [0.5, 0.5]


def test_where_only_the_gate_tells_what_to_write_the_right_one_is_better() -> None:
    """Pairs of a gate have words of their own, and nothing but the gate says which pair it is."""
    system, rows, module = made(
        experts={"experts": 2, "per_row": 1, "gates": "random"}, pairs={"clusters": 2},
        prompt={"words": "short", "feature": False, "rating": "none"},
    )  # fmt: skip
    gate_B = module.asked(system.collate(rows))[1].cluster_B
    assert set(gate_B.tolist()) == {0, 1}
    rows |= {"text": [("the price is bad", "sound")[gate] for gate in gate_B.tolist()]}
    for linear in (module.writer.user, module.writer.item):
        linear.weight.requires_grad_(False).zero_()
        linear.bias.requires_grad_(False).normal_()
    with torch.no_grad():
        prompt, pairs = module.asked(system.collate(rows))
    optimiser = torch.optim.AdamW((p for p in module.writer.parameters() if p.requires_grad), lr=0.02)
    for _ in range(60):
        written = module.writer(prompt, pairs.user_BF, pairs.item_BF, pairs.cluster_B)
        optimiser.zero_grad()
        module.writer.terms(written)["text_nll"].mean.backward()
        optimiser.step()
    found = measure(measured(system, module, rows))
    assert found["swap"]["right"] < 0.2
    assert found["swap"]["wrong"]["difference"]["low"] > 1
    assert found["swap"]["heaviest"]["difference"]["mean"] > 0.5
    assert found["swap"]["by_cluster"][0][0] == pytest.approx(0, abs=1e-6)
    assert all(entry["information"] > 2 * entry["shuffled"] for entry in found["layers"].values())


@pytest.mark.parametrize(
    ("keys", "why", "sections_told"),
    [
        ({"pairs": {"clusters": 1}}, "there is one cluster", 3),
        ({"experts": {"gates": "one"}}, "all pairs share one gate", 3),
        ({"experts": {"experts": 0}}, "there are no experts", 1),
        ({"experts": {"experts": 1, "per_row": 1, "gates": "random"}}, "", 3),
        ({"experts": {"soft_gate": True}}, "", 3),
    ],
)
def test_where_no_gate_is_wrong_there_is_no_swap_and_words_say_why(
    keys: dict[str, Any], why: str, sections_told: int
) -> None:
    system, rows, module = made(**keys)
    found = measure(measured(system, module, rows))
    assert ("swap" in found) == (not why)
    words = notes(found)
    assert any(why in word for word in words) if why else not found["why_no_swap"]
    assert len(sections(found)) == sections_told
    if keys.get("experts", {}).get("experts") == 1:
        assert all(entry["off"] == [] for entry in found["layers"].values())


@pytest.mark.parametrize("soft", [False, True])
def test_numbers_do_not_depend_on_how_reviews_are_cut(soft: bool) -> None:
    system, rows, module = made(experts={"soft_gate": soft})
    one, other = (measure(measured(system, module, rows, cut)) for cut in (12, 5))
    assert one["tokens"] == other["tokens"]
    for name in ("wrong", "heaviest"):
        assert one["swap"][name]["difference"] == pytest.approx(other["swap"][name]["difference"], abs=1e-5)
    for first, second in zip(one["layers"].values(), other["layers"].values(), strict=True):
        assert first["clusters"] == second["clusters"]
        assert first["information"] == pytest.approx(second["information"])


@pytest.mark.parametrize(
    ("experts", "wanted"),
    [
        ({"a": 4, "b": 1, "c": 4}, ["a", "c"]),
        ({str(place): 8 for place in range(8)}, list("01234567")),
        ({str(place): 32 for place in range(9)}, ["0", "8"]),
        ({"a": 100, "b": 100}, ["a"]),
        ({"a": 1}, []),
    ],
)
def test_so_many_layers_are_tried_without_experts_as_are_affordable(experts: dict[str, int], wanted: list[str]) -> None:
    assert list(chosen(experts)) == wanted


@torch.inference_mode()
def test_records_hold_the_share_of_each_expert_in_the_tokens_of_each_review() -> None:
    system, rows, module = made(experts={"experts": 3, "per_row": 1})
    record = Recorder(system, module, EvaluateConfig())
    whole = record(system.collate(rows))["writing"]
    with routings(module.writer) as heard:
        module.written(system.collate(take(rows, [4])))
    assert len(heard) == 2
    for name, routing in heard.items():
        found = column(whole, f"routed/writer.{name}")
        np.testing.assert_allclose(found[4], routing.dense().mean(0).numpy(), atol=1e-5)
