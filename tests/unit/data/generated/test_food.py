"""Generated patients and foods: the truth is what it says."""

from pathlib import Path

import numpy as np

from rec.data.attributes import Attributes
from rec.data.generated.food import (
    CONDITIONS,
    CUISINES,
    NUTRIENTS,
    SEEN,
    TOLD_OF_ITEMS,
    TOLD_OF_USERS,
    FoodConfig,
    foods,
    rules,
    shard_rows,
    suits,
)
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


def test_patients_of_one_condition_contradict_each_other_across_guidelines() -> None:
    plain, several = (FoodConfig(pairs=4000, users=400, foods=300, guidelines=g) for g in (1, 6))
    order_GC = rules(several)
    assert order_GC[0].tolist() == list(range(len(CONDITIONS)))
    assert all(sorted(row) == list(range(len(CONDITIONS))) for row in order_GC.tolist())
    assert (order_GC[1:] == order_GC[0]).mean() < 0.3
    fit_IC = suits(foods(several).level_IN)
    own, usual, kept = list[float](), list[float](), set[int]()
    for shard in range(several.shards):
        users, pairs = shard_rows(several, shard)
        people = {u["user"]: u for u in users.to_pylist()}
        assert users.drop_columns(["text", "truth", "needs_image"]).equals(
            shard_rows(plain, shard)[0].drop_columns(["text", "truth", "needs_image"])
        )
        for pair in pairs.to_pylist():
            user, item = people[pair["user"]], int(pair["item"][1:]) - 1
            if user["text"] is None:
                continue
            guideline = int(user["text"].rstrip(".").rsplit(" ", 1)[1])
            condition = next(n for n, c in enumerate(CONDITIONS) if c.name == user["group"])
            kept.add(guideline)
            if guideline:
                rule = order_GC[guideline, condition]
                own.append(fit_IC[item, rule] - fit_IC[:, rule].mean())
                usual.append(fit_IC[item, condition] - fit_IC[:, condition].mean())
    assert kept == set(range(6))
    assert np.mean(own) > 0.12
    assert abs(np.mean(usual)) < 0.06


def test_attributes_tell_all_where_they_are_to(tmp_path: Path) -> None:
    config = food_config(tmp_path, read={"pairs": 500, "guidelines": 3, "told": True})
    data = prepare(config, InProcess(), quiet)
    for name, told in (("user", TOLD_OF_USERS), ("item", TOLD_OF_ITEMS)):
        assert set(told) <= {
            column.name
            for column in Attributes.from_json(data.array(f"{name}_attribute_names").tobytes().decode()).columns
        }
    assert data.array("item_attributes").shape[1] == 1 + len(CUISINES) + len(NUTRIENTS)
