"""The ranking task on prepared data: baselines, and what does not depend on how examples are cut."""

import numpy as np
import pytest

from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.evaluation.records import ragged
from rec.evaluation.tasks.ranking import task as ranking
from rec.evaluation.tasks.ranking.baselines import rankings
from rec.evaluation.tasks.ranking.ranks import hide, ranks
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from tests.unit.evaluation.tasks.ranking.test_ranks import slow_rank


def test_the_popularity_baseline_counts_training_events_only(planted: Prepared) -> None:
    import torch

    rows = planted.rows("test").slice(5, 1)
    system = MSMRec(MSMRecConfig(gate="none"), planted.tables(["item_count"]))
    examples = system.examples(system.collate(to_columns(rows)))
    score = torch.tensor(rankings(system, planted)["popularity"](examples.subject_B.numpy()))
    found = ranks(hide(score, examples.left_out, examples.target), examples.target, examples.subject_B)
    row, count = rows.to_pylist()[0], np.asarray(planted.array("item_count"))
    assert int(found) == slow_rank(count.tolist(), row["target"], {0, *row["history"]}, row["user"])


def test_records_do_not_depend_on_how_many_scores_are_held(planted: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    system = MSMRec(MSMRecConfig(width=8, blocks=1, gate="none"), planted.tables(["item_count"]))
    module = system.model().eval()
    batch = system.collate(to_columns(planted.rows("test").slice(0, 40)))
    whole = system.tasks[0].records(system, module, batch)
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 7 * planted.num_items)
    monkeypatch.setattr(ranking, "RANGE", 50)
    cut = system.tasks[0].records(system, module, batch)
    assert ragged(cut, "rank")[0].tolist() == ragged(whole, "rank")[0].tolist()
    assert cut["top"].to_pylist() == whole["top"].to_pylist()
