"""Gradients are summed for their owners alone, by a ring that sends every part as seldom as can be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.runtime.reducing import scattered_sum, sum_for_owners

SIZES = (5, 3, 4)


def gradients(rank: int) -> list[torch.Tensor]:
    """What a rank has for each owner: whole numbers, whose sum no order changes."""
    made = torch.Generator().manual_seed(rank)
    return [torch.randint(-9, 9, (size,), generator=made).float() for size in SIZES]


def summed(rank: int, world: int) -> tuple[torch.Tensor, int]:
    sent = 0
    isend = torch.distributed.isend

    def counted(value: torch.Tensor, *words: Any, **keys: Any) -> Any:
        nonlocal sent
        sent += value.numel()
        return isend(value, *words, **keys)

    torch.distributed.isend = counted
    return scattered_sum(gradients(rank), torch.distributed.group.WORLD), sent


def test_every_owner_gets_the_sum_of_its_part_and_each_part_is_sent_once_less_than_there_are_ranks(ranks: Any) -> None:
    found = ranks.run(3, summed)
    for owner, (total, _) in enumerate(found):
        assert torch.equal(total, sum(gradients(rank)[owner] for rank in range(3)))
    assert sum(sent for _, sent in found) == 2 * sum(SIZES)


def reduced(rank: int, world: int, owners: tuple[frozenset[int], ...]) -> tuple[list[torch.Tensor], list[str]]:
    whole: list[str] = []
    optimizer = SimpleNamespace(
        dp_process_group=torch.distributed.group.WORLD,
        allreduce_and_copy_with_multiple_ranks=lambda *_: whole.append("whole"),
    )
    sum_for_owners(optimizer)
    bucket = gradients(rank)
    optimizer.allreduce_and_copy_with_multiple_ranks(bucket, torch.float32, divide=False, bucket_ranks=owners)
    return bucket, whole


def test_a_bucket_keeps_its_parts_where_they_lie(ranks: Any) -> None:
    owners = tuple(frozenset({rank}) for rank in (2, 0, 1))
    for rank, (bucket, whole) in enumerate(ranks.run(3, reduced, owners)):
        for place, owner in enumerate((2, 0, 1)):
            own = sum(gradients(one)[place] for one in range(3)) if owner == rank else gradients(rank)[place]
            assert torch.equal(bucket[place], own)
        assert not whole


def test_what_one_rank_owns_or_several_is_left_to_deepspeed(ranks: Any) -> None:
    for owners in ((frozenset({0}),) * 3, (frozenset({0, 1}), frozenset({1}), frozenset({2}))):
        assert [whole for _, whole in ranks.run(3, reduced, owners)] == [["whole"]] * 3
