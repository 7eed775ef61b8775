"""Groups of users by how much of what they see is popular.

Source: MSMRec, section 5.4: I_pop = {i : count(i) / count(all) > share}; p_u = share of u's history in I_pop; three
bins of equal width between the smallest and the largest p_u, closed on the left.
"""

from __future__ import annotations

import numpy as np

NAMES = ("Niche", "Diverse", "Blockbuster")


def popular_items(item_count: np.ndarray, share: float) -> np.ndarray:
    """Return which items have more than `share` of all events, (I + 1,) bool."""
    popular: np.ndarray = item_count > share * item_count.sum()
    return popular


def popular_share(histories: list[np.ndarray], popular: np.ndarray) -> np.ndarray:
    """Return the share of each user's items that is popular, (U,)."""
    length = np.array([len(h) for h in histories])
    flat = popular[np.concatenate(histories)]
    starts = np.concatenate([[0], np.cumsum(length)[:-1]])
    return np.add.reduceat(flat.astype(np.float64), starts) / length


def groups(share: np.ndarray) -> np.ndarray:
    """Return each user's group: 0 Niche, 1 Diverse, 2 Blockbuster."""
    low, high = share.min(), share.max()
    edges = low + (high - low) * np.array([1, 2]) / 3
    found: np.ndarray = np.digitize(share, edges)
    return found
