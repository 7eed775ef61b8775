"""From raw users, items and pairs to a prepared data set: splits, bad rows, going on after a stop."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rec.data.food import CONDITIONS, NUTRIENTS, SEEN, foods, shard_rows, suits
from rec.keys_pairs import FoodConfig, PairsConfig

from rec.data import encode
from rec.data.attributes import Attributes
from rec.data.encoders import Tokens, learn_tokenizer
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.errors import DataError, RequestError
from rec.keys import DataConfig
from tests.conftest import food_config
from tests.data.test_images import encoded


def quiet(_: str) -> None: ...


def pairs_of(data: Prepared, split: str) -> set[tuple[int, int]]:
    rows = data.rows(split)
    return {(u, i) for u, items in zip(*(rows[n].to_pylist() for n in ("user", "target")), strict=True) for i in items}


def test_splits_share_no_pair_and_cold_ones_are_in_no_training_pair(food: Prepared) -> None:
    parts = {split: pairs_of(food, split) for split in ("train", "val", "test")}
    assert len(set.union(*parts.values())) == sum(map(len, parts.values())) == food.manifest["counts"]["interactions"]
    users, items = ({p[n] for p in parts["train"]} for n in (0, 1))
    cold_users = {split: {u for u, _ in parts[split]} - users for split in ("val", "test")}
    cold_items = {split: {i for _, i in parts[split]} - items for split in ("val", "test")}
    for found in (cold_users, cold_items):
        assert found["val"]
        assert found["test"]
        assert not found["val"] & found["test"]
    count = np.asarray(food.array("item_count"))
    assert (count[list(cold_items["test"])] == 0).all()
    assert count.sum() == len(parts["train"])


def test_what_is_known_of_a_user_is_what_earlier_splits_hold(food: Prepared) -> None:
    train = pairs_of(food, "train")
    for row in food.rows("val").to_pylist():
        assert {(row["user"], i) for i in row["history"]} == {p for p in train if p[0] == row["user"]}
    assert all(row["history"] == [] for row in food.rows("train").to_pylist())


def test_tables_follow_the_items_they_are_of(food: Prepared) -> None:
    rows = food.items.to_pylist()
    tags = json.loads(bytes(food.array("tag_names")))
    for row in rows[::7]:
        inside = food.array("item_contains")[row["item"]]
        assert sorted(np.array(tags)[inside]) == sorted(row["contains"])
        assert food.array("item_present")[row["item"]].tolist()[:2] == [
            row["text"] is not None,
            row["image"] is not None,
        ]
    assert food.array("item_pixels").shape == (81, 16, 16, 3)
    absent = ~food.array("item_present")[:, 1]
    assert absent.any()
    assert not food.array("item_pixels")[absent].any()
    assert not food.array("item_image")[absent].any()


def test_one_seed_gives_the_same_177_pairs(tmp_path: Path) -> None:
    config = FoodConfig(pairs=177)
    first, second = ([shard_rows(config, s)[1].to_pylist() for s in range(config.shards)] for _ in range(2))
    assert first == second
    assert sum(map(len, first)) == 177
    assert first != [shard_rows(FoodConfig(pairs=177, seed=1), s)[1].to_pylist() for s in range(config.shards)]
    data = prepare(food_config(tmp_path, food={"pairs": 177}), InProcess(), quiet)
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


def own_tables(folder: Path, **item_changes: object) -> PairsConfig:
    """Write own tables of 12 users and 10 items with a picture each; changes replace columns of items."""
    items = pd.DataFrame({"sku": [f"i{n}" for n in range(10)], "words": [f"salt number {n}" for n in range(10)]})
    items["photo"] = [encoded() for _ in range(10)]
    for name, value in item_changes.items():
        items[name] = value
    items.to_parquet(folder / "items.parquet")
    users = pd.DataFrame({"who": [f"u{n}" for n in range(12)], "age": [20.0 + n for n in range(12)]})
    users.assign(sex=["f", "m"] * 6, story=["likes salt"] * 12).to_csv(folder / "users.csv", index=False)
    pairs = [(f"u{u}", f"i{(u + d) % 10}", 5) for u in range(12) for d in range(5)]
    pd.DataFrame(pairs, columns=["who", "sku", "stars"]).to_parquet(folder / "pairs.parquet")
    columns = {"user": "who", "item": "sku", "relevance": "stars", "item_text": ["words"], "image": "photo",
               "user_text": ["story"], "user_attributes": ["age", "sex"]}  # fmt: skip
    table = {"pairs": [f"{folder}/pairs.parquet"], "items": f"{folder}/items.parquet", "users": f"{folder}/users.csv"}
    image = {"size": 8, "thumbnail": 0}
    table |= {"columns": columns, "minimum_relevance": 4.0, "image": image, "shard_items": 4}
    return PairsConfig.model_validate(table)


def prepared(folder: Path, config: PairsConfig, say=quiet) -> Prepared:
    return prepare(DataConfig(root=str(folder / "data"), pairs=config), InProcess(), say)


def test_own_tables_are_prepared(tmp_path: Path) -> None:
    data = prepared(tmp_path, own_tables(tmp_path))
    assert data.manifest["counts"] == {"interactions": 60, "users": 12, "items": 10}
    assert data.items["id"].to_pylist() == [f"i{n}" for n in range(10)]
    assert data.array("user_attributes").shape == (12, 3)
    assert not data.manifest["synthetic_labels"]


def test_bad_rows_are_counted_told_and_survived(tmp_path: Path) -> None:
    photos = [encoded(), encoded()[:50], b"", "nowhere.jpg", encoded("CMYK"), None, *[encoded()] * 4]
    texts = ["", "x" * 1_000_000, None, *["salt"] * 7]
    (tmp_path / "there.jpg").write_bytes(encoded())
    photos[6:8] = ["there.jpg", f"file://{tmp_path}/there.jpg"]
    folder = tmp_path / "photos"
    folder.mkdir()
    with_paths = [p if isinstance(p, str) else None if p is None else f"photos/{n}" for n, p in enumerate(photos)]
    for n, p in enumerate(photos):
        if isinstance(p, bytes):
            (folder / str(n)).write_bytes(p)
    config = own_tables(tmp_path, photo=with_paths, words=texts).model_copy(update={"maximum_bad_share": 0.4})
    said: list[str] = []
    data = prepared(tmp_path, config, said.append)
    found = data.manifest["encoded"]["items"]
    assert found["bad"] == 3
    assert [row[0] for row in found["bad_rows"]] == ["i1", "i2", "i3"]
    assert found["notes"] == {"CMYK: converted": 1, "text cut at 20000 characters": 1, "text empty": 2}
    assert any("i3" in line and "nowhere.jpg" in line for line in said)
    assert data.array("item_present")[1:, 1].tolist() == [p not in (1, 2, 3, 5) for p in range(10)]
    listed = pd.read_csv(tmp_path / "data" / "bad_rows.csv")
    assert listed["item"].tolist() == ["i1", "i2", "i3"]


def test_too_many_bad_pictures_stop_with_the_first_row_named(tmp_path: Path) -> None:
    config = own_tables(tmp_path, photo=[b"junk"] * 5 + [encoded()] * 5)
    with pytest.raises(DataError, match=r"5 of 10 pictures are bad, at most 5.0% may be .* row 'i0', column 'photo'"):
        prepared(tmp_path, config)
    assert len(pd.read_csv(tmp_path / "data" / "bad_rows.csv")) == 5
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_unknown_ids_are_dropped_or_refused(tmp_path: Path) -> None:
    config = own_tables(tmp_path)
    pairs = pd.read_parquet(tmp_path / "pairs.parquet")
    pairs.loc[0, "who"] = "stranger"
    pairs.loc[1, "sku"] = None
    pairs.loc[2, "stars"] = 1
    pairs = pd.concat([pairs, pairs.tail(1)])
    pairs.to_parquet(tmp_path / "pairs.parquet")
    data = prepared(tmp_path, config)
    assert data.manifest["dropped"] == {
        "pair below minimum_relevance": 1, "pair twice": 1, "pair with unknown user": 1, "pair without user or item": 1
    }  # fmt: skip
    pairs["who"], pairs["sku"] = "u1", [f"i{n % 10}" for n in range(len(pairs) - 9)] + ["ghost"] * 9
    pairs["stars"] = 5
    pairs.to_parquet(tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match=r"name no known item, such as 'ghost'"):
        prepared(tmp_path, config.model_copy(update={"seed": 1}))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    config = own_tables(tmp_path)
    columns = config.columns.model_copy(update={"image": "picture"})
    with pytest.raises(DataError, match="no column 'picture'; there are sku, words, photo"):
        prepared(tmp_path, config.model_copy(update={"columns": columns}))


class Stops(Exception): ...


def test_what_is_encoded_is_not_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = own_tables(tmp_path)
    decoded: Counter[str] = Counter()
    original = encode.images.decode

    def counting(data: bytes, *rest: int) -> object:
        decoded["pictures"] += 1
        if decoded["pictures"] > 6 and not decoded["again"]:
            raise KeyboardInterrupt
        return original(data, *rest)

    monkeypatch.setattr(encode.images, "decode", counting)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, config)
    decoded["again"], decoded["pictures"] = 1, 0
    said: list[str] = []
    data = prepared(tmp_path, config, said.append)
    assert decoded["pictures"] == 6  # the first shard of four was whole
    assert "items: 1 of 3 shards had been encoded before" in said
    assert data.array("item_present")[1:, 1].all()


def test_attributes_are_fitted_once_and_refuse_what_they_do_not_know() -> None:
    frame = pd.DataFrame({"age": [20.0, 40.0, None], "sex": ["f", "m", None]})
    fitted = Attributes.fit(frame, ["age", "sex"])
    number, known = fitted.encode(frame)
    assert number.tolist() == [[-1, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert known.tolist() == [True, True, False]
    again = Attributes.from_json(fitted.to_json())
    assert again.encode_one({"age": 60})[0].tolist() == [3, 0, 0]
    for given, text in (
        ({"sex": "x"}, "expected one of f, m"),
        ({"size": 1}, "known: age, sex"),
        ({"age": "old"}, "number"),
    ):
        with pytest.raises(RequestError, match=text):
            again.encode_one(given)


def test_the_same_texts_give_the_same_tokenizer_and_unknown_words_are_spelt() -> None:
    texts = [f"likes salt number {n}" for n in range(10)] * 2
    first = learn_tokenizer(texts, 60)
    assert all(learn_tokenizer(texts, 60) == first for _ in range(5))
    tokens = Tokens(first, 12)
    assert tokens.tokenizer.encode("Salt lake").tokens[:7] == ["[CLS]", "salt", "l", "##a", "##k", "##e", "[SEP]"]
    assert tokens.encode(["salt", ""])[:, 0].tolist() == [2, 2]
