"""Single and rare labels, other thresholds and filters, the threshold of validation, and points in space, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec.evaluation.records import column, joined, ragged
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.sets import Sets, details, labels, trade_off
from rec.evaluation.tasks.sets.space import space
from rec.evaluation.tasks.sets.threshold import best_threshold
from rec.systems.capabilities import SetPredictor
from tests.unit.evaluation.tasks.sets.test_task import BATCH, INTERACT, Told, Visits, part, visits

DETAIL = EvaluateConfig()


class Careful(Told):
    """Takes label 2 out of every set."""

    def chosen(self, score_BV: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
        chosen_BV = score_BV >= threshold
        chosen_BV[:, 2] = False
        return chosen_BV

    def earlier(self, batch: Visits) -> Tensor:
        return torch.tensor([0, 1, 7])[: len(batch)]


def records(system: SetPredictor[Any, Any] | None = None, **task: Any) -> Any:
    return Sets(**task).records(system or Told(INTERACT), nn.Identity(), BATCH, detail=DETAIL)


def test_labels_are_counted_as_true_given_and_right() -> None:
    found = labels.counts(records(), 4)
    assert found.true_V.tolist() == [2, 2, 1, 1]
    assert found.given_V.tolist() == [2, 2, 1, 0]
    assert found.right_V.tolist() == [2, 1, 1, 0]
    assert found.of(1) == {"true": 2, "given": 2, "right": 1, "precision": 1 / 2, "recall": 1 / 2}
    assert found.of(3) == {"true": 1, "given": 0, "right": 0, "precision": None, "recall": 0}


@pytest.mark.parametrize(
    ("rare", "recall", "jaccard"),
    [
        # Given {0,1}, {0}, {1,2}; true {0,1}, {0,1}, {2,3}.
        ([0, 1, 0, 0], [1, 0, np.nan], [1, 0, np.nan]),
        ([0, 1, 1, 0], [1, 0, 1], [1, 0, 1 / 2]),
        ([0, 0, 0, 0], [np.nan] * 3, [np.nan] * 3),
    ],
)
def test_rare_labels_alone(rare: list[int], recall: list[float], jaccard: list[float]) -> None:
    found = labels.rare_values(records(), np.array(rare, bool))
    np.testing.assert_allclose(found["rare_recall_patient"], recall)
    np.testing.assert_allclose(found["rare_jaccard_patient"], jaccard)


def test_ranks_of_true_labels_are_behind_equal_scores() -> None:
    true_BV = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]], bool)
    score_BV = np.array([[0.9, 0.5, 0.1, 0.1], [0.3, 0.2, 0.1, 0.0], [0.2, 0.7, 0.2, 0.2]])
    rank_P, example_P = labels.ranks(true_BV, score_BV)
    assert rank_P.tolist() == [1, 4, 1, 4]
    assert example_P.tolist() == [0, 0, 2, 2]


def test_rare_labels_among_the_most_probable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "RANKED", 1)
    found = labels.rare_values(records(), np.array([1, 1, 1, 0], bool))["rare_recall@1_patient"]
    np.testing.assert_allclose(found, [1 / 2, 1 / 2, 0])


def test_rare_is_what_few_examples_of_training_have() -> None:
    training = visits([0] * 4, [[0.0] * 4] * 4, [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]], [[0] * 4] * 4)

    def batches(split: str) -> Iterator[Visits]:
        yield from (part(training, [0, 1]), part(training, [2, 3]))

    found = details.training(Told(), batches, 4)
    assert found.examples == 4
    assert found.count_V.tolist() == [4, 2, 1, 0]
    assert found.together_VV is not None
    assert found.together_VV.tolist() == [[1, 1 / 2, 1 / 4, 0], [1 / 2, 1 / 2, 0, 0], [1 / 4, 0, 1 / 4, 0], [0] * 4]
    assert (found.count_V < 0.5 * found.examples).tolist() == [False, False, True, True]


def test_what_a_system_takes_out_counts_as_not_given() -> None:
    found = records(Careful(INTERACT))
    assert found["predicted"].to_pylist() == [[0, 1], [0], [1]]
    assert column(found, "medications").tolist() == [2, 1, 1]
    assert details.filters_sets(Careful())
    assert not details.filters_sets(Told())
    before = trade_off.unfiltered(found, INTERACT, 0.5, 4)
    plain = Sets().metrics(records())
    assert before["ddi_rate"] == plain["ddi_rate"] == pytest.approx(1 / 2)
    for name in ("jaccard_patient", "f1_visit", "medications"):
        assert before[name] == pytest.approx(plain[name]), name


def test_groups_are_by_how_many_examples_came_before() -> None:
    groups = Sets().groups(None, None, "test", records(Careful()), DETAIL)  # type: ignore[arg-type]
    assert [(name, inside_B.tolist()) for name, inside_B in groups.each()] == [
        ("no earlier example", [True, False, False]),
        ("1 earlier example", [False, True, False]),
        ("3 or more earlier examples", [False, False, True]),
    ]


def test_likely_labels_are_kept_with_their_probability() -> None:
    label_P, example_P = ragged(records(threshold=0.09), "likely")
    assert label_P.tolist() == [0, 1, 2, 3] * 3
    assert example_P.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert "likely" not in Sets().records(Told(), nn.Identity(), BATCH).column_names


def test_curves_hold_what_each_threshold_and_filter_gives() -> None:
    together_VV = np.zeros((4, 4))
    together_VV[1, 2] = together_VV[2, 1] = 0.05
    found = trade_off.curves(records(), INTERACT, 0.5, together_VV, np.random.default_rng(0))
    at = {how: {point.get("share", point["threshold"]): point for point in points} for how, points in found.items()}
    plain = Sets().metrics(records())
    for name in trade_off.CURVE:
        assert at["none"][0.5][name] == pytest.approx(plain[name]), name
    # From 0.75 on the third example is given nothing, and no pair interacts.
    assert at["none"][0.75]["ddi_rate"] == 0
    assert at["none"][0.75]["jaccard_patient"] == pytest.approx((0.75 + 0) / 2)
    # Label 1 (0.7) keeps label 2 (0.6) away: {1} beside {2, 3}.
    assert at["greedy"][0.5]["jaccard_patient"] == at["two_sat"][0.5]["jaccard_patient"] == pytest.approx(0.75 / 2)
    # The pair stands as long as 5 % of training are enough.
    assert at[trade_off.ALLOWED][0.05]["ddi_rate"] == pytest.approx(1 / 2)
    assert at[trade_off.ALLOWED][0.1]["ddi_rate"] == 0
    # Label 2 (0.6) gives way as long as it is less certain than that.
    certain = {point["certain"]: point for point in found[trade_off.CERTAIN]}
    assert certain[0.6]["ddi_rate"] == pytest.approx(1 / 2)
    assert certain[0.65]["ddi_rate"] == 0


@pytest.mark.parametrize(
    ("score", "true", "best"),
    [
        # Only what is above 0.3 holds: any threshold from 0.32 to 0.70, and of these the field's own.
        ([[0.7, 0.3], [0.9, 0.2]], [[1, 0], [1, 0]], 0.5),
        ([[0.4, 0.3], [0.9, 0.2]], [[1, 0], [1, 0]], 0.4),
        ([[0.9, 0.7], [0.9, 0.71]], [[1, 0], [1, 0]], 0.72),
    ],
)
def test_validation_chooses_the_threshold_of_the_best_jaccard(
    score: list[list[float]], true: list[list[int]], best: float
) -> None:
    batch = visits([0, 1], score, true, [[0, 0]] * 2)
    assert best_threshold(Told(), nn.Identity(), [part(batch, [0]), part(batch, [1])]) == best
    keys = EvaluateConfig(threshold="validation")
    assert Sets().settle(Told(), nn.Identity(), [batch], keys) == {"threshold": best, "threshold_from": "validation"}


def test_a_threshold_is_the_protocols_the_configs_or_validations() -> None:
    task = Sets(threshold=0.4)
    assert task.settle(Told(), nn.Identity(), [], EvaluateConfig()) == {}
    assert task.settled({}) == task
    told = task.settle(Told(), nn.Identity(), [], EvaluateConfig(threshold=0.25))
    assert (task.settled(told).threshold, task.settled(told).threshold_from) == (0.25, "config")


def test_the_fields_rule_gives_what_half_of_training_has() -> None:
    training = visits([0, 1], [[0.0] * 4] * 2, [[1, 1, 0, 0], [1, 0, 0, 0]], [[0] * 4] * 2)

    def batches(split: str) -> Iterator[Visits]:
        yield training if split == "train" else BATCH

    found = Sets().baselines(Careful(), None, "test", batches)["labels of half of training"]  # type: ignore[arg-type]
    # {0, 1} for everybody, whatever the system takes out of its own sets: 1, 1 of patient 7, 0 of patient 3.
    assert found["jaccard_patient"] == pytest.approx(1 / 2)
    assert found["medications"] == 2


class Placed(Told):
    """Examples lie where their labels lie, once trained."""

    def embeddings(self, module: nn.Module, batch: Visits) -> tuple[Tensor, Tensor]:
        label_VC = torch.eye(4)
        example_BC = batch.true_BV.float() @ label_VC
        return (example_BC if isinstance(module, nn.Identity) else torch.ones(len(batch), 4)), label_VC

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)


def test_examples_lie_nearer_to_their_labels_after_training() -> None:
    system = Placed(INTERACT)
    parts = [Sets().records(system, nn.Identity(), part(BATCH, [i]), detail=DETAIL) for i in range(3)]
    measured: Any = SimpleNamespace(
        system=system,
        module=nn.Identity(),
        data=SimpleNamespace(entities={"code": SimpleNamespace(first=0)}),
        split="test",
        seed=3,
        records=joined(parts),
        batches=lambda split: iter([part(BATCH, [0, 1]), part(BATCH, [2])]),
    )
    found = space(measured)
    assert found is not None
    assert (found.after.own, found.after.others) == (pytest.approx(2**-0.5), 0)
    assert found.before.own == pytest.approx(found.before.others) == pytest.approx(1 / 2)
    first, again = found.planes(5), found.planes(5)
    for (when, example_N2, label_M2), (_, same_N2, _) in zip(first, again, strict=True):
        assert when in ("before", "after")
        assert (example_N2.shape, label_M2.shape) == ((3, 2), (4, 2))
        assert np.isfinite(example_N2).all()
        np.testing.assert_array_equal(example_N2, same_N2)
    measured.batches = None
    assert space(measured) is None
