"""Batches for recommenders on graphs: interactions in training, users with what they know in evaluation.

Letters: B users (with repeats in training), P interactions to be found, M known ones, I items with padding as item 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rec.errors import RequestError
from rec.meters import Mean, Meter, Rows
from rec.metrics.relevance import metric_names, top_relevance
from rec.nn.pairs import InteractionBatch, flattened
from rec.system import Columns

CUTS = (5, 10, 20, 50)
TOP = 10


def collated(rows: Columns, num_users: int) -> InteractionBatch:
    """Return the batch of rows user, history, target.

    Raises:
        RequestError: there is no such user.
    """
    user_B = torch.tensor([int(value) for value in rows["user"]])
    if len(user_B) and int(user_B.max()) >= num_users:
        raise RequestError(f"user {int(user_B.max())}: there are {num_users} users")
    history, target = flattened(rows["history"]), flattened(rows["target"])
    return InteractionBatch(
        user_B=user_B,
        history_row_M=history[0],
        history_M=history[1],
        target_row_P=target[0],
        target_P=target[1],
    )


def ranking_meters(cuts: Sequence[int] = CUTS) -> dict[str, Meter]:
    """Return the meters that `measure_ranking` fills."""
    meters: dict[str, Meter] = {name: Mean() for name in metric_names(cuts, auc=False)}
    return meters | {"rows": Rows()}


def measure_ranking(
    score_BI: Tensor, batch: InteractionBatch, meters: Mapping[str, Meter], cuts: Sequence[int] = CUTS
) -> None:
    """Rank every item that training does not know of the user; validation's items are ranked in test.

    `score_BI` is overwritten.
    """
    score_BI[:, 0] = -torch.inf
    score_BI[batch.history_row_M, batch.history_M] = -torch.inf
    values, top_BK = top_relevance(score_BI, (batch.target_row_P, batch.target_P), batch.user_B, cuts)
    rows = {"user": batch.user_B, "relevant": torch.bincount(batch.target_row_P, minlength=len(batch))}
    rows |= {f"metric/{name}": value for name, value in values.items()}
    rows["history"] = torch.bincount(batch.history_row_M, minlength=len(batch))
    rows["top"] = top_BK[:, :TOP]
    rows["top score"] = score_BI.gather(1, rows["top"])
    record = meters["rows"]
    assert isinstance(record, Rows)
    record.add(rows)
    for name, value in values.items():
        meter = meters[name]
        assert isinstance(meter, Mean)
        meter.add(value[~value.isnan()])
