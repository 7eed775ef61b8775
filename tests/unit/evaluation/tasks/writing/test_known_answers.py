"""Metrics of texts on real reviews: published predictions and baselines with known values."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.data.prepared import Prepared
from rec.data.views.sentences import texts_of
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.rating.baselines import BIASES
from rec.evaluation.tasks.writing import Writing
from rec.evaluation.tasks.writing import baselines as simple
from rec.evaluation.tasks.writing.bleu import bleu_statistics
from rec.evaluation.tasks.writing.metrics import RowMetrics, measure, summary
from rec.evaluation.tasks.writing.rouge import rouge_l, rouge_n
from rec.systems.capabilities import Rater, Writer
from tests.support.own import prepared

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def xrec(reviews: Path) -> pd.DataFrame:
    return pd.read_parquet(reviews / "xrec" / "amazon_pred_ref.parquet")


@pytest.fixture(scope="module")
def xrec_measured(xrec: pd.DataFrame) -> RowMetrics:
    return measure(xrec.pred.tolist(), xrec.ref.tolist())


def test_published_predictions_have_the_known_bleu_and_usr(xrec_measured: RowMetrics) -> None:
    values = summary(xrec_measured)
    known = {"bleu1": 36.1292, "bleu4": 15.4898, "bleu4_smooth": 15.4905, "bleu1_smooth": 36.1296, "usr": 1.0}
    assert {name: values[name].value for name in known} == pytest.approx(known, abs=5e-5)
    assert values["usn"].value == 3000


def test_published_predictions_have_the_known_counts(xrec: pd.DataFrame) -> None:
    words, target = ([text.split() for text in column] for column in (xrec.pred, xrec.ref))
    total = bleu_statistics(words, target).sum(0)
    assert total[8:].tolist() == [154_385, 136_875]
    assert total[:4] / total[4:8] == pytest.approx([0.361292, 0.163477, 0.112545, 0.086605], abs=5e-7)


ROUGE_F = ("rouge1_f", "rouge2_f", "rouge_l_nmt_f")


@pytest.mark.parametrize(("rows", "known"), [(600, (35.452, 17.453, 30.612)), (3000, (35.583, 17.586, 30.618))])
def test_published_predictions_have_the_known_rouge(
    xrec_measured: RowMetrics, rows: int, known: tuple[float, ...]
) -> None:
    values = summary(xrec_measured, np.arange(3000) < float(rows))
    assert [values[name].value for name in ROUGE_F] == pytest.approx(known, abs=5e-4)


def test_rouge_of_texts_without_their_extra_white_space_is_another(xrec: pd.DataFrame) -> None:
    generated, reference = ([" ".join(t.split()) for t in column[:600]] for column in (xrec.pred, xrec.ref))
    column = (
        rouge_n(generated, reference, order=1) | rouge_n(generated, reference, order=2) | rouge_l(generated, reference)
    )
    assert [column[name].mean() for name in ROUGE_F] == pytest.approx((35.635, 17.528, 30.750), abs=5e-4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Batch):
    """Reviews as the view of sentences has them."""

    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.columns["text"])


class Copyist(Writer[Rows, nn.Module]):
    """Tells what the view of sentences holds; writes nothing."""

    def __init__(self, data: Prepared) -> None:
        self.data = data

    def write(self, *_: object, **__: object) -> list[str]:
        return []

    def references(self, batch: Rows) -> list[str]:
        return batch.columns["text"]

    def features(self, batch: Rows) -> list[str]:
        return batch.columns["feature"]

    def opinions(self, batch: Rows) -> list[str]:
        return batch.columns["opinion"]

    def written(self, batch: Rows) -> dict[str, Tensor]:
        return {name: torch.tensor(batch.columns[name]) for name in ("user", "item")}

    def all_features(self) -> list[str]:
        return texts_of(self.data.array("sentence_features"))

    def all_opinions(self) -> list[str]:
        return texts_of(self.data.array("sentence_opinions"))


class Rated(Rater[Rows, nn.Module]):
    """Tells ratings of the view of sentences; predicts none."""

    def ratings(self, module: nn.Module, batch: Rows) -> Tensor:
        return torch.zeros(len(batch))

    def given_ratings(self, batch: Rows) -> Tensor:
        return torch.tensor(batch.columns["rating"])

    def scale(self) -> tuple[float, float]:
        return 1.0, 5.0

    def rated(self, batch: Rows) -> dict[str, Tensor]:
        return {name: torch.tensor(batch.columns[name]) for name in ("user", "item")}


@pytest.fixture(scope="module")
def instruments(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    read = {"folder": str(reviews / "nlg4rs" / "MusicalInstruments")}
    table = {"source": "rec.data.sources.reviews:NLG4RS", "read": read, "split": {"protocol": "given"}}
    return prepared(tmp_path_factory.mktemp("instruments"), table, view="sentences")


def batches_of(data: Prepared) -> Callable[[str], Iterator[Rows]]:
    def batches(split: str) -> Iterator[Rows]:
        rows = data.rows(split).to_pydict()
        for at in range(0, len(rows["text"]), 100):
            yield Rows(columns={name: values[at : at + 100] for name, values in rows.items()})

    return batches


@pytest.fixture(scope="module")
def floors(instruments: Prepared) -> Mapping[str, Mapping[str, float | None]]:
    return Writing(most_words=15).baselines(Copyist(instruments), instruments, "test", batches_of(instruments))


NAMES = ("bleu1", "bleu4", *ROUGE_F, "usr", "div", "fcr", "fmr")
FLOORS = {
    simple.TRUE_TEMPLATE: (16.87, 2.52, 32.92, 7.24, 25.69, 0.3159, 0.018, 0.5451, 1.0000),
    simple.ITEM_TEMPLATE: (12.33, 1.30, 24.08, 4.36, 19.85, 0.2505, 0.030, 0.4323, 0.1394),
    simple.FIRST_OF_ITEM: (13.17, 0.00, 13.91, 0.93, 11.35, 0.7015, 0.051, 0.6917, 0.1285),
    simple.SAME_FEATURE: (22.05, 2.56, 24.38, 4.13, 19.07, 0.5686, 0.062, 0.6767, 0.9477),
}
HALF_A_DIGIT = dict(zip(NAMES, (5e-3,) * 5 + (5e-5, 5e-4, 5e-5, 5e-5), strict=True))


@pytest.mark.parametrize("name", FLOORS)
def test_floors_of_musical_instruments(floors: Mapping[str, Mapping[str, float | None]], name: str) -> None:
    for metric, expected in zip(NAMES, FLOORS[name], strict=True):
        assert floors[name][metric] == pytest.approx(expected, abs=HALF_A_DIGIT[metric]), metric


def test_the_floors_are_of_all_rows_and_features(instruments: Prepared) -> None:
    assert [instruments.split_rows(split) for split in ("train", "test")] == [3672, 459]
    assert len(Copyist(instruments).all_features()) == 266


def test_copies_of_an_items_texts_are_factual_and_templates_of_its_features_are(
    floors: Mapping[str, Mapping[str, float | None]],
) -> None:
    assert floors[simple.FIRST_OF_ITEM]["factual"] == floors[simple.FREQUENT_OF_ITEM]["factual"] == 1
    # A cut after 15 words may leave an opinion's feature behind.
    assert 0.95 < float(floors[simple.FIRST_OF_ITEM]["factual_pairs"] or 0) < 1
    template, leak = (floors[name] for name in (simple.ITEM_TEMPLATE, simple.TRUE_TEMPLATE))
    assert template["factual"] > leak["factual"] > 0.4  # type: ignore[operator]
    assert all(found["hallucinated"] == pytest.approx(1 - found["factual"]) for found in floors.values())  # type: ignore[operator]


def test_the_mean_rating_of_musical_instruments(instruments: Prepared) -> None:
    found = Rating().baselines(Rated(), instruments, "test", batches_of(instruments))
    assert found["mean rating"]["rmse"] == pytest.approx(0.8572, abs=5e-5)
    assert 0.8 < float(found[BIASES]["rmse"] or 0) < 0.8572
