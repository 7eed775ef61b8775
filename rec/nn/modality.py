"""Several frozen vectors per item, projected to the model's width, weighed by a gate and mixed.

Letters: N rows, I items, K modalities, M width of the frozen vectors, D model width.
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rec.nn.packed import Layout

Fusion = Literal["inner", "bilinear", "attention", "network"]
Texts = Literal["encoded", "shuffled", "random", "concatenated"]

EVERY = slice(None)


class Projector(nn.Module):
    """Maps frozen vectors to the model's width; starts at zero, so that a model starts without them.

    A stack of linear layers and ReLU, shared by all modalities or one per modality.
    """

    def __init__(self, vectors_IKM: Tensor, *, width: int, hidden: tuple[int, ...], shared: bool) -> None:
        super().__init__()
        self.vectors_IKM: Tensor
        self.register_buffer("vectors_IKM", vectors_IKM, persistent=False)
        _, modalities, size = vectors_IKM.shape
        self.copies = 1 if shared else modalities
        sizes = (size, *hidden, width)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for index, (a, b) in enumerate(itertools.pairwise(sizes)):
            weight = torch.zeros(self.copies, a, b)
            if index < len(hidden):
                nn.init.normal_(weight, std=(2 / a) ** 0.5)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(self.copies, 1, b)))

    def forward(self, items: slice | Tensor = EVERY) -> Tensor:
        """Return the projected vectors of items, (I, K, D), of all where none are told."""
        vectors_IKM = self.vectors_IKM[items]
        count, modalities, size = vectors_IKM.shape
        x = vectors_IKM.reshape(1, count * modalities, size) if self.copies == 1 else vectors_IKM.transpose(0, 1)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.to(weight.dtype), weight)
            if index + 1 < len(self.weights):
                x = torch.relu(x)
        if self.copies == 1:
            return x.view(count, modalities, -1)
        return x.transpose(0, 1)


class Compatibility(nn.Module):
    """How well modality k of an item fits a user: the learnable function of the paper's equation 4.

    By its kind:

        inner      <u, e_k>
        bilinear   <u, A e_k> + b_k, A the identity and b zero at the start
        attention  <Q u, A e_k> / sqrt(D) + b_k
        network    <w, relu(Q u + A e_k)> + b_k, D hidden units: no inner product, so a pair at a time
    """

    def __init__(self, kind: Fusion, width: int, modalities: int) -> None:
        super().__init__()
        self.kind = kind
        if kind != "inner":
            self.matrix_DD = nn.Parameter(torch.eye(width))
            self.bias_K = nn.Parameter(torch.zeros(modalities))
        if kind in ("attention", "network"):
            self.query = nn.Linear(width, width, bias=kind == "network")
            nn.init.xavier_uniform_(self.query.weight)
        if kind == "network":
            self.output_D = nn.Parameter(torch.randn(width) * width**-0.5)

    def user(self, user_ND: Tensor) -> Tensor:
        """Return the vectors that modalities are compared with, (N, D)."""
        if self.kind == "inner":
            return user_ND
        if self.kind == "attention":
            user_ND = self.query(user_ND) * user_ND.shape[-1] ** -0.5
        return user_ND @ self.matrix_DD

    def forward(self, user_ND: Tensor, modality_NKD: Tensor) -> Tensor:
        """Return the scores (N, K)."""
        if self.kind == "network":
            hidden_NKD = torch.relu(self.query(user_ND)[:, None] + modality_NKD @ self.matrix_DD)
            return hidden_NKD @ self.output_D + self.bias_K
        score_NK = torch.einsum("nd,nkd->nk", self.user(user_ND), modality_NKD)
        return score_NK if self.kind == "inner" else score_NK + self.bias_K


def choose_vectors(tables: dict[str, np.ndarray], kind: Texts, seed: int) -> Tensor:
    """Return the frozen vectors (I + 1, K, M) for one of the controls.

    By `kind`:

        encoded       the texts' own
        shuffled      every item gets the vectors of another: as informative as noise, with the same statistics
        random        random directions of the same norms
        concatenated  one vector of all texts joined
    """
    if kind == "concatenated":
        return torch.from_numpy(np.asarray(tables["text_concatenated"]))
    if kind == "encoded":
        return torch.from_numpy(np.asarray(tables["text"]))
    vectors = np.array(tables["text"])
    rng = np.random.default_rng(seed)
    if kind == "shuffled":
        vectors[1:] = vectors[1 + rng.permutation(len(vectors) - 1)]
    elif kind == "random":
        noise = rng.standard_normal(vectors.shape).astype(np.float32)
        norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors = noise / np.linalg.norm(noise, axis=-1, keepdims=True) * norm
    return torch.from_numpy(vectors)


def present_only(score_XK: Tensor, present_XK: Tensor | None) -> Tensor:
    """Return scores, (..., K), of which those of what an item does not have are -inf; its all stay where it has none.

    None stands for items that have everything.
    """
    if present_XK is None:
        return score_XK
    return score_XK.masked_fill(~present_XK & present_XK.any(-1, keepdim=True), -torch.inf)


def or_none(shares: list[float], present_K: Tensor | None) -> list[float | None]:
    """Return shares, None for those of what an item does not have."""
    if present_K is None:
        return [*shares]
    return [share if there else None for share, there in zip(shares, present_K.tolist(), strict=True)]


KEPT_SHARES = (0.5, 0.8, 0.9, 0.95)
"""Shares of the weight for which reports tell how many modalities hold them."""


def concentration(probability_NK: Tensor, where: Layout) -> dict[str, Tensor]:
    """Return per user how few modalities hold a gate's weight, means over the items of a history that have some.

    `gate_sorted` (B, K): weight of an item's heaviest modality, of the second, and so on; `gate_needed` (B, S): fewest
    modalities that hold each of `KEPT_SHARES` of it. Where no item has a weight all are 0.
    """
    sorted_NK = probability_NK.double().sort(1, descending=True).values
    before_NK = sorted_NK.cumsum(1) - sorted_NK
    # Rounded sums must not ask for one more modality.
    needed_NS = torch.stack([(before_NK < share - 1e-6).sum(1) for share in KEPT_SHARES], 1).double()
    there_N, users = (sorted_NK > 0).any(1).double(), len(where.length_B)
    count_B = there_N.new_zeros(users).index_add_(0, where.sequence_N, there_N).clamp(min=1)
    found = {}
    for name, value in (("gate_sorted", sorted_NK), ("gate_needed", needed_NS)):
        total_BX = value.new_zeros(users, value.shape[1]).index_add_(0, where.sequence_N, value * there_N[:, None])
        found[name] = total_BX / count_B[:, None]
    return found


def gate_per_user(weight_NK: Tensor, where: Layout) -> dict[str, Tensor]:
    """Return the gate's mean weights (B, K) over each history, its first half, and every other item of it.

    The first half against the rest tells how a user's weights move in time; every other item against the rest, how
    far two halves lie apart where time plays no part. Only items with a weight count, of which there are `length` (B,);
    where there is none all weights are 0.
    """
    weight_NK, users = weight_NK.double(), len(where.length_B)
    there_N = (weight_NK > 0).any(1)
    length_B = where.length_B.new_zeros(users).index_add_(0, where.sequence_N, there_N.to(where.length_B.dtype))
    place_N = there_N.cumsum(0) - 1 - (length_B.cumsum(0) - length_B)[where.sequence_N]
    half_N = place_N < (length_B[where.sequence_N] + 1) // 2
    parts = {"gate": there_N, "gate_first": half_N, "gate_even": place_N % 2 == 0}
    means = {"length": length_B}
    for name, use_N in parts.items():
        total_BK = weight_NK.new_zeros(users, weight_NK.shape[1])
        total_BK.index_add_(0, where.sequence_N, weight_NK * use_N[:, None])
        means[name] = total_BK / total_BK.sum(1, keepdim=True).clamp(min=1e-12)
    return means
