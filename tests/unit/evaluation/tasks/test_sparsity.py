"""Groups of examples by how much their user wrote in training, for both tasks that are asked about reviews."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec.data.prepared import Prepared
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.sparsity import by_sparsity, meaning_of_group
from rec.evaluation.tasks.writing import Writing
from tests.end_to_end.evaluation.tasks.writing.test_task import Texts
from tests.end_to_end.evaluation.tasks.writing.test_task import Told as Writer
from tests.unit.data.test_sentences import made
from tests.unit.evaluation.tasks.rating.test_task import Told as Rater
from tests.unit.evaluation.tasks.rating.test_task import rated

NAMES = [
    "tst1: 1 user of 1 to 1 records of training", "tst2: 1 user of 1 to 1 records of training",
    "tst3: 1 user of 2 to 2 records of training", "tst4: nobody", "tst5: nobody",
    "zero-shot: 2 users of 0 to 0 records of training",
]  # fmt: skip


@pytest.fixture
def reviews(tmp_path: Path) -> Prepared:
    """Users a to e of 2, 1, 0, 0 and 1 reviews of training."""
    return made(tmp_path).seen_as("sentences")


class AboutUsers(Writer):
    def written(self, batch: Texts) -> Mapping[str, Tensor]:
        return {"user": torch.tensor([row - 1 for row in batch.row])}


def test_examples_are_of_the_group_of_their_user_and_strangers_of_the_last(reviews: Prepared) -> None:
    found = by_sparsity(reviews, np.array([0, 1, 2, 3, 4, -1, 99]))
    assert found is not None
    assert list(found.names) == NAMES
    assert found.label_B.tolist() == [2, 0, 5, 5, 1, 5, 5]
    assert [name for name, _ in found.each()] == [NAMES[n] for n in (0, 1, 2, 5)]
    assert by_sparsity(reviews.seen_as("records"), np.array([0])) is None
    assert all(meaning_of_group(name) for name in NAMES)
    assert not meaning_of_group("rated 5")


def test_ratings_and_texts_are_told_apart_by_the_users_groups(reviews: Prepared, tmp_path: Path) -> None:
    rating, writing, config = Rating(), Writing(), EvaluateConfig()
    records = rating.records(Rater(), nn.Identity(), rated([1, 0, 3], [5.0, 2.0, 1.0], [5.0, 2.0, 1.0]))
    assert rating.groups(Rater(), reviews, "test", records, config).label_B.tolist() == [0, 2, 5]
    assert rating.meaning(NAMES[0]) == writing.meaning(NAMES[0])
    plain = reviews.seen_as("records")
    assert rating.groups(Rater(), plain, "test", records, config).names == ("rated 1", "rated 2", "rated 5")
    texts = writing.records(AboutUsers(), nn.Identity(), Texts(row=(0, 1, 2)))
    assert writing.groups(AboutUsers(), reviews, "test", texts, config).label_B.tolist() == [5, 2, 0]
    for data, records in ((plain, texts), (reviews, writing.records(Writer(), nn.Identity(), Texts(row=(0, 1))))):
        assert writing.groups(Writer(), data, "test", records, config).names[0].startswith("up to ")
