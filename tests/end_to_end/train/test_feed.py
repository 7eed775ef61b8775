"""What a rank is fed in evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rec.config import RunConfig
from rec.data.prepared import Prepared
from rec.data.stream import CachedReader
from rec.train.feed import PlannedFeed
from rec.train.job import build

Make = Callable[..., RunConfig]


def users(config: RunConfig, data: Prepared, share: float, world_size: int = 1) -> list[int]:
    """Return the users of validation in the order in which all ranks together see them."""
    system = build(config, data)
    steps = []
    for rank in range(world_size):
        reader = CachedReader(data.storage, system.columns)
        feed = PlannedFeed(data, system, config.train, reader, rank, world_size)
        steps.append([b.user_B.tolist() if counts else [] for b, counts in feed.evaluate("val", share)])
    assert len({len(ranks) for ranks in steps}) == 1
    return [user for step in zip(*steps, strict=True) for part in step for user in part]


def test_a_share_is_drawn_once_and_does_not_depend_on_ranks(run_config: Make, planted: Prepared) -> None:
    config = run_config(train={"evaluate_batch_size": 20})
    whole = users(config, planted, 1.0)
    some = users(config, planted, 0.25)
    assert len(some) == round(0.25 * len(whole))
    assert some == [user for user in whole if user in set(some)]
    assert users(config, planted, 0.25, world_size=3) == some
    assert users(run_config(train={"seed": 1}), planted, 0.25) != some
    assert len(users(config, planted, 1e-9)) == 1


def test_validation_in_training_measures_the_share(run_config: Make, tmp_path) -> None:
    from rec.train.job import train_here

    found = []
    for share in (1.0, 0.1):
        config = run_config(out=str(tmp_path / str(share)), train={"epochs": 1, "validation_share": share})
        record = train_here(config, lambda _: None, lambda _: None).history[-1]
        found.append(record["hit@100"] * 301)
    assert found[0] == pytest.approx(round(found[0]))  # a count over 301 users
    assert found[1] / 301 * 30 == pytest.approx(round(found[1] / 301 * 30))  # over 30
