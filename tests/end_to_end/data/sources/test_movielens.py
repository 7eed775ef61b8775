"""MovieLens in every form that GroupLens publishes it in."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.errors import DataError
from rec.evaluation.tasks.ranking.popularity_groups import groups, popular_items, popular_share
from tests.support.own import prepared

SOURCE = "rec.data.sources.movielens:MovieLens"
ROWS = [(1, 10, 5, 100), (1, 11, 4, 100), (1, 12, 4, 90), (1, 13, 3, 200), (2, 10, 2, 5)]


def release(folder: Path, ratings: str, text: str) -> Path:
    """Write ratings with the films of ML-100K's form beside them."""
    folder.mkdir()
    (folder / ratings).write_text(text)
    (folder / "u.item").write_bytes(
        "".join(
            f"{i}|Caf\xe9 {i} (1990)|01-Jan-1990||url|{'|'.join('1' if g == 1 else '0' for g in range(19))}\n"
            for i in range(10, 14)
        ).encode("latin-1")
    )
    return folder


def lines(between: str) -> str:
    return "".join(between.join(map(str, row)) + "\n" for row in ROWS)


def test_every_form_of_ratings_and_the_archive_give_the_same(tmp_path: Path) -> None:
    forms = {
        "u.data": lines("\t"),
        "ratings.dat": lines("::"),
        "ratings.csv": "userId,movieId,rating,timestamp\n" + lines(","),
    }
    places = [release(tmp_path / name.replace(".", "-"), name, text) for name, text in forms.items()]
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        for name in ("u.data", "u.item"):
            archive.write(places[0] / name, f"ml-100k/{name}")
    results = []
    for place in (*places, tmp_path / "ml.zip"):
        read = {"folder": str(place)}
        data = prepared(tmp_path / "out" / place.name, {"source": SOURCE, "read": read}, view="sequences")
        results.append((data.rows("test").to_pylist(), data.items.to_pylist()))
    assert results[0][0] == [{"user": 0, "history": [3, 1, 2], "target": 4}]
    assert results[0][1][0]["title"] == "Café 10"
    assert (results[0][1][0]["year"], results[0][1][0]["genres"]) == ("1990", "Action")
    assert all(result == results[0] for result in results)


def test_users_are_told_by_age_gender_and_occupation(tmp_path: Path) -> None:
    folder = release(tmp_path / "ml", "u.data", lines("\t"))
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|01913\n")
    data = prepared(tmp_path / "out", {"source": SOURCE, "read": {"folder": str(folder)}})
    assert data.users.to_pylist()[0] | {"user": 0} == {
        "user": 0, "id": "1", "age": 24, "gender": "M", "occupation": "technician", "group": "technician",
        "text": "A 24 year old man, technician",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("read", "words"),
    [
        ({"folder": "nowhere"}, "nowhere: no such file or folder"),
        ({"folder": "."}, r"no MovieLens ratings here; expected one of u.data, ratings.dat, ratings.csv"),
        ({"folder": "ml", "posters": "nowhere"}, "data.read.posters: /.*/nowhere: no such folder"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: dict[str, Any], words: str
) -> None:
    release(tmp_path / "ml", "u.data", lines("\t"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if read["folder"] == "." else tmp_path)
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "out", {"source": SOURCE, "read": read})


@pytest.mark.data
def test_movielens_100k_counts(movielens: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, {"source": SOURCE, "read": {"folder": str(movielens / "ml-100k")}}, view="sequences")
    counts = data.manifest["counts"]
    assert [counts[name] for name in ("interactions_read", "interactions", "users", "items")] == [
        100_000,
        100_000,
        943,
        1682,
    ]
    written = [line.split() for line in (movielens / "ml-100k" / "ml-100k.txt").read_text().splitlines()]
    expected: dict[int, list[int]] = {}
    for user, item in written:
        expected.setdefault(int(user), []).append(int(item))
    for row in data.rows("test").to_pylist():
        assert [*row["history"], row["target"]] == expected[row["user"] + 1]
    # The specification's table of groups: share, popular items, their share of events, Niche / Diverse / Blockbuster.
    total, histories = np.asarray(data.array("item_total")), [np.array(items) for items in expected.values()]
    for share, items, events, users in ((0.001, 334, 0.644, [42, 514, 387]), (0.0015, 201, 0.480, [115, 615, 213])):
        popular = popular_items(total, share)
        assert popular.sum() == items
        assert total[popular].sum() / total.sum() == pytest.approx(events, abs=5e-4)
        assert np.bincount(groups(popular_share(histories, popular))).tolist() == users


@pytest.mark.data
def test_movielens_comes_with_overviews_and_posters(movielens: Path, tmp_path: Path) -> None:
    read = {"folder": str(movielens / "ml-100k"), "posters": str(movielens / "posters_ml100k")}
    sections = {
        "source": SOURCE, "read": read | {"texts": [str(movielens / "ml100k_posters_items.csv")]},
        "filter": {"minimum_rating": 4.0, "unseen": ["user", "item"]}, "split": {"protocol": "ratio"},
        "encode": {"image": {"size": 16, "thumbnail": 0}},
    }  # fmt: skip
    data = prepared(tmp_path, sections)
    assert (data.num_users, data.num_items) == (943, 1682)
    assert data.manifest["counts"]["interactions"] == 55_375
    assert data.manifest["encoded"]["items"]["pictures"] == 1663
    assert data.array("item_attributes").shape == (1683, 1)  # years are numbers
    toy = data.items.to_pylist()[0]
    assert toy["title"].startswith("Toy Story")
    assert "Andy" in toy["text"]
