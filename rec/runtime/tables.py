"""The ranks that share a table's rows (`rec.nn.sharded.ShardRanks`), over the default process group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor, nn

from rec.nn.sharded import tables_of


class TableRanks:
    """All ranks: exchanges of rows, whose sizes the ranks tell each other before."""

    def __init__(self) -> None:
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def counts(self, count_P: Tensor) -> Tensor:
        """Return how many come from each rank, for how many go to each."""
        found = torch.empty_like(count_P)
        torch.distributed.all_to_all_single(found, count_P)
        return found

    def exchange(self, value: Tensor, sizes_out: Sequence[int], sizes_in: Sequence[int]) -> Tensor:
        """Return the rows that come from all ranks, in their order, for those that go to each."""
        received = value.new_empty((sum(sizes_in), *value.shape[1:]))
        torch.distributed.all_to_all_single(received, value.contiguous(), list(sizes_in), list(sizes_out))
        return received

    def sum(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total


def share_tables(module: nn.Module, device: torch.device) -> None:
    """Leave this rank its rows of every sharded table."""
    for _, table in tables_of(module):
        table.share(TableRanks(), device)
