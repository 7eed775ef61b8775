"""Gradients summed for the rank that updates them alone, where gloo would give every rank the whole sum.

DeepSpeed's ZeRO sums whole buckets over all ranks although each keeps the part that it updates: twice the bytes. A ring
of P ranks sends each part P - 1 times instead, from the rank after its owner round to the owner, which adds last. NCCL
is left alone: it sums inside nodes first, and on its links a ring of calls would cost more than it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor

SPREAD = 2
"""How many times its even share the largest part may be: a ring passes the largest one on at every step."""


def sum_for_owners(optimizer: Any) -> None:
    """Have a ZeRO optimiser of DeepSpeed's sum gradients by a ring of parts, where gloo connects the ranks."""
    whole = getattr(optimizer, "allreduce_and_copy_with_multiple_ranks", None)
    if whole is None or torch.distributed.get_backend() != "gloo":
        return

    def reduce(
        bucket: list[Tensor],
        communication_data_type: torch.dtype,
        log: Any = None,
        divide: bool = True,
        process_group: Any = None,
        bucket_ranks: Sequence[Any] = (),
        output_bucket: list[Tensor | None] | None = None,
    ) -> None:
        """Sum gradients of a bucket, each for the rank of the group that is named beside it."""
        group = optimizer.dp_process_group if process_group is None else process_group
        owners = [_only(ranks) for ranks in bucket_ranks]
        world = torch.distributed.get_world_size(group)
        sizes = [
            sum(part.numel() for part, owner in zip(bucket, owners, strict=True) if owner == rank)
            for rank in range(world)
        ]
        even = max(sizes) * world <= SPREAD * sum(sizes)
        if divide or communication_data_type != bucket[0].dtype or None in owners or not even:
            whole(bucket, communication_data_type, log, divide, group, bucket_ranks, output_bucket)
            return
        by_owner = sorted(range(len(bucket)), key=lambda place: owners[place])
        flat = torch.cat([bucket[place].reshape(-1) for place in by_owner])
        total = scattered_sum(list(flat.split(sizes)), group)
        mine = [place for place in by_owner if owners[place] == _rank(group)]
        for place, part in zip(mine, total.split([bucket[place].numel() for place in mine]), strict=True):
            bucket[place].copy_(part.view_as(bucket[place]))
            if output_bucket is not None and (output := output_bucket[place]) is not None:
                output.add_(part.view_as(output).to(output.dtype))

    optimizer.allreduce_and_copy_with_multiple_ranks = reduce


def scattered_sum(parts: list[Tensor], group: Any) -> Tensor:
    """Return the sum over ranks of this rank's part, of one flat part for each rank; `parts` are overwritten."""
    world, rank = len(parts), _rank(group)
    after, before = (torch.distributed.get_global_rank(group, (rank + way) % world) for way in (1, -1))
    for step in range(1, world):
        out, into = parts[(rank - step) % world], parts[(rank - step - 1) % world]
        came = torch.empty_like(into)
        arriving = torch.distributed.irecv(came, before, group=group)
        leaving = torch.distributed.isend(out, after, group=group)
        for work in (arriving, leaving):
            work.wait()  # type: ignore[union-attr]  # None where this rank is not in the group
        into += came
    return parts[rank]


def _rank(group: Any) -> int:
    return torch.distributed.get_rank(group)


def _only(ranks: Any) -> int | None:
    """Return the one rank of several or none."""
    if isinstance(ranks, int):
        return ranks
    return next(iter(ranks)) if len(ranks) == 1 else None
