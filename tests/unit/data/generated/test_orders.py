"""Generated groups with orders of topics: the truth is what it says."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from rec.data.generated.orders import FOLLOW, OPENERS, OrdersConfig, following, openers, shard_tables, topic_of

CONFIG = OrdersConfig(interactions=40_000, events=40, items=203, topics=20, groups=5)


def drawn() -> tuple[list[np.ndarray], np.ndarray]:
    """Return the items (from 0) of each user, and the groups."""
    tables = [shard_tables(CONFIG, shard) for shard in range(CONFIG.shards)]
    events = pa.concat_tables(table["events"] for table in tables).to_pandas()
    items = [rows["item"].str[1:].astype(int).to_numpy() - 1 for _, rows in events.groupby("user", sort=False)]
    assert all((rows["time"].to_numpy() == np.arange(len(rows))).all() for _, rows in events.groupby("user"))
    groups = [table["users"]["group"].to_pylist() for table in tables]
    return items, np.array([int(name.split()[1]) for part in groups for name in part])


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
    items, group_U = drawn()
    lengths = [len(row) for row in items]
    assert (len(items), min(lengths), max(lengths)) == (1000, 20, 60)
    assert abs(np.mean(lengths) - 40) < 2
    assert all(len(set(row.tolist())) == len(row) for row in items)
    opener_GO = openers(CONFIG)
    assert len(set(opener_GO.ravel().tolist())) == CONFIG.groups * OPENERS
    assert all(row[0] in opener_GO[group] for row, group in zip(items, group_U, strict=True))
    next_GT = following(CONFIG)

    def followed(apart: int) -> np.ndarray:
        """Return whether each further item is the one that the order of a user's, or of another, group asks for."""
        pairs = zip(items, (group_U + apart) % CONFIG.groups, strict=True)
        topics = [(topic_of(row, CONFIG), group) for row, group in pairs]
        return np.concatenate([next_GT[group, topic[:-1]] == topic[1:] for topic, group in topics])

    follows = followed(0)
    expected = FOLLOW + (1 - FOLLOW) / CONFIG.topics
    assert abs(follows.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / follows.size)
    assert followed(1).mean() < 0.2


def test_one_seed_gives_the_same_and_every_item_occurs() -> None:
    assert shard_tables(CONFIG, 3)["events"].equals(shard_tables(CONFIG, 3)["events"])
    assert len(np.unique(np.concatenate(drawn()[0]))) == CONFIG.items


@pytest.mark.parametrize(
    ("keys", "error"),
    [({"items": 100, "events": 40}, "items: expected at least twice"), ({"items": 100, "groups": 30}, "openers each")],
)
def test_what_cannot_be_drawn_is_refused(keys: dict[str, int], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        OrdersConfig(**{"events": 20, "topics": 10} | keys)


def test_topics_with_one_item_less_have_no_item_of_another_topic() -> None:
    config = OrdersConfig(interactions=40_000, events=60, items=199, topics=95, groups=5)
    events = [shard_tables(config, shard)["events"]["item"] for shard in range(config.shards)]
    taken = np.concatenate([names.to_numpy(zero_copy_only=False) for names in events])
    names, counts = np.unique(taken, return_counts=True)
    assert len(names) == config.items
    # It stood in the place of every item that a topic lacks: taken three times as often as the mean.
    assert counts[names == f"i{config.items}"][0] < 1.5 * counts.mean()
