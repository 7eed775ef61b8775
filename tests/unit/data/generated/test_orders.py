"""Generated groups with orders of topics: the truth is what it says."""

import numpy as np
import pytest
from pydantic import ValidationError

from rec.data.generated.orders import FOLLOW, OPENERS, OrdersConfig, following, openers, shard_tables, topic_of

CONFIG = OrdersConfig(interactions=40_000, events=40, items=203, topics=20, groups=5)


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Return the items (from 0) and the group of each user."""
    tables = [shard_tables(CONFIG, shard) for shard in range(CONFIG.shards)]
    items = [table["events"]["item"].to_pylist() for table in tables]
    groups = [table["users"]["group"].to_pylist() for table in tables]
    item_UL = np.array([int(name[1:]) - 1 for part in items for name in part]).reshape(-1, CONFIG.events)
    return item_UL, np.array([int(name.split()[1]) for part in groups for name in part])


def test_each_group_goes_through_all_topics_in_an_order_of_its_own() -> None:
    next_GT = following(CONFIG)
    for next_T in next_GT:
        seen, at = [], 0
        for _ in range(CONFIG.topics):
            seen.append(at)
            at = int(next_T[at])
        assert sorted(seen) == list(range(CONFIG.topics))
    same = [(a == b).mean() for n, a in enumerate(next_GT) for b in next_GT[:n]]
    assert np.mean(same) < 3 / CONFIG.topics


def test_users_begin_with_an_opener_and_follow_their_groups_order() -> None:
    item_UL, group_U = drawn()
    assert item_UL.shape == (1000, 40)
    assert all(len(set(row)) == 40 for row in item_UL.tolist())
    opener_GO = openers(CONFIG)
    assert len(set(opener_GO.ravel().tolist())) == CONFIG.groups * OPENERS
    assert (opener_GO[group_U] == item_UL[:, :1]).any(1).all()
    topic_UL, next_GT = topic_of(item_UL, CONFIG), following(CONFIG)
    follows = next_GT[group_U[:, None], topic_UL[:, :-1]] == topic_UL[:, 1:]
    expected = FOLLOW + (1 - FOLLOW) / CONFIG.topics
    assert abs(follows.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / follows.size)
    another = next_GT[(group_U[:, None] + 1) % CONFIG.groups, topic_UL[:, :-1]] == topic_UL[:, 1:]
    assert another.mean() < 0.2


def test_one_seed_gives_the_same_and_every_item_occurs() -> None:
    assert shard_tables(CONFIG, 3)["events"].equals(shard_tables(CONFIG, 3)["events"])
    assert len(np.unique(drawn()[0])) == CONFIG.items


@pytest.mark.parametrize(
    ("keys", "error"),
    [({"items": 100, "events": 60}, "items: expected at least twice"), ({"items": 100, "groups": 30}, "openers each")],
)
def test_what_cannot_be_drawn_is_refused(keys: dict[str, int], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        OrdersConfig(**{"events": 20, "topics": 10} | keys)
