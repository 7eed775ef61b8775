"""Batches for recommenders on graphs: interactions in training, users with what they know in evaluation.

Letters: B users (with repeats in training), P interactions to be found, M known ones, I items with padding as item 0.
"""

from __future__ import annotations

import numpy as np
import torch

from rec.batch import Columns
from rec.errors import RequestError
from rec.nn.pairs import InteractionBatch, flattened


def collated(rows: Columns, num_users: int) -> InteractionBatch:
    """Return the batch of rows user, history, target.

    Raises:
        RequestError: there is no such user.
    """
    user_B = torch.from_numpy(np.array(rows["user"], np.int64))
    if len(user_B) and int(user_B.max()) >= num_users:
        raise RequestError(f"user {int(user_B.max())}: expected an index below {num_users}")
    history, target = flattened(rows["history"]), flattened(rows["target"])
    return InteractionBatch(
        user_B=user_B,
        history_row_M=history[0],
        history_M=history[1],
        target_row_P=target[0],
        target_P=target[1],
    )
