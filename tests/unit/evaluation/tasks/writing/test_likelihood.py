"""Likelihoods of true texts: per token over all texts, with an interval, and compared where texts are cut alike."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec.evaluation.bootstrap import summed_interval
from rec.evaluation.compare import _of_sums
from rec.evaluation.records import Records, column, joined
from rec.evaluation.tasks.writing import Writing
from rec.evaluation.tasks.writing.likelihood import UNLIKE
from rec.systems.review_writer import nll_of_texts
from tests.end_to_end.evaluation.tasks.writing.test_task import ALL, Texts, Told

SUM, TOKENS = (6.0, 2.0, 3.0, 0.5, 4.5), (3, 1, 2, 1, 1)
TASK = Writing()


class Likely(Told):
    """Tells the likelihoods above, some nats per token less or more."""

    def __init__(self, more: float = 0.0, cut: int = 0) -> None:
        super().__init__()
        self.more, self.cut = more, cut

    def nll(self, module: nn.Module, batch: Texts) -> tuple[Tensor, Tensor]:
        tokens_B = torch.tensor([TOKENS[row] + self.cut for row in batch.row])
        return torch.tensor([SUM[row] for row in batch.row]) + self.more * tokens_B, tokens_B


def records(*parts: tuple[int, ...], more: float = 0.0, cut: int = 0) -> Records:
    system = Likely(more, cut)
    return joined([TASK.records(system, nn.Identity(), Texts(row=part)) for part in parts or (ALL.row,)])


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [(((0, 1, 2, 3, 4),), 16 / 8), (((0,), (1, 2), (3, 4)), 16 / 8), (((0, 1),), 8 / 4), (((4,),), 4.5)],
)
def test_it_is_the_sum_of_all_texts_over_their_tokens(parts: tuple[tuple[int, ...], ...], wanted: float) -> None:
    found = records(*parts)
    assert TASK.metrics(found)["nll"] == pytest.approx(wanted)
    assert column(found, "nll").tolist() == [SUM[row] for part in parts for row in part]
    assert column(found, "nll_tokens").tolist() == [TOKENS[row] for part in parts for row in part]


def test_a_writer_that_tells_none_has_none_and_says_so() -> None:
    plain = TASK.records(Told(), nn.Identity(), ALL)
    assert TASK.metrics(plain)["nll"] is None
    assert "nll" not in TASK.sums(plain)
    assert "nll_tokens" not in plain.column_names
    assert TASK.metrics(records().slice(0, 0))["nll"] is None
    assert TASK.directions["nll"] is False
    assert "nll" in TASK.shown


def test_its_interval_lies_around_it() -> None:
    found = summed_interval(TASK.sums(records())["nll"], None, 400, np.random.default_rng(0))
    assert found is not None
    assert found.mean == pytest.approx(2)
    assert 0.5 <= found.low < 2 < found.high <= 4.5


@pytest.mark.parametrize("more", [0.25, -0.5])
def test_runs_that_differ_by_so_many_nats_per_token_are_told_apart_by_them(more: float) -> None:
    compared = _of_sums(TASK, "nll", [records(more=more)], [records()], 200, np.random.default_rng(0))
    assert compared is not None
    ours, theirs, found = compared
    assert (ours, theirs) == pytest.approx((2 + more, 2))
    assert (found.difference.mean, found.difference.low, found.difference.high) == pytest.approx((more,) * 3)
    assert found.lower_worse_share == float(more > 0)


def test_texts_that_are_cut_into_other_tokens_never_compare() -> None:
    assert TASK.unlike("nll", records(), records(cut=1)) == UNLIKE
    assert TASK.unlike("nll", records(), records(more=1.0)) == ""
    assert TASK.unlike("bleu4", records(), records(cut=1)) == ""
    assert TASK.unlike("nll", records(), TASK.records(Told(), nn.Identity(), ALL)) == ""


def test_each_text_has_the_likelihoods_of_its_own_tokens() -> None:
    # Even scores of 4 words cost log 4 each; a word that is e times as likely as each of 2 others costs less.
    score_NW = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [1, 0, -torch.inf, 0]])
    nll_B, tokens_B = nll_of_texts(score_NW, torch.tensor([0, 3, 0]), torch.tensor([2, 0, 1]))
    assert tokens_B.tolist() == [2, 0, 1]
    assert nll_B.tolist() == pytest.approx([2 * np.log(4), 0, np.log((np.e + 2) / np.e)])
