"""What NLA-MMR tells beside scores, and visits that are in no table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rec.errors import ConfigError
from tests.support.nlammr import ROWS, built, scores


@pytest.mark.parametrize("masked", [True, False])
def test_reasons_tell_weights_of_what_is_there(masked: bool) -> None:
    system, rows, module = built({"missing_text_mask": masked, "history": 2})
    batch = system.collate(rows)
    for row, told in enumerate(system.reasons(module, batch)):
        there = dict(zip(("symptoms", "diagnoses", "procedures"), batch.present_BS[row].tolist(), strict=True))
        assert list(told["sections"]) == [name for name in there if there[name]]
        assert told["missing"] == [name for name in there if not there[name]]
        assert sum(told["sections"].values()) == pytest.approx(float(bool(told["sections"])), abs=1e-5)
        count = len(rows["earlier"][row])
        assert [one["visit"] for one in told["earlier"]] == list(range(count))[-2:]
        assert sum(one["weight"] for one in told["earlier"]) == pytest.approx(float(count > 0), abs=1e-5)


def test_embeddings_are_the_vectors_whose_products_are_scores() -> None:
    system, rows, module = built()
    batch = system.collate(rows)
    visit_BC, medication_VC = system.embeddings(module, batch)
    torch.testing.assert_close(visit_BC @ medication_VC.T, module(batch).score_BV)
    assert system.earlier(batch).tolist() == [len(part) for part in rows["earlier"]]


def test_severities_name_pairs_the_smaller_first() -> None:
    system, _, _ = built(tables={"interaction_pairs": np.array([[2, 0], [1, 5], [3, 4]])})
    assert system.severities() == {(0, 2): "severe", (3, 4): "mild"}


@pytest.mark.parametrize(("common", "taken"), [(0, [2, 4, 5]), (1, [5]), (2, [5]), (4, [2, 4, 5])])
def test_interactions_that_training_has_often_enough_stand(common: int, taken: list[int]) -> None:
    """0 and 2 stand together in 3 visits of training, 1 and 5 in none, 3 and 4 in two; the first scores higher."""
    counts = {"interaction_together": np.array([3, 0, 2])}
    system, _, _ = built({"ddi_filter": "greedy", "ddi_common": common}, counts)
    chosen_1V = system.chosen(np.array([[0.9, 0.9, 0.6, 0.8, 0.7, 0.8, 0.9]]), 0.5)
    assert np.flatnonzero(~chosen_1V[0]).tolist() == taken


def test_common_interactions_are_asked_of_the_data_set() -> None:
    system, _, _ = built({"ddi_filter": "greedy", "ddi_common": 1})
    system.static = {name: array for name, array in system.static.items() if name != "interaction_together"}
    with pytest.raises(ConfigError, match=r"model\.ddi_common: the data set does not tell how often"):
        system.chosen(np.ones((1, 7)), 0.5)


def test_a_visit_in_no_table_is_encoded_as_the_data_would_have_been() -> None:
    system, rows, module = built()
    titles = system.collator.titles
    texts = {
        name: ["; ".join(titles[entity][c] for c in rows[name][row]) for row in range(ROWS)]
        for name, entity in (("symptoms", "symptom"), ("diagnoses", "diagnosis"), ("procedures", "procedure"))
    }
    parts = zip(texts["diagnoses"], texts["procedures"], texts["symptoms"], strict=True)
    texts["all"] = ["; ".join(part for part in three if part) for three in parts]
    texts["medications"] = [
        "; ".join(titles["medication"][c] for c in given[-1]) if len(given) else ""
        for given in rows["earlier_medications"]
    ]
    encode = system.collator.encoder.encode
    tables = {f"text_{name}": encode(some) for name, some in texts.items()}
    tables |= {f"text_{name}_present": np.array([bool(t) for t in some]) for name, some in texts.items()}
    written, _, _ = built({"history": 1}, tables)
    empty = {f"{entity}_text": [""] * ROWS for entity in ("symptom", "diagnosis", "procedure")}
    new = {**rows, **empty, "visit": np.full(ROWS, -1), "earlier": [np.zeros(0, np.int64)] * ROWS}
    old = {**rows, "visit": np.arange(ROWS)}
    old["earlier"] = [np.full(len(part), row, np.int64) for row, part in enumerate(rows["earlier"])]
    torch.testing.assert_close(scores(written, module, new), scores(written, module, old), atol=1e-6, rtol=1e-6)


def test_free_text_of_a_request_is_read_beside_its_codes() -> None:
    system, rows, module = built()
    new = {**rows, "visit": np.full(ROWS, -1)}
    new |= {f"{entity}_text": [""] * ROWS for entity in ("symptom", "diagnosis", "procedure")}
    told = {**new, "symptom_text": ["fever"] * ROWS}
    assert not torch.equal(scores(system, module, told), scores(system, module, new))
    assert system.collate(told).present_BS[:, 0].all()


def test_a_visit_that_is_not_there_is_refused() -> None:
    system, rows, _ = built()
    with pytest.raises(Exception, match="visit 40: there are 40; leave it out for a new one"):
        system.collate({**rows, "visit": np.full(ROWS, 40)})
