"""Comparisons of metrics that are the same in both runs have the same interval."""

import numpy as np
import pyarrow as pa

from rec.evaluation.compare import _drawn_as, _of_examples
from rec.evaluation.tasks.ranking import Ranking
from rec.seeds import generator


def test_equal_columns_are_compared_by_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((2, 80)).round()
    tables = [pa.table({"metric/hit@10": h, "metric/recall@10": h, "metric/mrr": h / 2}) for h in hits]
    known: dict[bytes, str] = {}
    found = {}
    for name in ("hit@10", "recall@10", "mrr"):
        stream = generator(0, "compare", _drawn_as(name, tables, known))
        found[name] = _of_examples(Ranking(), name, tables[:1], tables[1:], 200, stream)
    assert found["recall@10"] == found["hit@10"]
    assert found["mrr"] != found["hit@10"]
    assert _drawn_as("auc", tables, known) == "auc"
