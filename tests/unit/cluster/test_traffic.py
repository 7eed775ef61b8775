"""Bytes of a step between nodes, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.cluster.traffic import Mixture, StepTraffic, TableLookup, least, traffic

ROWS = Mixture(rows=100, choices=1, experts=2, width=10)


def test_a_sum_over_two_nodes_crosses_each_link_once_each_way() -> None:
    found = traffic(StepTraffic(dense=1000, zero_stage=0), (0, 1))
    assert found.kinds.keys() == {"gradients"}
    assert found.sent(0) == found.received(0) == 2 * (1 / 2) * 4 * 1000


def test_zero_gathers_weights_beside_the_sum() -> None:
    found = traffic(StepTraffic(dense=1000, zero_stage=1), (0, 1))
    assert found.sent(1, "weights") == 1 / 2 * 4 * 1000
    assert least(StepTraffic(dense=1000, zero_stage=1), (0, 1)).sent(1) == 2 * (1 / 2) * 4 * 1000


def test_sums_for_owners_alone_are_half_as_many_bytes() -> None:
    found = traffic(StepTraffic(dense=1000, owners_alone=True), (0, 1))
    assert found.sent(0, "gradients") == 1 / 2 * 4 * 1000
    assert found.crossing == least(StepTraffic(dense=1000), (0, 1)).crossing


def test_a_ring_crosses_between_nodes_once_where_ranks_of_a_node_follow_each_other() -> None:
    work = StepTraffic(dense=1000, zero_stage=0)
    near, far = traffic(work, (0, 0, 1, 1)), traffic(work, (0, 1, 0, 1))
    each = 2 * (3 / 4) * 4 * 1000
    assert (near.sent(0), near.inside(0)) == (each, each)
    assert (far.sent(0), far.inside(0)) == (2 * each, 0)


def test_rows_cross_where_ranks_on_two_nodes_share_experts() -> None:
    work = StepTraffic(dense=0, expert_parallel=2, mixtures=(ROWS,))
    found = traffic(work, (0, 1))
    rows, sent = 50, 10 * 4 + 2 + 4  # half of the rows go, with number and weight of an expert
    head = sent  # counts of two ranks and their experts: 32 bytes, in one row
    there, back = 9 / 8 * rows * sent + head, rows * 40
    again, home = rows * 40, rows * 44  # gradients
    assert found.sent(0) == pytest.approx(there + back + again + home)
    assert found.sent(0) == pytest.approx(found.received(0))
    assert least(work, (0, 1)).sent(0) == pytest.approx(rows * (sent + 40 + 40 + 44))
    assert traffic(work, (0, 0, 1, 1)).crossing == 0


def test_rows_that_two_experts_of_a_rank_want_go_once() -> None:
    assert Mixture(rows=1, choices=2, experts=4, width=1).share(2) == pytest.approx(1 - 1 / 6)
    assert Mixture(rows=1, choices=3, experts=4, width=1).share(2) == 1


def test_what_is_only_computed_brings_no_gradients_back() -> None:
    works = [
        StepTraffic(dense=0, expert_parallel=2, mixtures=(replace(ROWS, backward=back),)) for back in (True, False)
    ]
    whole, half = (traffic(work, (0, 1)) for work in works)
    assert half.crossing == pytest.approx(whole.crossing / 2, rel=0.2)


def test_a_lookup_asks_for_rows_that_come_and_sends_their_gradients() -> None:
    found = traffic(StepTraffic(dense=0, tables=(TableLookup(asked=100, width=5),)), (0, 1))
    assert found.sent(0) == 8 + 50 * 8 + 50 * 20 + 50 * 20


def test_rows_of_a_table_are_found_where_they_lie() -> None:
    table = TableLookup(asked=100, width=5, places=(0.6, 0.2, 0.1, 0.1))
    assert table.owners(2).tolist() == pytest.approx([0.8, 0.2])
    assert table.owners(8).tolist() == pytest.approx([0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
    found = traffic(StepTraffic(dense=0, tables=(table,)), (0, 1))
    assert found.sent(0) == 8 + 20 * 8 + 20 * 20 + 80 * 20
    assert found.received(0) == 8 + 80 * 8 + 80 * 20 + 20 * 20


def test_copies_of_experts_are_summed_over_the_ranks_that_hold_them() -> None:
    found = traffic(StepTraffic(dense=0, experts=1000, expert_parallel=2, zero_stage=0), (0, 0, 1, 1))
    assert found.sent(0, "expert gradients") == 2 * (2 * (1 / 2) * 4 * 500)


@given(
    nodes=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    stage=st.sampled_from([0, 1, 2]),
    size=st.sampled_from([1, 2, 4]),
)
def test_no_less_moves_than_has_to_and_all_that_is_sent_comes(nodes: list[int], stage: int, size: int) -> None:
    nodes = [sorted(set(nodes)).index(node) for node in nodes]
    mixture = Mixture(rows=64, choices=2, experts=4, width=16)
    tables = (TableLookup(asked=40, width=8),)
    work = StepTraffic(
        dense=900, experts=400, expert_parallel=size, zero_stage=stage, mixtures=(mixture,), tables=tables, sums=(8,)
    )
    found, must = traffic(work, nodes), least(work, nodes)
    assert must.crossing <= found.crossing + 1e-6
    places = range(max(nodes) + 1)
    assert sum(map(found.sent, places)) == pytest.approx(sum(map(found.received, places)))


def test_messages_cost_more_than_their_payload() -> None:
    one, four = (traffic(StepTraffic(dense=0, sums=(8,) * count), (0, 1)) for count in (1, 4))
    assert one.wire(0)[0] > one.sent(0) == 8
    assert four.wire(0)[0] == pytest.approx(4 * one.wire(0)[0])
