"""What holds for the metrics of every task: a direction for each, and nothing heavy to import."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from rec.evaluation.tasks.rating import metrics as rating
from rec.evaluation.tasks.sets import metrics as sets
from rec.evaluation.tasks.values import MetricValue
from rec.evaluation.tasks.writing import metrics as writing


def of_sets(rows: int) -> dict[str, MetricValue]:
    column = sets.per_visit(np.eye(rows, 3), np.eye(rows, 3), interaction_VV=np.zeros((3, 3)))
    return sets.summary(column, np.arange(rows))


def of_ratings(rows: int) -> dict[str, MetricValue]:
    return rating.summary(rating.per_row(np.ones(rows), np.ones(rows), lowest=1, highest=5))


def of_texts(rows: int) -> dict[str, MetricValue]:
    text = ["great sound ."] * rows
    return writing.summary(writing.measure(text, text, feature=["sound"] * rows, features={"sound"}))


CASES = [
    (of_sets, sets.higher_is_better, sets.DESCRIPTIVE),
    (of_ratings, rating.higher_is_better, ()),
    (of_texts, writing.higher_is_better, ()),
]


@pytest.mark.parametrize(("measured", "higher", "descriptive"), CASES)
def test_every_metric_has_a_direction_or_is_descriptive(
    measured: object, higher: Mapping[str, bool], descriptive: tuple[str, ...]
) -> None:
    assert callable(measured)
    assert set(measured(3)) == set(higher) | set(descriptive)
    assert not set(higher) & set(descriptive)


@pytest.mark.parametrize(("measured", "higher", "descriptive"), CASES)
def test_no_rows_give_no_values_and_say_so(measured: object, higher: object, descriptive: object) -> None:
    assert callable(measured)
    for name, value in measured(0).items():
        assert value.value is None, name
        assert value.note.startswith("no "), name


def test_metrics_import_nothing_heavy() -> None:
    modules = ", ".join(f"rec.evaluation.tasks.{task}.metrics" for task in ("sets", "rating", "writing"))
    heavy = "{'ray', 'deepspeed', 'pandas', 'sklearn', 'transformers'}"
    trains = "{name for name in sys.modules if name.startswith('rec.train.')} <= {'rec.train.config'}"
    code = f"import sys, {modules}; assert not {heavy} & set(sys.modules); assert {trains}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[4])
