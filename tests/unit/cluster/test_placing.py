"""Which node each worker is put on, and which workers share experts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.cluster.placing import assign, expert_groups


def test_two_nodes_with_room_for_three_get_a_pair_each() -> None:
    assert assign([3, 3], 4, 2) == [0, 0, 1, 1]


def test_what_is_left_over_is_used_where_nothing_else_is_there() -> None:
    assert assign([3, 1], 4, 2) == [0, 0, 0, 1]
    assert assign([1, 3, 2], 4, 2) == [1, 1, 2, 2]
    assert assign([1, 3, 2], 6, 2) == [1, 1, 1, 2, 2, 0]


def test_few_nodes_are_used() -> None:
    assert assign([2, 4, 4], 4, 2) == [1] * 4
    assert assign([2, 8, 4], 8, 1) == [1] * 8


def test_too_little_room_is_refused() -> None:
    with pytest.raises(ValueError, match="room for 3 workers, expected 4"):
        assign([2, 1], 4, 2)


def test_on_one_node_groups_are_consecutive_ranks() -> None:
    assert expert_groups([""] * 6, 2) == [[0, 1], [2, 3], [4, 5]]


def test_groups_lie_inside_nodes_whatever_the_order_of_ranks() -> None:
    assert expert_groups(["a", "b", "a", "b"], 2) == [[0, 2], [1, 3]]
    # Consecutive ranks would have two groups across: those of ranks 2 and 3, and of 4 and 5.
    assert expert_groups(["a", "a", "a", "b", "b", "c"], 2) == [[0, 1], [2, 5], [3, 4]]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 5), st.data())
def test_as_many_groups_lie_inside_nodes_as_can(rooms: list[int], size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(rooms) // size))
    nodes = assign(rooms, count * size, size)
    groups = expert_groups(nodes, size)
    assert all(nodes.count(node) <= room for node, room in enumerate(rooms))
    assert sorted(rank for group in groups for rank in group) == list(range(count * size))
    inside = sum(len({nodes[rank] for rank in group}) == 1 for group in groups)
    assert inside >= min(count, sum(room // size for room in rooms))
