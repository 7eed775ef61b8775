"""Models on codes alone: logistic regression, and two recurrent units over visits.

Letters: B visits to answer, T visits of all their sequences, N codes, F fields, V medications, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rec.nn.dropout import Dropout
from rec.systems.safedrug.batch import CodesBatch

SPREAD = 0.1
"""Code vectors start uniform between -0.1 and 0.1, as published."""


class RecurrentModel(nn.Module):
    """A recurrent unit for each field over the visits' summed code vectors, and a linear layer to the medications.

    Without `recurrent` there is no unit: the vectors of the visit to answer are read as they are.
    """

    def __init__(
        self, *, codes: int, fields: int, medications: int, width: int, dropout: float, recurrent: bool = True
    ) -> None:
        super().__init__()
        self.code = nn.Embedding(codes, width)
        nn.init.uniform_(self.code.weight, -SPREAD, SPREAD)
        self.dropout = Dropout(dropout)
        self.fields = fields
        self.units = nn.ModuleList([nn.GRU(width, width) for _ in range(fields if recurrent else 0)])
        self.query = nn.Sequential(nn.ReLU(), nn.Linear(fields * width, width))
        self.head = nn.Linear(width, medications)

    def forward(self, batch: CodesBatch) -> Tensor:
        """Return the score of every medication, (B, V)."""
        code_ND = self.dropout(self.code(batch.code_N))
        visits, width = len(batch.owner_T), code_ND.shape[1]
        visit_XD = code_ND.new_zeros(self.fields * visits, width).index_add(0, batch.place_N, code_ND)
        state_FBD = self.states(visit_XD.view(self.fields, visits, width), batch)
        score_BV: Tensor = self.head(self.query(state_FBD.transpose(0, 1).flatten(1)))
        return score_BV

    def states(self, visit_FTD: Tensor, batch: CodesBatch) -> Tensor:
        """Return what each field's visits come to at the one to answer, (F, B, D)."""
        if not self.units:
            return visit_FTD[:, batch.rank_B]
        sizes = torch.tensor(batch.step_sizes)
        # The initial state is given, as torch would make it of float32 whatever the weights are of.
        start_1BD = visit_FTD.new_zeros(1, len(batch), visit_FTD.shape[2])
        states = [
            unit(PackedSequence(visit_TD, sizes, batch.order_B, batch.rank_B), start_1BD)[1]
            for unit, visit_TD in zip(self.units, visit_FTD, strict=True)
        ]
        return torch.cat(states)


class LogisticModel(nn.Module):
    """A logistic regression for each medication.

    Features are which codes this visit has, and in what share of the earlier visits each code stands.
    """

    def __init__(self, *, codes: int, medications: int) -> None:
        super().__init__()
        self.codes = codes
        self.weight = nn.Embedding(2 * codes, medications)
        self.bias_V = nn.Parameter(torch.zeros(medications))
        nn.init.zeros_(self.weight.weight)

    def forward(self, batch: CodesBatch) -> Tensor:
        """Return the score of every medication, (B, V)."""
        visit_N = batch.place_N % max(len(batch.owner_T), 1)
        owner_N, last_N = batch.owner_T[visit_N], batch.last_T[visit_N]
        weight_NV = self.weight(batch.code_N + self.codes * ~last_N)
        share_N = torch.where(last_N, 1, 1 / batch.earlier_B.clamp(min=1)[owner_N]).to(weight_NV.dtype)
        return self.bias_V.expand(len(batch), -1).index_add(0, owner_N, weight_NV * share_N[:, None])
