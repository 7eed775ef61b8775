"""Losses of sets of labels, as sums over examples.

Letters: B examples, V labels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def margins(probability_BV: Tensor, label_BV: Tensor) -> Tensor:
    """Return the sum over examples of the multi-label margin loss of probabilities.

    An example's is the sum over its labels j and the others k of max(0, 1 - (p_j - p_k)), divided by V. No difference
    of probabilities is above 1, so that nothing is ever cut off, and the double sum is one over labels:
    n m - m sum p_j + n sum p_k, with n labels and m others.
    """
    probability_BV = probability_BV.float()
    label_BV = label_BV.to(probability_BV.dtype)
    held_B, total_B = label_BV.sum(1), probability_BV.sum(1)
    other_B = label_BV.shape[1] - held_B
    own_B = (probability_BV * label_BV).sum(1)
    return ((held_B * other_B - other_B * own_B + held_B * (total_B - own_B)) / label_BV.shape[1]).sum()


def expected_pairs(probability_BV: Tensor, interaction_VV: Tensor) -> Tensor:
    """Return the expected number of interacting pairs in the sets of all examples, were labels independent."""
    probability_BV = probability_BV.float()
    return ((probability_BV @ interaction_VV) * probability_BV).sum() / 2


def pairs_given(probability_BV: Tensor, interaction_VV: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return how many pairs of given labels interact, and how many there are, over all examples."""
    given_BV = (probability_BV.detach() >= threshold).float()
    size_B = given_BV.sum(1)
    return ((given_BV @ interaction_VV) * given_BV).sum() / 2, (size_B * (size_B - 1) / 2).sum()


def accuracy_share(rate: float, target: float) -> float:
    """Return the share of accuracy in a loss whose rest is interactions: 1 up to the target, less above.

    Source: Yang et al. 2023 (MoleRec), equation 16.
    """
    return min(math.exp(2.5 * (1 - rate / target)), 1.0)


def cross_entropies(score_BV: Tensor, label_BV: Tensor) -> Tensor:
    """Return the sum over examples and labels of the binary cross entropy of scores."""
    score_BV = score_BV.float()
    return torch.nn.functional.binary_cross_entropy_with_logits(score_BV, label_BV.float(), reduction="sum")
