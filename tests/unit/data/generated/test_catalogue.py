"""The generated catalogue: how its best items are found, and what users follow."""

import numpy as np
import pytest

from rec.data.generated.catalogue import CatalogueConfig, best_first, catalogue, shard_tables


def slow(value_RI: np.ndarray, most: int) -> np.ndarray:
    """Return what sorting all of a row's places finds."""
    some = np.argpartition(-value_RI, most - 1, axis=1)[:, :most]
    return np.take_along_axis(some, np.argsort(-np.take_along_axis(value_RI, some, 1), axis=1), 1)


@pytest.mark.parametrize("most", [1, 7, 40])
@pytest.mark.parametrize("kinds", [3, 50, 1_000_000])
def test_the_best_are_those_of_the_whole_row_also_where_values_are_equal(
    rng: np.random.Generator, most: int, kinds: int
) -> None:
    value = rng.integers(0, kinds, (200, 40)).astype(np.float32)
    value[rng.random(value.shape) < 0.1] = -np.inf
    assert best_first(value, most).tolist() == slow(value, most).tolist()


def test_places_are_by_value_where_all_differ(rng: np.random.Generator) -> None:
    value = rng.permuted(np.arange(60, dtype=np.float32).reshape(1, -1).repeat(5, 0), axis=1)
    best = best_first(value, 10)
    assert np.take_along_axis(value, best, 1).tolist() == [list(range(59, 49, -1))] * 5


def test_users_who_switch_choose_by_other_modalities_from_the_middle_on() -> None:
    config = CatalogueConfig(interactions=20_000, users=400, items=400, topics=4, switch=0.5)
    tables = [shard_tables(config, shard) for shard in range(config.shards)]
    topic_IK, agreed = catalogue(config).topic_IK, []
    switched = 0
    for table in tables:
        items = {u: [] for u in table["users"]["user"].to_pylist()}
        for user, item in zip(*(table["events"][name].to_pylist() for name in ("user", "item")), strict=True):
            items[user].append(int(item[1:]) - 1)
        for user in table["users"].to_pylist():
            first, later = (np.array(user[name], bool) for name in ("followed", "followed_later"))
            if (first == later).all():
                continue
            assert first.sum() == later.sum()
            assert not (first & later).any()
            switched += 1
            history = topic_IK[items[user["user"]]]
            half = len(history) // 2
            alike = [_alike(part) for part in (history[:half], history[half:])]
            agreed.append(
                [alike[0][first].mean() - alike[1][first].mean(), alike[1][later].mean() - alike[0][later].mean()]
            )
    assert switched == pytest.approx(200, abs=40)
    assert (np.mean(agreed, axis=0) > 0.15).all()


def _alike(topic_NK: np.ndarray) -> np.ndarray:
    """The share of pairs with the same topic, of each modality."""
    pairs = len(topic_NK) * (len(topic_NK) - 1)
    return ((topic_NK[:, None] == topic_NK[None]).sum((0, 1)) - len(topic_NK)) / pairs


def test_without_switches_nothing_is_told_of_them_and_nothing_changes() -> None:
    config = CatalogueConfig(interactions=2_000)
    tables = shard_tables(config, 0)
    assert tables["users"].column_names == ["user", "followed"]
    assert shard_tables(config.model_copy(update={"switch": 1e-9}), 0)["events"].equals(tables["events"])
