"""Groups of subjects by hand."""

import numpy as np

from rec.evaluation.tasks.ranking.popularity_groups import groups, popular_items, popular_share


def test_groups_are_bins_of_equal_width_closed_on_the_left() -> None:
    assert groups(np.array([0.0, 0.29, 0.3, 0.59, 0.6, 0.9])).tolist() == [0, 0, 1, 1, 2, 2]
    popular = popular_items(np.array([0, 5, 1, 4]), 0.3)
    assert popular.tolist() == [False, True, False, True]
    histories = [np.array([1, 3]), np.array([2]), np.array([1, 2, 3, 2])]
    assert popular_share(histories, popular).tolist() == [1.0, 0.0, 0.5]
