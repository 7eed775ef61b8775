"""Which items a model writes of: those that are little known, or of which little is told."""

from __future__ import annotations

import numpy as np

from rec.data.modalities.config import SelectConfig


def takes_all(config: SelectConfig) -> bool:
    """Return whether all items are chosen, whatever they are."""
    return config.share == 1 and config.most_interactions is None and config.most_characters is None


def selected(count_I: np.ndarray, characters_I: np.ndarray, config: SelectConfig) -> np.ndarray:
    """Return which items are written by a model.

    Shapes: I items.

    Args:
        count_I: Records of training of each.
        characters_I: Characters of each one's metadata.
        config: Thresholds and the largest share.
    """
    thresholds = [(count_I, config.most_interactions), (characters_I, config.most_characters)]
    below = [value_I <= most for value_I, most in thresholds if most is not None]
    gains_I = np.logical_or.reduce(below) if below else np.ones(len(count_I), bool)
    most = int(config.share * len(count_I) + 1e-9)
    first = np.lexsort((np.arange(len(count_I)), characters_I, count_I, ~gains_I))[:most]
    found_I = np.zeros(len(count_I), bool)
    found_I[first] = True
    return found_I & gains_I
