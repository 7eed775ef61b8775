"""Generated patients and foods: the truth is what it says."""

from pathlib import Path

import numpy as np

from rec.data.generated.food import CONDITIONS, NUTRIENTS, SEEN, FoodConfig, foods, shard_rows, suits
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from tests.conftest import food_config
from tests.support.own import quiet


def test_one_seed_gives_the_same_177_pairs(tmp_path: Path) -> None:
    config = FoodConfig(pairs=177)
    first, second = ([shard_rows(config, s)[1].to_pylist() for s in range(config.shards)] for _ in range(2))
    assert first == second
    assert sum(map(len, first)) == 177
    assert first != [shard_rows(FoodConfig(pairs=177, seed=1), s)[1].to_pylist() for s in range(config.shards)]
    data = prepare(food_config(tmp_path, read={"pairs": 177}), InProcess(), quiet)
    assert data.manifest["synthetic_labels"]
    assert data.manifest["counts"]["interactions"] + sum(data.manifest["dropped"].values()) == 177


def test_relevant_foods_suit_the_conditions_and_hold_nothing_to_avoid() -> None:
    config = FoodConfig(pairs=4000, users=200, foods=300)
    truth = foods(config)
    fit_IC = suits(truth.level_IN)
    gain, by_name = [], {c.name: n for n, c in enumerate(CONDITIONS)}
    for shard in range(config.shards):
        users, pairs = shard_rows(config, shard)
        people = {u["user"]: u for u in users.to_pylist()}
        allergens = ("peanut", "gluten", "milk", "egg", "fish", "soy")
        for pair in pairs.to_pylist():
            user, item = people[pair["user"]], int(pair["item"][1:]) - 1
            assert not set(user["avoid"]) & {a for a, x in zip(allergens, truth.contains_IA[item], strict=True) if x}
            column = fit_IC[:, by_name[user["group"]]]
            gain.append(column[item] - column.mean())
    assert np.mean(gain) > 0.15
    assert {c.nutrient for c in CONDITIONS} == set(NUTRIENTS) > set(SEEN)
