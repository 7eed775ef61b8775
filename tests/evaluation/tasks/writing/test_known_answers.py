"""Metrics of texts on real reviews: published predictions and baselines with known values."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from rec.evaluation.tasks.writing.bleu import bleu_statistics
from rec.evaluation.tasks.writing.metrics import Measured, measure, summary
from rec.evaluation.tasks.writing.rouge import rouge_l, rouge_n
from rec.evaluation.tasks.writing.words import first_words

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def xrec(reviews: Path) -> pd.DataFrame:
    return pd.read_parquet(reviews / "xrec" / "amazon_pred_ref.parquet")


@pytest.fixture(scope="module")
def xrec_measured(xrec: pd.DataFrame) -> Measured:
    return measure(xrec.pred.tolist(), xrec.ref.tolist())


def test_published_predictions_have_the_known_bleu_and_usr(xrec_measured: Measured) -> None:
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
    xrec_measured: Measured, rows: int, known: tuple[float, ...]
) -> None:
    values = summary(xrec_measured, np.arange(3000) < float(rows))
    assert [values[name].value for name in ROUGE_F] == pytest.approx(known, abs=5e-4)


def test_rouge_of_texts_without_their_extra_white_space_is_another(xrec: pd.DataFrame) -> None:
    generated, reference = ([" ".join(t.split()) for t in column[:600]] for column in (xrec.pred, xrec.ref))
    column = (
        rouge_n(generated, reference, order=1) | rouge_n(generated, reference, order=2) | rouge_l(generated, reference)
    )
    assert [column[name].mean() for name in ROUGE_F] == pytest.approx((35.635, 17.528, 30.750), abs=5e-4)


class Review(NamedTuple):
    """What a baseline needs of a record."""

    item: str
    feature: str
    sentence: str


class Split(NamedTuple):
    """Training and test rows of Musical Instruments and the features of all rows."""

    train: list[Review]
    test: list[Review]
    features: set[str]


@pytest.fixture(scope="module")
def instruments(reviews: Path) -> Split:
    folder = reviews / "nlg4rs" / "MusicalInstruments"
    records = [json.loads(line) for line in (folder / "reviews.jsonl").read_text().splitlines()]
    rows = [Review(r["item"], r["template"][0], first_words(r["template"][2], number=15)) for r in records]
    train, test = ([rows[int(n)] for n in (folder / "1" / f"{s}.index").read_text().split()] for s in ("train", "test"))
    return Split(train, test, {row.feature for row in rows})


def of_true_feature(split: Split) -> list[str]:
    return [f"this is a great {row.feature} ." for row in split.test]


def of_common_feature(split: Split) -> list[str]:
    count: dict[str, Counter[str]] = {}
    for row in split.train:
        count.setdefault(row.item, Counter())[row.feature] += 1
    return [f"this is a great {count[row.item].most_common(1)[0][0]} ." for row in split.test]


def of_first_sentence(split: Split) -> list[str]:
    first: dict[str, str] = {}
    for row in split.train:
        first.setdefault(row.item, row.sentence)
    return [first[row.item] for row in split.test]


def of_same_feature(split: Split) -> list[str]:
    first: dict[object, str] = {}
    for row in split.train:
        for key in ((row.item, row.feature), ("any", row.feature), row.item):
            first.setdefault(key, row.sentence)
    keys = [((row.item, row.feature), ("any", row.feature), row.item) for row in split.test]
    return [next(first[key] for key in options if key in first) for options in keys]


NAMES = ("bleu1", "bleu4", *ROUGE_F, "usr", "div", "fcr", "fmr")
BASELINES = [
    (of_true_feature, (16.87, 2.52, 32.92, 7.24, 25.69, 0.3159, 0.018, 0.5451, 1.0000)),
    (of_common_feature, (12.33, 1.30, 24.08, 4.36, 19.85, 0.2505, 0.030, 0.4323, 0.1394)),
    (of_first_sentence, (13.17, 0.00, 13.91, 0.93, 11.35, 0.7015, 0.051, 0.6917, 0.1285)),
    (of_same_feature, (22.05, 2.56, 24.38, 4.13, 19.07, 0.5686, 0.062, 0.6767, 0.9477)),
]
HALF_A_DIGIT = dict(zip(NAMES, (5e-3,) * 5 + (5e-5, 5e-4, 5e-5, 5e-5), strict=True))


@pytest.mark.parametrize(("baseline", "known"), BASELINES)
def test_baselines_of_musical_instruments(instruments: Split, baseline: object, known: tuple[float, ...]) -> None:
    assert callable(baseline)
    assert (len(instruments.train), len(instruments.test), len(instruments.features)) == (3672, 459, 266)
    values = summary(
        measure(
            baseline(instruments),
            [row.sentence for row in instruments.test],
            feature=[row.feature for row in instruments.test],
            features=instruments.features,
        )
    )
    for name, expected in zip(NAMES, known, strict=True):
        assert values[name].value == pytest.approx(expected, abs=HALF_A_DIGIT[name]), name
