"""Texts, pictures and attributes as numbers: tables that follow their items, bad rows, going on after a stop."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rec.data import encode
from rec.data.prepared import Prepared
from rec.errors import ConfigError, DataError
from tests.support.own import own_tables, prepared
from tests.unit.data.test_images import encoded


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
    sections = own_tables(tmp_path, photo=with_paths, words=texts, maximum_bad_share=0.4)
    said: list[str] = []
    data = prepared(tmp_path / "data", sections, said.append)
    found = data.manifest["encoded"]["items"]
    assert found["bad"] == 3
    assert [row[0] for row in found["bad_rows"]] == ["i1", "i2", "i3"]
    assert found["notes"] == {"CMYK: converted": 1, "text cut at 20000 characters": 1, "text empty": 2}
    assert any("i3" in line and "nowhere.jpg" in line for line in said)
    assert data.array("item_present")[1:, 1].tolist() == [p not in (1, 2, 3, 5) for p in range(10)]
    listed = pd.read_csv(tmp_path / "data" / "bad_items.csv")
    assert listed["item"].tolist() == ["i1", "i2", "i3"]


def test_too_many_bad_pictures_stop_with_the_first_row_named(tmp_path: Path) -> None:
    sections = own_tables(tmp_path, photo=[b"junk"] * 5 + [encoded()] * 5)
    with pytest.raises(DataError, match=r"5 of 10 pictures are bad, at most 5.0% may be .* id 'i0', column 'photo'"):
        prepared(tmp_path / "data", sections)
    assert len(pd.read_csv(tmp_path / "data" / "bad_items.csv")) == 5
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_what_is_encoded_is_not_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = own_tables(tmp_path)
    decoded: Counter[str] = Counter()
    original = encode.images.decode

    def counting(data: bytes, *rest: int) -> object:
        decoded["pictures"] += 1
        if decoded["pictures"] > 6 and not decoded["again"]:
            raise KeyboardInterrupt
        return original(data, *rest)

    monkeypatch.setattr(encode.images, "decode", counting)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "data", sections)
    decoded["again"], decoded["pictures"] = 1, 0
    said: list[str] = []
    data = prepared(tmp_path / "data", sections, said.append)
    assert decoded["pictures"] == 5  # the first of two shards was whole
    assert "items: 1 of 2 shards had been encoded before" in said
    assert data.array("item_present")[1:, 1].all()


@pytest.mark.parametrize("text", [{}, {"encoder": "", "tokenizer": ""}])
def test_without_texts_pictures_and_attributes_are_encoded(tmp_path: Path, text: dict[str, str]) -> None:
    sections = own_tables(tmp_path, columns={"item_text": [], "user_text": []}, text=text)
    data = prepared(tmp_path / "data", sections)
    assert data.holds("item_pixels")
    assert data.array("user_attributes").shape == (12, 3)
    assert not any(data.holds(name) for name in ("tokenizer", "item_tokens", "user_tokens", "item_text"))


@pytest.mark.parametrize("text", [{"encoder": "tfidf"}, {"tokenizer": "some/model"}])
def test_keys_of_texts_without_texts_are_refused(tmp_path: Path, text: dict[str, str]) -> None:
    sections = own_tables(tmp_path, columns={"item_text": [], "user_text": []}, text=text)
    with pytest.raises(ConfigError, match=r"data.encode.text: has no effect: .* brings no texts here"):
        prepared(tmp_path / "data", sections)


def test_texts_that_know_nothing_are_said(tmp_path: Path) -> None:
    words = ["salt"] * 7 + ["", None, " "]
    sections = own_tables(tmp_path, words=words) | {
        "text": {"modalities": ["words", "acting", "narrative"], "width": 4}
    }
    del sections["encode"]
    said: list[str] = []
    prepared(tmp_path / "data", sections, said.append)
    told = [line for line in said if line.startswith("items: text")]
    assert told == [
        "items: text 'words': nothing is known of 3 of 10, which have no such text",
        "items: text 'acting': nothing is known of 10 of 10, which have no such text; leave it out of "
        "data.text.modalities",
        "items: text 'narrative': nothing is known of 10 of 10, which have no such text; leave it out of "
        "data.text.modalities",
    ]
