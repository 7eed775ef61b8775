"""Messages between the ranks that share experts: rows of unequal numbers, whose sizes travel with the rows.

How many rows a rank has for each other is known only on its device. Instead of telling it in a message of its own,
every rank sends as many rows as the last counts made likely, some of them empty, under a head that tells all ranks the
true counts; the host reads the heads, and only where there were more rows than places all ranks send what is left.
Since every rank hears every count, all know the same places for the next time.

Letters: N rows of this rank, D width, P ranks, L experts of a rank, Q = P N pairs of rank and row, S rows it sends, R
rows it receives, K a row's experts on one rank, X rows of any message, W bytes of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from rec.train.own_time import waiting
from rec.transfer import to_device, to_host

DENSE = torch.contiguous_format
COUNT_BYTES = 8
SPARE = 8
"""Places are for one in so many more rows than there were, and are given up by one in so many."""


@dataclass(frozen=True, slots=True)
class MessageSizes:
    """How many rows go to and come from each rank, and how many assignments have come for each of its experts."""

    rows_out: list[int]
    rows_in: list[int]
    count_L: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The ranks of a group, and who is told of the bytes that this one sends to others."""

    group: Any
    observe: Callable[[int], None] | None = None

    @property
    def rank(self) -> int:
        """This rank's place in the group."""
        return torch.distributed.get_rank(self.group)

    def exchange(self, value: Tensor, sizes_out: list[int], sizes_in: list[int]) -> Tensor:
        """Return the rows that come from all ranks, in their order, for those of `value` that go to each."""
        if self.observe is not None:
            crossing = sum(sizes_out) - sizes_out[self.rank]
            self.observe(crossing * value[:1].numel() * value.element_size() if crossing else 0)
        received = value.new_empty((sum(sizes_in), *value.shape[1:]))
        with waiting():
            torch.distributed.all_to_all_single(received, value.contiguous(), sizes_in, sizes_out, group=self.group)
        return received


