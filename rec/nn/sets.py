"""What systems that predict sets share: what is known of interactions, and losses.

Losses are a value per example: callers add them up, so that they do not depend on how rows are dealt.


Letters: B examples, V labels.
Source: GAMENet (Shang et al., 2019), SafeDrug (Yang et al., 2021), NLA-MMR (Tan et al., 2024).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def interaction_matrix(tables: Mapping[str, np.ndarray], labels: int) -> np.ndarray | None:
    """Return which of so many labels interact by the relation `interaction`, (V, V) bool, symmetric.

    None where the data set does not tell.
    """
    if "interaction_pairs" not in tables:
        return None
    one_P, other_P = np.asarray(tables["interaction_pairs"]).reshape(-1, 2).T
    interaction_VV = np.zeros((labels, labels), bool)
    interaction_VV[one_P, other_P] = interaction_VV[other_P, one_P] = True
    return interaction_VV


def interaction_counts(tables: Mapping[str, np.ndarray], labels: int) -> np.ndarray | None:
    """Return how many examples of training hold both of two labels that interact, int64 (V, V), symmetric.

    0 where they do not interact; None where the data set does not tell.
    """
    if "interaction_together" not in tables:
        return None
    one_P, other_P = np.asarray(tables["interaction_pairs"]).reshape(-1, 2).T
    count_VV = np.zeros((labels, labels), np.int64)
    # A pair may stand there in both directions, with the same count.
    count_VV[one_P, other_P] = count_VV[other_P, one_P] = np.asarray(tables["interaction_together"])
    return count_VV


def interaction_severities(tables: Mapping[str, np.ndarray]) -> dict[tuple[int, int], str]:
    """Return how bad interactions are, in words, by their two labels, the smaller first; empty where it is not told."""
    if "interaction_values" not in tables:
        return {}
    words = json.loads(bytes(np.asarray(tables["interaction_values"])))
    pairs = np.sort(np.asarray(tables["interaction_pairs"]).reshape(-1, 2), 1).tolist()
    return {(one, other): word for (one, other), word in zip(pairs, words, strict=True) if word}


def bce(score_BV: Tensor, label_BV: Tensor) -> Tensor:
    """Return each example's binary cross entropy of logits, added up over labels, float32 (B,).

    The field's mean over examples and labels is the sum over B * V.
    """
    score_BV = score_BV.float()
    return binary_cross_entropy_with_logits(score_BV, label_BV.to(score_BV.dtype), reduction="none").sum(1)


def margin(probability_BV: Tensor, label_BV: Tensor) -> Tensor:
    """Return each example's multi-label margin loss of probabilities, float32 (B,).

    It is `torch.nn.functional.multilabel_margin_loss`: sum over labels j that hold and k that do not of
    max(0, 1 - (p_j - p_k)), over V. Probabilities differ by at most 1, so that no pair is ever beyond the margin and
    the sum over pairs is one over labels. The field's mean is over B.
    """
    probability_BV = probability_BV.float()
    label_BV = label_BV.to(probability_BV.dtype)
    holding_B, total_B = label_BV.sum(1), probability_BV.sum(1)
    others_B = label_BV.shape[1] - holding_B
    held_B = (probability_BV * label_BV).sum(1)
    return (holding_B * others_B - others_B * held_B + holding_B * (total_B - held_B)) / label_BV.shape[1]


def interaction_loss(probability_BV: Tensor, interaction_VV: Tensor) -> Tensor:
    """Return the expected number of interacting pairs in each example, sum over j < k of A_jk p_j p_k, (B,).

    `interaction_VV` is symmetric with nothing on its diagonal. Losses that add up ordered pairs are twice this.
    """
    probability_BV = probability_BV.float()
    return ((probability_BV @ interaction_VV.to(probability_BV.dtype)) * probability_BV).sum(1) / 2


def interacting_pairs(set_BV: Tensor, interaction_VV: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many pairs in each example's set interact, and how many pairs there are, float32 (B,) each."""
    set_BV = set_BV.float()
    size_B = set_BV.sum(1)
    return interaction_loss(set_BV, interaction_VV), size_B * (size_B - 1) / 2


def interaction_rate(set_BV: Tensor, interaction_VV: Tensor) -> Tensor:
    """Return the share of pairs in each example's set that interact, (B,); 0 where there is no pair."""
    interacting_B, pairs_B = interacting_pairs(set_BV, interaction_VV)
    return interacting_B / pairs_B.clamp(min=1)
