"""NLA-MMR's model: see rec.systems.nlammr.

Letters: B visits, T texts of a visit, L tokens, V medications, C joint width, G width of graphs, D width of texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from rec.moe.layer import Mixed
from rec.nn.dropout import Dropout
from rec.nn.encoders import BertEncoder, TokenForm, in_chunks
from rec.nn.replicated import Replicated
from rec.nn.stepwise import Stepwise
from rec.systems.nlammr.batch import SECTIONS, VisitBatch, code_count
from rec.systems.nlammr.config import NLAMMRConfig
from rec.systems.nlammr.medications import Made, MedicationBranch
from rec.systems.nlammr.molecules import molecules_of
from rec.systems.nlammr.patients import PatientBranch, Patients, PatientTexts

LEAST_SHARE = 1e-3
"""A medication that is given less often starts as if it were given so often."""
TEXTS_AT_ONCE = 64
"""Descriptions of medications that are encoded together."""


@dataclass(frozen=True, slots=True)
class NLAMMRScores:
    """What one pass over a batch gives."""

    score_BV: Tensor
    """float32; its sigmoid is the probability."""
    patients: Patients
    mixed: list[Mixed]
    """What experts of either side did."""


class NLAMMRModel(nn.Module, Stepwise):
    """The patients' side, the medications' side, and their inner products."""

    text_VD: Tensor
    text_epoch: Tensor
    structure_VG: Tensor
    age: Tensor

    def __init__(
        self, config: NLAMMRConfig, tables: Mapping[str, np.ndarray], seed: int, tokens: TokenForm | None
    ) -> None:
        super().__init__()
        self.config = config
        self.text: BertEncoder | None = None
        described_V = np.asarray(tables["medication_text_present"])
        if tokens is not None:
            self.text = BertEncoder(config.lora, tokens.vocabulary, tokens.length, tokens.pad)
            width = self.text.width
            self.token_VL = torch.from_numpy(np.array(tables["medication_tokens"]))
            self.register_buffer("text_VD", torch.zeros(len(described_V), width))
            self.register_buffer("text_epoch", torch.tensor(-1))
        else:
            width = tables["text_all"].shape[1]
            given_VD = tables["medication_text"] if config.ablate != "text" else np.zeros((len(described_V), width))
            text_VD = torch.from_numpy(np.array(given_VD, np.float32))
            self.register_buffer("text_VD", unit(text_VD) if config.unit_texts else text_VD, persistent=False)
        molecules = None
        if config.ablate != "structure":
            molecules = molecules_of(tables, dedupe=config.dedupe_molecules)
        self.patients = PatientBranch(config, width, seed)
        self.medications = Replicated(MedicationBranch(config, self.text_VD.shape[1], molecules, described_V, seed))
        if config.refresh_every > 1:
            self.register_buffer("structure_VG", torch.zeros(len(described_V), config.graph_width))
            self.register_buffer("age", torch.tensor(0))
        self.codes: CodeScores | None = None
        if config.codes:
            self.codes = CodeScores(config, code_count(tables), torch.from_numpy(np.array(tables["medication_share"])))
        self.frozen: Tensor | None = None
        self.cached: Tensor | None = None

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; medications are made anew."""
        self.cached = None
        return super().train(mode)

    def forward(self, batch: VisitBatch) -> NLAMMRScores:
        """Return the scores of every medication for every visit."""
        patients = self.patients(self.texts(batch))
        mixed = [] if patients.mixed is None else [patients.mixed]
        if self.training:
            vector_VC, of_medications = self.encoded()
            mixed += [] if of_medications is None else [of_medications]
        else:
            vector_VC = self.catalogue()
        score_BV = patients.vector_BC.float() @ vector_VC.float().T
        if self.codes is not None:
            score_BV = score_BV + self.codes(batch)
        return NLAMMRScores(score_BV, patients, mixed)

    def catalogue(self) -> Tensor:
        """Return all medications in the joint space in evaluation, (V, C); made once until training goes on."""
        if self.frozen is not None:
            return self.frozen
        if self.cached is None:
            self.cached = self.medications(self.text_VD)[0]
        return self.cached

    def encoded(self) -> tuple[Tensor, Mixed | None]:
        """Return all medications in the joint space in training, and what experts did."""
        if self.config.refresh_every == 1 or self.config.ablate == "structure":
            vector_VC, mixed, _ = self.medications(self.text_VD)
            return vector_VC, mixed
        is_due = int(self.age) % self.config.refresh_every == 0
        made: Made = self.medications(self.text_VD, None if is_due else self.structure_VG)
        vector_VC, mixed, structure_VG = made
        if is_due:
            assert structure_VG is not None
            self.structure_VG.copy_(structure_VG.detach())
            return vector_VC, mixed
        # Every parameter has a gradient at every step, if of 0: backends that share gradients over ranks count on it.
        branch = self.medications.module
        assert isinstance(branch, MedicationBranch)
        return vector_VC + 0 * torch.stack([p.sum() for p in branch.gin.parameters()]).sum(), mixed

    def after_step(self) -> None:
        """Count the step: after so many, molecules are encoded anew."""
        if self.config.refresh_every > 1:
            self.age += 1

    def texts(self, batch: VisitBatch) -> PatientTexts:
        """Return the texts of visits as vectors: those written with the data, or encoded here."""
        if self.text is None:
            dtype = self.patients.fusion.weight.dtype
            given = (batch.query_BD, batch.section_BSD, batch.earlier_BHD)
            query_BD, section_BSD, earlier_BHD = ((unit(x) if self.config.unit_texts else x).to(dtype) for x in given)
            return PatientTexts(query_BD, section_BSD, batch.present_BS, earlier_BHD, batch.earlier_BH, batch.gap_BH)
        token_BTL, sections = batch.token_BTL, len(SECTIONS)
        there_BT = torch.cat([batch.present_BS.any(1, keepdim=True), batch.present_BS, batch.earlier_BH], 1)
        chosen_N = there_BT.flatten().nonzero()[:, 0]
        vector_ND = self.text(token_BTL.flatten(0, 1)[chosen_N])
        flat_XD = vector_ND.new_zeros(there_BT.numel(), vector_ND.shape[1]).index_copy(0, chosen_N, vector_ND)
        text_BTD = flat_XD.view(*there_BT.shape, -1)
        return PatientTexts(
            text_BTD[:, 0], text_BTD[:, 1 : 1 + sections], batch.present_BS, text_BTD[:, 1 + sections :],
            batch.earlier_BH, batch.gap_BH,
        )  # fmt: skip

    @torch.no_grad()
    def refresh_texts(self, epoch: int) -> None:
        """Encode what describes medications by the text encoder of now; once in an epoch, however often it is asked."""
        if self.text is None or int(self.text_epoch) == epoch:
            return
        was_training = self.training
        self.eval()
        text_VD = in_chunks(self.text, self.token_VL.to(self.text_VD.device), TEXTS_AT_ONCE)
        branch = self.medications.module
        assert isinstance(branch, MedicationBranch)
        self.text_VD.copy_(torch.where(branch.described_V1, text_VD, 0))
        self.text_epoch.fill_(epoch)
        self.train(was_training)


class CodeScores(nn.Module):
    """What each code says of each medication by itself, and how often medications are given."""

    def __init__(self, config: NLAMMRConfig, codes: int, share_V: Tensor) -> None:
        super().__init__()
        self.scale, self.dropout = config.code_scale, Dropout(config.code_dropout)
        self.of_code_XV = nn.Parameter(torch.zeros(codes, len(share_V)))
        self.of_all_V = nn.Parameter(torch.logit(share_V.float(), eps=LEAST_SHARE))

    def forward(self, batch: VisitBatch) -> Tensor:
        """Return the scores of all medications for each visit, float32 (B, V)."""
        kept_N1 = self.dropout(torch.ones_like(batch.code_N, dtype=torch.float32)[:, None])
        score_NV = self.of_code_XV[batch.code_N].float() * (kept_N1 * self.scale)
        return self.of_all_V.float().expand(len(batch), -1).index_add(0, batch.visit_N, score_NV)


def unit(text_XD: Tensor) -> Tensor:
    """Return vectors of a mean square of 1; one of zeros stays."""
    size_X1 = text_XD.square().mean(-1, keepdim=True).sqrt()
    return text_XD / torch.where(size_X1 > 0, size_X1, 1)