class Places:
    """How many rows every rank has places for in the first message to every other, the same on all ranks."""

    def __init__(self, ranks: int) -> None:
        self.room_PP = [[0] * ranks for _ in range(ranks)]

    def learn(self, count_PP: list[list[int]]) -> None:
        """Make room for these numbers of rows and some more; what is not needed is given up little by little."""
        for room_P, count_P in zip(self.room_PP, count_PP, strict=True):
            for other, count in enumerate(count_P):
                room_P[other] = max(count + -(-count // SPARE), room_P[other] - -(-room_P[other] // SPARE))


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a rank has for others."""

    pair_Q: Tensor
    """The pairs of rank and row in use, sorted; then anything."""
    rows_P: Tensor
    """Pairs in use of each rank."""
    count_PL: Tensor
    """Assignments to each expert of each rank."""
    expert_QK: Tensor
    """By pair: the local experts that the row goes to, int16, -1 for none."""

    @property
    def before_P(self) -> Tensor:
        """Return how many pairs in use come before those of each rank."""
        return self.rows_P.cumsum(0) - self.rows_P

    def pairs(self, first_P: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return so many pairs of each rank from these places on, anything beyond the last, (X,)."""
        total = sum(sizes)
        if not len(self.pair_Q):  # a rank without rows has places all the same
            return self.pair_Q.new_zeros(total)
        size_P = to_device(sizes, torch.int64, first_P.device)
        shift_P = first_P - (size_P.cumsum(0) - size_P)
        place_X = shift_P.repeat_interleave(size_P, output_size=total) + torch.arange(total, device=first_P.device)
        return self.pair_Q[place_X.clamp(max=len(self.pair_Q) - 1)]


def send(
    x_ND: Tensor, weight_QK: Tensor, parcel: Parcel, places: Places, link: Link
) -> tuple[Tensor, Tensor, Tensor, MessageSizes]:
    """Return rows (R, D), weights (R, K) and experts (R, K) that have come from all ranks, in their order."""
    me, ranks = link.rank, len(parcel.rows_P)
    room_P, from_P = places.room_PP[me], [room_P[me] for room_P in places.room_PP]
    columns = [x_ND, weight_QK, parcel.expert_QK]
    head_PX = torch.cat([parcel.rows_P.expand(ranks, -1), parcel.count_PL], 1)
    above = -(-head_PX.shape[1] * COUNT_BYTES // _width(columns))
    first = _packed(columns, parcel.pairs(parcel.before_P, room_P), room_P, above, head_PX)
    came = link.exchange(first, [room + above for room in room_P], [room + above for room in from_P])
    parts = list(came.split([room + above for room in from_P]))
    heads = torch.stack([part[:above].flatten()[: head_PX.shape[1] * COUNT_BYTES] for part in parts])
    told: list[list[int]] = to_host([heads.view(torch.int64)])[0].tolist()
    count_PP = [numbers[:ranks] for numbers in told]
    rows_in = [count_P[me] for count_P in count_PP]
    pieces = [[part[above : above + count]] for part, count in zip(parts, rows_in, strict=True)]
    both_PP = zip(count_PP, places.room_PP, strict=True)
    left_PP = [[max(0, n - room) for n, room in zip(*both, strict=True)] for both in both_PP]
    if any(any(left_P) for left_P in left_PP):
        left_out, left_in = left_PP[me], [left_P[me] for left_P in left_PP]
        first_P = parcel.before_P + to_device(room_P, torch.int64, x_ND.device)
        more = link.exchange(_packed(columns, parcel.pairs(first_P, left_out), left_out), left_out, left_in)
        for piece, part in zip(pieces, more.split(left_in), strict=True):
            piece.append(part)
    places.learn(count_PP)
    x_RD, weight_RK, expert_RK = unpacked([part for piece in pieces for part in piece], columns)
    count_L = [sum(numbers) for numbers in zip(*(numbers[ranks:] for numbers in told), strict=True)]
    return x_RD, weight_RK, expert_RK, MessageSizes(count_PP[me], rows_in, count_L)


def side_by_side(columns: Sequence[Tensor]) -> Tensor:
    """Return matrices with as many rows as one of bytes, (X, W)."""
    # A matrix of one column may be contiguous and have any stride.
    dense = [
        part if part.is_contiguous() and part.stride(1) == 1 else part.clone(memory_format=DENSE) for part in columns
    ]
    return torch.cat([part.view(torch.uint8) for part in dense], 1)


def unpacked(parts: Sequence[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
    """Return matrices of these types and widths from their bytes, which come in parts, (X, W) each."""
    found, start = [], 0
    for column in like:
        end = start + _width([column])
        flat = torch.cat([part[:, start:end] for part in parts])
        found.append(flat.view(column.dtype))
        start = end
    return found


def _width(columns: Sequence[Tensor]) -> int:
    """Return W."""
    return sum(column.shape[1] * column.element_size() for column in columns)


def _packed(
    columns: Sequence[Tensor], pair_X: Tensor, sizes: Sequence[int], above: int = 0, head_PX: Tensor | None = None
) -> Tensor:
    """Return a message of these pairs, cut by sizes, with `above` rows over each part that hold its head.

    The first column is by row, others are by pair.
    """
    rows = len(columns[0])
    if rows == 0:
        taken = [column.new_zeros(len(pair_X), column.shape[1]) for column in columns]
    else:
        index = [pair_X % rows, *[pair_X] * (len(columns) - 1)]
        taken = [column.index_select(0, place_X) for column, place_X in zip(columns, index, strict=True)]
    if head_PX is None:
        return side_by_side(taken)
    message = pair_X.new_empty(len(pair_X) + above * len(sizes), _width(columns), dtype=torch.uint8)
    halves = message.split([size for room in sizes for size in (above, room)])
    parts = zip(*(column.view(torch.uint8).split(list(sizes)) for column in taken), strict=True)
    for head, body, head_X, part in zip(halves[::2], halves[1::2], head_PX, parts, strict=True):
        head.view(-1)[: len(head_X) * COUNT_BYTES] = head_X.contiguous().view(torch.uint8)
        if len(body):
            torch.cat(part, 1, out=body)
    return message
