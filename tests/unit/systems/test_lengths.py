"""Lengths of rows, by which budgets of tokens cut microbatches."""

from typing import Any

import numpy as np
import pytest

from rec.systems.gavamoe import GaVaMoE, GaVaMoEConfig
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.systems.peter import PETER
from rec.systems.peter.system import NOTHING
from tests.unit.systems.gavamoe.test_parallel_keys import SMALL


def made(kind: Any, config: Any) -> tuple[Any, Any]:
    rows, tables = kind.sample(12, np.random.default_rng(0))
    return kind(config, tables), rows


def test_lengths_of_histories_are_those_of_packed_rows() -> None:
    system, rows = made(MSMRec, MSMRecConfig(max_length=6))
    batch = system.collate(rows)
    assert system.lengths(rows).tolist() == batch.where.length_B.tolist()
    assert system.lengths(rows).max() == 6


def test_lengths_of_texts_are_those_of_their_words() -> None:
    system, rows = made(PETER, PETER.Config())
    assert system.lengths(rows).tolist() == (system.collate(rows).word_BT != NOTHING).sum(1).tolist()


@pytest.mark.parametrize("rating", ["none", "predicted"])
def test_lengths_of_reviews_are_those_of_prompts_and_texts(rating: str) -> None:
    keys = {**SMALL, "experts": {"experts": 2}, "prompt": {"rating": rating}}
    system, rows = made(GaVaMoE, GaVaMoEConfig.model_validate(keys))
    prompt = system.prompter.prompt(list(rows["rating"]), list(rows["feature"]), list(rows["text"]))
    longest = prompt.token_MBP.shape[2]
    length_B = system.lengths(rows)
    answer_B = (prompt.answer_BA >= 0).sum(1).numpy()
    assert (length_B > answer_B).all()
    assert (length_B <= answer_B + longest).all()
