"""Batches of visits with the codes of those before, laid out as recurrent units read them.

Letters: B visits to answer, T visits of all their sequences, N codes, F fields, V medications.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rec.batch import Batch, Columns, RaggedColumn
from rec.errors import RequestError

MEDICATIONS = "medications"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesBatch(Batch):
    """Some visits to answer, each the last of a sequence; sequences lie one time step after the other, longest first,
    as torch's packed sequences do."""

    patient_B: Tensor
    code_N: Tensor
    """Codes of all fields, numbered through."""
    place_N: Tensor
    """field * T + visit of each code."""
    owner_T: Tensor
    """The example that a visit belongs to."""
    last_T: Tensor
    """Whether it is the visit to answer, bool."""
    earlier_B: Tensor
    """How many visits come before."""
    order_B: Tensor
    """Examples by falling length of their sequences."""
    rank_B: Tensor
    """Where each example is among those."""
    step_sizes: tuple[int, ...]
    """Sequences that have a first, a second, ... visit."""
    previous_BV: Tensor
    """What was given at the visit before, bool."""
    given_BV: Tensor
    """What is given, bool."""

    def __len__(self) -> int:
        return len(self.patient_B)


def collated(rows: Columns, fields: Sequence[str], sizes: Mapping[str, int], history: str) -> CodesBatch:
    """Return the batch of these rows.

    Args:
        rows: Columns of the view `visits`.
        fields: Those whose codes are read, in the order of their numbers.
        sizes: Members of each field and of `medications`.
        history: "none", "codes" or "medications": the last reads what was given at the visit before each as one more
            field.

    Raises:
        RequestError: the fields of a row tell of different numbers of earlier visits.
    """
    length_B = _lengths(rows, (*fields, MEDICATIONS))
    kept_B = np.ones_like(length_B) if history == "none" else length_B
    order_B = np.argsort(-kept_B, kind="stable")
    rank_B = np.empty_like(order_B)
    rank_B[order_B] = np.arange(len(order_B))
    step_sizes = np.searchsorted(-kept_B[order_B], -np.arange(kept_B.max(initial=0)), side="left")
    first_S = np.cumsum(step_sizes) - step_sizes
    owner_T = np.repeat(np.arange(len(kept_B)), kept_B)
    step_T = np.arange(len(owner_T)) - (np.cumsum(kept_B) - kept_B)[owner_T]
    slot_T = first_S[step_T] + rank_B[owner_T]
    codes, places, offset = [], [], 0
    for number, field in enumerate((*fields, MEDICATIONS) if history == "medications" else fields):
        code_N, visit_N = _codes(rows, field, kept_B)
        codes.append(code_N + offset)
        places.append(number * len(slot_T) + slot_T[visit_N])
        offset += sizes[field]
    packed = np.empty((2, len(slot_T)), np.int64)
    packed[:, slot_T] = owner_T, step_T == kept_B[owner_T] - 1
    tensors = {
        "patient_B": np.array(rows["patient"], np.int64),
        "code_N": np.concatenate(codes),
        "place_N": np.concatenate(places),
        "owner_T": packed[0],
        "last_T": packed[1].astype(bool),
        "earlier_B": length_B - 1,
        "order_B": order_B,
        "rank_B": rank_B,
        "previous_BV": _sets(RaggedColumn.nested(rows[f"earlier_{MEDICATIONS}"]).last(), sizes[MEDICATIONS]),
        "given_BV": _sets(RaggedColumn.of(rows[MEDICATIONS]), sizes[MEDICATIONS]),
    }
    return CodesBatch(
        **{name: torch.from_numpy(array) for name, array in tensors.items()}, step_sizes=tuple(step_sizes.tolist())
    )


def _lengths(rows: Columns, fields: Sequence[str]) -> np.ndarray:
    """Return the number of visits of each sequence, this one included; a field may tell of no earlier ones at all."""
    count_FB = np.stack([RaggedColumn.nested(rows[f"earlier_{field}"]).lengths for field in fields])
    most_B: np.ndarray = count_FB.max(0)
    if len(wrong := np.argwhere((count_FB != most_B) & (count_FB > 0))):
        field, row = wrong[0]
        raise RequestError(
            f"row {row}: earlier_{fields[field]} tells of {count_FB[field, row]} visits and another field of "
            f"{most_B[row]}; expected a list for each earlier visit, oldest first, or none at all"
        )
    return most_B + 1


def _codes(rows: Columns, field: str, kept_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of a field over all sequences, and the visit of each, counted through the sequences.

    Medications are those given at the visit before.
    """
    visit, earlier_B = _visits(rows, field)
    first_B = np.cumsum(kept_B) - kept_B
    told_B = np.minimum(earlier_B.lengths, kept_B - 1)
    # Visits that are told of lie before this one; those that are not are the last of `visit`, which holds no code.
    owner = np.repeat(np.arange(len(kept_B)), told_B)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(told_B) - told_B, told_B)
    source_T = np.full(int(kept_B.sum()), len(visit) - 1)
    later = 1 if field == MEDICATIONS else 0
    source_T[first_B[owner] + number + later] = earlier_B.offset[1:][owner] - told_B[owner] + number
    if field != MEDICATIONS:
        source_T[first_B + kept_B - 1] = earlier_B.offset[-1] + np.arange(len(kept_B))
    found = visit.taken(source_T)
    return found.flat, found.owners


def _visits(rows: Columns, field: str) -> tuple[RaggedColumn, RaggedColumn]:
    """Return the codes of all earlier visits, of those to answer and of none, and which of them are a row's earlier."""
    earlier, now = RaggedColumn.nested(rows[f"earlier_{field}"]), RaggedColumn.of(rows[field])
    before = earlier.flat
    offset = np.cumsum(np.concatenate([[0], before.lengths, now.lengths, [0]]))
    codes = np.concatenate([np.asarray(before.flat, np.int64), np.asarray(now.flat, np.int64)])
    return RaggedColumn(codes, offset), RaggedColumn(before, earlier.offset - earlier.offset[0])


def _sets(codes_B: RaggedColumn, size: int) -> np.ndarray:
    set_BV = np.zeros((len(codes_B), size), bool)
    set_BV[codes_B.owners, np.asarray(codes_B.flat, np.int64)] = True
    return set_BV
