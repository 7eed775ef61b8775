"""The medications' side of NLA-MMR: text joined with the structure of molecules.

Letters: V medications, D width of texts, G width of graphs, C joint width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rec.moe.layer import Mixed, MixtureOfExperts
from rec.systems.nlammr.config import NLAMMRConfig
from rec.systems.nlammr.layers import Projection
from rec.systems.nlammr.molecules import GIN, Graph, MedicationMolecules

Made = tuple[Tensor, Mixed | None, Tensor | None]
"""Medications in the joint space, (V, C); what experts did; their structure, (V, G)."""


class MedicationBranch(nn.Module):
    """From texts and molecules to the joint space. What it takes is the same for every batch."""

    known_V1: Tensor
    described_V1: Tensor

    def __init__(
        self,
        config: NLAMMRConfig,
        width: int,
        molecules: MedicationMolecules | None,
        described_V: np.ndarray,
        seed: int,
    ) -> None:
        super().__init__()
        self.config, medications = config, len(described_V)
        self.graph: Graph | None = None
        known_V = np.zeros(medications, bool)
        if molecules is not None:
            known_V = ~molecules.missing(medications)
            self.graph = Graph(molecules, medications)
            self.gin = GIN(config.graph_width, config.graph_layers, config.graph_dropout)
        self.register_buffer("known_V1", torch.from_numpy(known_V)[:, None], persistent=False)
        self.register_buffer("described_V1", torch.from_numpy(np.array(described_V))[:, None], persistent=False)
        forced = config.fusion == "gate"  # what is missing has no weight there
        self.no_structure = self._learned(config.graph_width, molecules is None or forced or bool(known_V.all()))
        with_text = config.ablate != "text"
        described = not config.missing_text_mask or not with_text or forced or bool(np.all(described_V))
        self.no_text = self._learned(width, described)
        widths = (width if with_text else 0, config.graph_width if molecules is not None else 0)
        if config.fusion == "gate":
            self.project: nn.Module = Gate(*widths, config.width)
        elif config.fusion == "moe":
            # Few rows that all ranks have alike: nothing is to be dropped.
            mixture = config.mixture.model_copy(update={"capacity_factor": 0.0})
            self.project = mixture.layer(sum(widths), config.width, seed, out=config.width)
        else:
            self.project = Projection(sum(widths), config.width, config.dropout)

    @staticmethod
    def _learned(width: int, is_idle: bool) -> nn.Parameter | None:
        return None if is_idle else nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, text_VD: Tensor, structure_VG: Tensor | None = None) -> Made:
        """Return medications in the joint space; their structure is encoded unless it is given."""
        parts = []
        if self.config.ablate != "text":
            text_VD = text_VD.to(next(self.parameters()).dtype)
            parts.append(_or_learned(text_VD, self.described_V1, self.no_text))
        if self.graph is not None:
            if structure_VG is None:
                structure_VG = self.graph.averages(self.gin(self.graph))
            parts.append(_or_learned(structure_VG, self.known_V1, self.no_structure))
        if isinstance(self.project, Gate):
            return self.project(*parts, self.described_V1, self.known_V1), None, structure_VG
        made = self.project(torch.cat(parts, 1))
        if isinstance(self.project, MixtureOfExperts):
            return made.y_ND, made, structure_VG
        return made, None, structure_VG


class Gate(nn.Module):
    """A gate between text and structure; what is missing has no weight."""

    def __init__(self, text_width: int, graph_width: int, width: int) -> None:
        super().__init__()
        self.text, self.structure = nn.Linear(text_width, width), nn.Linear(graph_width, width)
        self.gate = nn.Linear(2 * width, width)

    def forward(self, text_VD: Tensor, structure_VG: Tensor, described_V1: Tensor, known_V1: Tensor) -> Tensor:
        """Return medications in the joint space, (V, C)."""
        text_VC, structure_VC = self.text(text_VD), self.structure(structure_VG)
        gate_VC = self.gate(torch.cat([text_VC, structure_VC], 1)).sigmoid()
        gate_VC = torch.where(known_V1 | ~described_V1, gate_VC, 1)
        gate_VC = torch.where(described_V1 | ~known_V1, gate_VC, 0)
        return gate_VC * text_VC + (1 - gate_VC) * structure_VC


def _or_learned(value_VX: Tensor, there_V1: Tensor, learned_X: Tensor | None) -> Tensor:
    return value_VX if learned_X is None else torch.where(there_V1, value_VX, learned_X.to(value_VX.dtype))
