"""The sets task: records of visits, averages by patient and by visit, baselines from training's own batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.evaluation.records import column, joined
from rec.evaluation.tasks.sets import Sets
from rec.systems.capabilities import SetPredictor

TASK = Sets()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits(Batch):
    patient_B: Tensor
    score_BV: Tensor
    true_BV: Tensor
    previous_BV: Tensor

    def __len__(self) -> int:
        return len(self.patient_B)


class Told(SetPredictor[Visits, nn.Module]):
    """Predicts the scores that a batch holds."""

    entity = "code"

    def __init__(self, interaction_VV: np.ndarray | None = None) -> None:
        self.interaction_VV = interaction_VV

    def probabilities(self, module: nn.Module, batch: Visits) -> Tensor:
        return batch.score_BV

    def labels(self, batch: Visits) -> Tensor:
        return batch.true_BV

    def subjects(self, batch: Visits) -> Tensor:
        return batch.patient_B

    def interactions(self) -> np.ndarray | None:
        return self.interaction_VV

    def previous(self, batch: Visits) -> Tensor:
        return batch.previous_BV


def visits(patient: list[int], score: list[list[float]], true: list[list[int]], previous: list[list[int]]) -> Visits:
    return Visits(
        patient_B=torch.tensor(patient),
        score_BV=torch.tensor(score),
        true_BV=torch.tensor(true).bool(),
        previous_BV=torch.tensor(previous).bool(),
    )


BATCH = visits(
    [7, 7, 3],
    [[0.9, 0.8, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1], [0.1, 0.7, 0.6, 0.1]],
    [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]],
    [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
)
"""Jaccard 1 and 1/2 of patient 7, 1/3 of patient 3."""
INTERACT = np.zeros((4, 4), bool)
INTERACT[1, 2] = INTERACT[2, 1] = True


def test_averages_are_by_patient_and_by_visit() -> None:
    found = TASK.metrics(TASK.records(Told(INTERACT), nn.Identity(), BATCH))
    assert found["jaccard_patient"] == pytest.approx((0.75 + 1 / 3) / 2)
    assert found["jaccard_visit"] == pytest.approx((1 + 0.5 + 1 / 3) / 3)
    assert found["medications"] == pytest.approx(5 / 3)
    assert found["ddi_rate"] == pytest.approx(1 / 2)  # of the pairs {0, 1} and {1, 2} the second interacts
    assert found["true_ddi_rate"] == 0


def test_metrics_do_not_depend_on_how_visits_are_cut() -> None:
    parts = [TASK.records(Told(INTERACT), nn.Identity(), part(BATCH, [i])) for i in range(3)]
    whole = TASK.records(Told(INTERACT), nn.Identity(), BATCH)
    assert TASK.metrics(joined(parts)) == pytest.approx(TASK.metrics(whole))


def part(batch: Visits, rows: list[int]) -> Visits:
    names = ("patient_B", "score_BV", "true_BV", "previous_BV")
    return Visits(**{name: getattr(batch, name)[rows] for name in names})


def test_without_interactions_there_is_no_rate_of_them() -> None:
    found = TASK.metrics(TASK.records(Told(), nn.Identity(), BATCH))
    assert found["ddi_rate"] is None
    assert found["true_ddi_rate"] is None
    assert found.keys() == {*TASK.directions, *TASK.descriptive} - {*TASK.late}


def test_records_hold_what_was_given_and_why() -> None:
    records = TASK.records(Told(), nn.Identity(), BATCH)
    assert records["predicted"].to_pylist() == [[0, 1], [0], [1, 2]]
    assert records["target"].to_pylist() == [[0, 1], [0, 1], [2, 3]]
    assert np.concatenate(records["probability"].to_pylist()) == pytest.approx([0.9, 0.8, 0.9, 0.7, 0.6])
    assert column(records, "known").tolist() == [0, 2, 0]


def test_baselines_give_what_is_frequent_in_training_or_was_given_before() -> None:
    training = visits([0, 1], [[0.0] * 4] * 2, [[1, 1, 0, 0], [1, 0, 1, 0]], [[0] * 4] * 2)

    def batches(split: str) -> Iterator[Visits]:
        yield training if split == "train" else BATCH

    found = TASK.baselines(Told(), None, "test", batches)  # type: ignore[arg-type]
    # Two codes a visit; code 0 is in both, codes 1 and 2 are in one each and tie: {0, 1, 2} reach 2/3, 2/3, 1/4.
    assert found["most frequent labels"]["jaccard_patient"] == pytest.approx((2 / 3 + 1 / 4) / 2)
    # The second visit repeats the first, rightly; the others have none before.
    assert found["labels of the example before"]["jaccard_patient"] == pytest.approx(((2 / 3 + 1) / 2 + 1 / 4) / 2)
