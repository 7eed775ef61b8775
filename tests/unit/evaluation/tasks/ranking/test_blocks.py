"""Ranking block by block, beside the whole matrix of scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rec.benchmarks.memory import largest_bytes
from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.evaluation.records import ragged
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.ranking import blocks, cold
from rec.evaluation.tasks.ranking import task as ranking
from rec.evaluation.tasks.ranking.ranks import best, hide, ranked, ranks
from rec.systems.capabilities import RankingExamples
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig

USERS, ITEMS, MOST = 7, 500, 6


def case(rng: np.random.Generator, *, one_each: bool) -> RankingExamples:
    def pairs(count: int) -> tuple[Tensor, Tensor]:
        key = np.sort(rng.choice(np.arange(USERS * (ITEMS - 1)), count, replace=False))
        return torch.from_numpy(key // (ITEMS - 1)), torch.from_numpy(key % (ITEMS - 1) + 1)

    target = (torch.arange(USERS), torch.from_numpy(rng.integers(1, ITEMS, USERS))) if one_each else pairs(20)
    seen = pairs(300)
    subject = torch.from_numpy(rng.integers(0, 1000, USERS))
    return RankingExamples(subject_B=subject, target=target, left_out=seen, known=seen)


def scores(kind: str, rng: np.random.Generator) -> Tensor:
    if kind == "few values":  # ties nearly everywhere, at the end of lists too
        return torch.from_numpy(rng.integers(0, 60, (USERS, ITEMS)).astype(np.float32))
    found = torch.from_numpy(rng.standard_normal((USERS, ITEMS)).astype(np.float32))
    if kind == "no numbers":
        found[torch.from_numpy(rng.random((USERS, ITEMS)) < 0.1)] = torch.nan
        found[0, 3], found[1, 7], found[2] = torch.inf, -torch.inf, torch.nan
    return found


@pytest.mark.parametrize("one_each", [True, False])
@pytest.mark.parametrize("kind", ["all different", "few values", "no numbers"])
@pytest.mark.parametrize("seed", range(5))
def test_blocks_find_what_the_whole_matrix_tells(
    kind: str, one_each: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "FEWEST", 64)
    monkeypatch.setattr(blocks, "SCORES_PER_BLOCK", 1)
    rng = np.random.default_rng(seed)
    examples, score_BI = case(rng, one_each=one_each), scores(kind, rng)
    cold_I = torch.from_numpy(rng.random(ITEMS) < 0.3)
    cold_I[0] = False

    def score(row_R: Tensor | None, items: slice) -> Tensor:
        return (score_BI if row_R is None else score_BI[row_R])[:, items].clone()

    found = blocks.rank_in_blocks(score, examples, ITEMS, MOST, cold_I)
    whole = hide(score_BI.clone(), examples.left_out, examples.target)
    rank_P = ranks(whole, examples.target, examples.subject_B)
    item_BK, value_BK = best(whole, examples.subject_B, MOST)
    assert found.ranked_B.tolist() == ranked(whole).tolist()
    colds = cold.ranked_among_cold(whole, examples, cold_I)
    assert found.cold_ranked_B.tolist() == colds["ranked_cold"].tolist()
    sure_B = ~found.left_B
    sure_P = sure_B[examples.target[0]]
    assert found.rank_P[sure_P].tolist() == rank_P[sure_P].tolist()
    assert found.cold_rank_P[sure_P].tolist() == colds["each/rank_among_cold"][sure_P].tolist()
    assert found.top_BK[sure_B].tolist() == item_BK[sure_B].tolist()
    assert torch.equal(found.top_score_BK[sure_B], value_BK[sure_B])
    if kind == "all different":
        assert bool(sure_B.all())


def test_who_cannot_be_decided_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_NEARBY", 50)
    examples = case(np.random.default_rng(0), one_each=True)
    score_BI = torch.randn(USERS, ITEMS)
    score_BI[2] = 1.0  # everything is equal: far too much is near, and shares the last place
    off = torch.zeros(USERS, 1)
    off[4] = 1e-3  # a score that is another alone than among others

    def score(row_R: Tensor | None, items: slice) -> Tensor:
        return score_BI[:, items].clone() if row_R is None else (score_BI + off)[row_R][:, items]

    found = blocks.rank_in_blocks(score, examples, ITEMS, MOST)
    assert found.left_B.nonzero()[:, 0].tolist() == [2, 4]


@torch.inference_mode()
@pytest.mark.parametrize("gate", ["none", "item"])
def test_records_and_answers_are_those_of_the_matrix(
    gate: str, planted: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = planted.tables(["item_count", "text"])
    system = MSMRec(MSMRecConfig(width=8, blocks=1, gate=gate), tables)  # type: ignore[arg-type]
    module = system.model().eval()
    task, detail = system.tasks[0], EvaluateConfig(cold_count=30)
    batch = system.collate(to_columns(planted.rows("test").slice(0, 40)))
    examples, states = system.examples(batch), system.states(module, batch)
    for even in (False, True):
        if even:  # every item is equal: the matrix decides
            module.item.weight.zero_()
        whole = task.records(system, module, batch, detail=detail)
        items, values = ranking.best_unknown(system, module, states, examples, 10, planted.num_items + 1)
        with monkeypatch.context() as patch:
            patch.setattr(ranking, "SCORES_AT_ONCE", 0)
            patch.setattr(blocks, "FEWEST", 16)
            patch.setattr(blocks, "SCORES_PER_BLOCK", 1)
            assert ranking.is_wide(system, module, examples)
            cut = task.records(system, module, batch, detail=detail)
            items_cut, values_cut = ranking.best_unknown(system, module, states, examples, 10, planted.num_items + 1)
        assert cut.column_names == whole.column_names
        for name in ("rank", "rank_among_cold", "cold"):
            assert ragged(cut, name)[0].tolist() == ragged(whole, name)[0].tolist()
        for name in ("ranked", "ranked_cold", "top", "known", "catalogue"):
            assert cut[name].to_pylist() == whole[name].to_pylist()
        assert items.tolist() == items_cut.tolist()
        np.testing.assert_allclose(values_cut, values, rtol=1e-5, atol=1e-6)


def test_memory_does_not_grow_with_the_catalogue() -> None:
    def largest(items: int) -> int:
        users, query_BD, item_ID = 64, torch.randn(64, 2), torch.randn(items, 2)
        target = torch.arange(users), torch.randint(1, items, (users,))
        nothing = target[0][:0], target[0][:0]
        examples = RankingExamples(subject_B=torch.arange(users), target=target, left_out=target, known=nothing)

        def score(row_R: Tensor | None, part: slice) -> Tensor:
            return (query_BD if row_R is None else query_BD[row_R]) @ item_ID[part].T

        return largest_bytes(lambda: blocks.rank_in_blocks(score, examples, items, 10))

    assert largest(100_000) <= 4 * blocks.SCORES_PER_BLOCK
    assert largest(1_000_000) <= 4 * blocks.SCORES_PER_BLOCK
