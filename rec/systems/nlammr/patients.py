"""The patient's side of NLA-MMR: sections of text, joined, and the medications of earlier visits.

Letters: B visits, S sections, H earlier visits, D width of texts, C joint width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rec.moe.layer import Mixed
from rec.nn.dropout import Dropout
from rec.systems.nlammr.config import NLAMMRConfig
from rec.systems.nlammr.layers import OneHeadAttention, Projection, weighed

GATE_FEATURES = 2
"""Of a visit's age: its logarithm, and whether it is known."""
OPEN = 2.0
"""Where gates of earlier visits start: sigmoid(2) = 0.88."""


@dataclass(frozen=True, slots=True)
class PatientTexts:
    """What is known of patients as vectors."""

    query_BD: Tensor
    """All sections as one text."""
    section_BSD: Tensor
    """Symptoms, diagnoses, procedures."""
    present_BS: Tensor
    earlier_BHD: Tensor
    """Medications of the last visits, oldest first."""
    earlier_BH: Tensor
    """Whether there is such a visit."""
    gap_BH: Tensor
    """Days since; 0 where not known."""


@dataclass(frozen=True, slots=True)
class Patients:
    """Patients in the joint space, with what they are made of."""

    vector_BC: Tensor
    section_BS: Tensor
    """Weights of sections."""
    earlier_BH: Tensor
    """Weights of earlier visits, gates included."""
    mixed: Mixed | None


class PatientBranch(nn.Module):
    """From texts to the joint space."""

    def __init__(self, config: NLAMMRConfig, width: int, seed: int) -> None:
        super().__init__()
        self.config = config
        self.sections, self.earlier = OneHeadAttention(width, config.width), OneHeadAttention(width, config.width)
        self.fusion = nn.Linear(2 * width, width)
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(width, config.width)
        self.project: nn.Module = (
            config.mixture.layer(width, config.width, seed, out=config.width)
            if config.patient_moe
            else Projection(width, config.width, config.dropout)
        )
        self.missing = nn.Parameter(torch.randn(width) * 0.02) if config.missing_text_mask else None
        self.gate: nn.Linear | None = None
        if config.history_gate:
            self.gate = nn.Linear(2 * width + GATE_FEATURES, 1)
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, OPEN)

    @property
    def no_history(self) -> Tensor:
        """The learned vector of a first visit, (C,): the constant of the history's last layer, to which history adds.

        The published model comes to the same by a mask that cancels over vectors of zeros.
        """
        return self.out.bias

    def forward(self, texts: PatientTexts) -> Patients:
        """Return patients in the joint space."""
        weight_BS, joined_BD = self.joined_sections(texts)
        state_BD = self.dropout(nn.functional.gelu(self.fusion(torch.cat([texts.query_BD, joined_BD], 1))))
        weight_BH, history_BC = self.history(state_BD, texts)
        made = self.project(state_BD)
        mixed = made if isinstance(made, Mixed) else None
        vector_BC = (made if mixed is None else mixed.y_ND) + history_BC
        return Patients(vector_BC, weight_BS, weight_BH, mixed)

    def joined_sections(self, texts: PatientTexts) -> tuple[Tensor, Tensor]:
        """Return the weights of sections, (B, S), and their weighted sum, (B, D)."""
        config = self.config
        if self.missing is None:
            weight_BS = self.sections(texts.query_BD, texts.section_BSD)
            return weight_BS, weighed(weight_BS, texts.section_BSD)
        present_BS = texts.present_BS
        if self.training and config.section_dropout:
            present_BS = present_BS & (torch.rand(present_BS.shape, device=present_BS.device) >= config.section_dropout)
        weight_BS = self.sections(texts.query_BD, texts.section_BSD, present_BS)
        joined_BD = weighed(weight_BS, texts.section_BSD)
        return weight_BS, torch.where(present_BS.any(1)[:, None], joined_BD, self.missing.to(joined_BD.dtype))

    def history(self, state_BD: Tensor, texts: PatientTexts) -> tuple[Tensor, Tensor]:
        """Return the weights of earlier visits, (B, H), and what they add in the joint space, (B, C)."""
        weight_BH = self.earlier(state_BD, texts.earlier_BHD, texts.earlier_BH)
        if self.gate is not None:
            age_BH2 = torch.stack([torch.log1p(texts.gap_BH), (texts.gap_BH > 0).to(texts.gap_BH.dtype)], 2)
            state_BHD = state_BD[:, None].expand_as(texts.earlier_BHD)
            seen_BHX = torch.cat([state_BHD, texts.earlier_BHD, age_BH2.to(state_BD.dtype)], 2)
            weight_BH = weight_BH * self.gate(seen_BHX)[:, :, 0].float().sigmoid()
        added_BC = nn.functional.linear(weighed(weight_BH, texts.earlier_BHD), self.out.weight)
        return weight_BH, added_BC + self.no_history
