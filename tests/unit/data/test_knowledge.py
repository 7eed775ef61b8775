"""Texts of users and items in one space: what they name, what they keep to themselves, and their vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rec.data.prepared import Prepared
from tests.support.own import prepared


def films(folder: Path, **text: Any) -> dict[str, Any]:
    """Write seven ratings each of two users, and films of which one has no row; return the sections of [data]."""
    rows = [(user, f"i{(n * step) % 7}", 1 + n % 5, n) for user, step in (("a", 1), ("b", 3)) for n in range(7)]
    pd.DataFrame(rows, columns=["user", "item", "rating", "time"]).to_csv(folder / "events.csv", index=False)
    names = ["Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta"]
    items = pd.DataFrame({"item": [f"i{n}" for n in range(6)], "title": names, "genres": ["War", "Drama"] * 3})
    items.to_csv(folder / "items.csv", index=False)
    pd.DataFrame({"user": ["a", "b"], "age": [20, 30], "job": ["cook", "pilot"]}).to_csv(folder / "u.csv", index=False)
    columns = {"rating": "rating", "time": "time", "title": "title", "user_attributes": ["age", "job"]}
    read = {"records": [f"{folder}/events.csv"], "items": f"{folder}/items.csv", "users": f"{folder}/u.csv"}
    return {
        "read": read | {"columns": columns, "keep": ["genres"]},
        "text": {"modalities": ["title", "genres"], "encoder": "hashing", "width": 512, "user_items": 3} | text,
    }


def close(data: Prepared, name: str, row: int, text: str) -> bool:
    """Return whether a vector is that of a text."""
    from rec.data.encoders import Hashing

    return bool(np.allclose(data.array(name)[row], Hashing(512).encode([text])[0], atol=1e-6))


def test_a_user_text_names_the_first_items_of_training_with_their_ratings(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", films(tmp_path), view="sequences")
    text = (
        'age 20, job cook; history over time: "Alpha" (War), 1 stars; "Beta" (Drama), 2 stars; "Gamma" (War), 3 stars'
    )
    assert close(data, "knowledge_user", 0, text)
    assert data.array("knowledge_told").tolist() == [3, 3]


def test_texts_may_have_the_names_of_facts(tmp_path: Path) -> None:
    """A text "name" beside the column "title", a text "poster" beside the address of one: both are written."""
    sections = films(tmp_path, modalities=["name", "poster"])
    items = pd.read_csv(tmp_path / "items.csv").assign(poster_url="http://posters/1.jpg")
    items.to_csv(tmp_path / "items.csv", index=False)
    sections["read"]["keep"] = ["genres", "poster_url"]
    sections["modalities"] = {"templates": {"name": "of {genres}", "poster": "{title} at {poster_url}"}}
    data = prepared(tmp_path / "out", sections, view="sequences")
    assert data.items["name"].to_pylist()[0] == "of War"
    assert data.items["poster"].to_pylist()[0] == "Alpha at http://posters/1.jpg"
    assert close(data, "knowledge_item", 1, "of War Alpha at http://posters/1.jpg")
    assert data.array("knowledge_told").tolist() == [3, 3]


def test_no_text_names_what_validation_and_test_are_to_find(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", films(tmp_path, user_items=30), view="sequences")
    # Of a's seven records the sixth is of validation and the seventh of test.
    assert data.array("knowledge_told").tolist() == [5, 5]
    seen = "; ".join(
        f'"{title}" ({genre}), {stars} stars'
        for title, genre, stars in (
            ("Alpha", "War", 1), ("Beta", "Drama", 2), ("Gamma", "War", 3), ("Delta", "Drama", 4), ("Epsilon", "War", 5)
        )
    )  # fmt: skip
    assert close(data, "knowledge_user", 0, f"age 20, job cook; history over time: {seen}")


def test_an_item_text_is_all_its_texts_and_padding_and_unknown_items_are_zero(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", films(tmp_path), view="sequences")
    assert close(data, "knowledge_item", 2, "Beta Drama")
    assert (data.array("knowledge_item")[[0, 7]] == 0).all()


@pytest.mark.parametrize("encoder", ["tfidf", "hashing"])
def test_both_lie_in_one_space(encoder: str, tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", films(tmp_path, encoder=encoder, width=16), view="sequences")
    assert data.array("knowledge_item").shape == (8, 16)
    assert data.array("knowledge_user").shape == (2, 16)


def test_without_the_key_nothing_is_written(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", films(tmp_path, user_items=0), view="sequences")
    assert not data.holds("knowledge_user")
    assert not data.holds("knowledge_item")
