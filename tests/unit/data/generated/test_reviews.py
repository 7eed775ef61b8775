"""Generated reviews: what is planted is what is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.data.generated.reviews import PlantedReviewsConfig, planted, shard_tables
from rec.data.generated.words import made_up
from rec.data.prepared import Prepared
from tests.support.own import prepared

SOURCE = "rec.data.generated.reviews:PlantedReviews"


def made(root: Path, **read: Any) -> Prepared:
    sections = {"source": SOURCE, "read": {"reviews": 2000, **read}, "split": {"protocol": "warm", "test": 0.1}}
    return prepared(root, sections, view="sentences")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return made(tmp_path_factory.mktemp("reviews"), clusters=4, words=50)


def test_counts_are_those_that_are_asked_for_and_pairs_meet_once(data: Prepared) -> None:
    table = data.records().to_pandas()
    assert 1900 <= len(table) <= 2000
    assert not table[["user", "item"]].duplicated().any()
    assert data.num_users == 100
    assert 95 <= data.num_items <= 100
    assert np.bincount(table["user"]).min() >= 2
    assert [data.split_rows(split) for split in ("val", "test")] == [round(0.1 * len(table))] * 2
    assert data.manifest["generated"]


@pytest.mark.parametrize(("read", "fewer"), [({}, True), ({"items": 3, "users": 100}, True), ({"items": 1900}, False)])
def test_fewer_reviews_than_were_asked_for_are_explained(read: dict[str, Any], fewer: bool, tmp_path: Path) -> None:
    said: list[str] = []
    sections = {"source": SOURCE, "read": {"reviews": 1000, "words": 20, **read}, "split": {"protocol": "warm"}}
    data = prepared(tmp_path, sections, said.append)
    count = data.manifest["counts"]["interactions_read"]
    told = [
        line for line in said if line.startswith(f"generated reviews: {count:,} of 1,000 that were asked for, as a ")
    ]
    assert len(told) == fewer == (count < 1000)


def test_the_same_seed_makes_the_same_reviews_whatever_the_shards_before(data: Prepared, tmp_path: Path) -> None:
    assert made(tmp_path / "a", clusters=4, words=50).rows("train").equals(data.rows("train"))
    other = made(tmp_path / "b", clusters=4, words=50, seed=1)
    assert not other.rows("train").equals(data.rows("train"))


def test_words_follow_from_the_cluster_alone_once_the_first_is_known(data: Prepared) -> None:
    number = {word: n for n, word in enumerate(made_up(50))}
    successor_CW = data.array("planted_successor")
    for row in data.rows("train").slice(0, 200).to_pylist():
        words = [number[word] for word in row["text"].split(" : ")[1].split() if word in number]
        assert len(words) == 6
        following = [int(successor_CW[row["planted_cluster"], word]) for word in words[:-1]]
        assert words[1:] == following
        assert f" the {row['feature']} of this " in row["text"]
        assert f" {row['opinion']} :" in row["text"]


def test_users_of_a_cluster_praise_what_it_favours_in_the_same_words(data: Prepared) -> None:
    table = data.records().to_pandas()
    cluster_U = np.array(data.users["cluster"].to_pylist())
    assert (cluster_U[table["user"]] == table["planted_cluster"]).all()
    words = table["text"].str.split(" of this ").str[1] + table["feature"] + table["score"].astype(str)
    told = words.groupby([table["planted_cluster"], table["feature"], table["score"]]).nunique()
    assert told.max() <= 8  # one for each kind of item
    names = [sorted(set(table[table["planted_cluster"] == c]["feature"].value_counts().index[:12])) for c in range(4)]
    shared = [len(set(names[a]) & set(names[b])) for a in range(4) for b in range(a)]
    assert max(shared) <= 8
    favoured = table["feature"].groupby(table["planted_cluster"]).value_counts(normalize=True)
    assert favoured.groupby(level=0).head(12).groupby(level=0).sum().min() > 0.7


def test_ratings_follow_user_item_and_what_the_cluster_favours(data: Prepared) -> None:
    table, rows = data.records().to_pandas(), data.items.to_pylist()
    user, item = np.array(data.users["bias"].to_pylist()), np.array(data.items["bias"].to_pylist())
    features = list(rows[0]["features"])
    assert len(set(features)) == 8
    quality = np.array(
        [
            dict(zip(rows[i]["features"], rows[i]["qualities"], strict=True))[f]
            for i, f in table[["item", "feature"]].values
        ]
    )
    design = np.stack([user[table["user"]], item[table["item"]], quality, np.ones(len(table))], 1)
    weight, *_ = np.linalg.lstsq(design, table["rating"].to_numpy(), rcond=None)
    assert weight[:3] == pytest.approx([1, 1, 0.9], abs=0.3)
    rating_of_score = table.groupby("score")["rating"].agg(["min", "max"])
    assert rating_of_score.values.tolist() == [[1, 2], [3, 3], [4, 5]]


def test_strangers_write_in_the_words_of_other_clusters(tmp_path: Path) -> None:
    data = made(tmp_path, clusters=4, words=50, strangers=0.4)
    table = data.records().to_pandas()
    own = np.array(data.users["cluster"].to_pylist())[table["user"]]
    assert (own != table["planted_cluster"]).mean() == pytest.approx(0.4 * 3 / 4, abs=0.05)


def test_every_shard_knows_the_same_truth_and_words_are_different() -> None:
    config = PlantedReviewsConfig(reviews=1000, shards=3)
    assert (planted(config).successor_CW == planted(config).successor_CW).all()
    users = [set(shard_tables(config, shard)["reviews"]["user"].to_pylist()) for shard in range(3)]
    assert not users[0] & users[1] | users[1] & users[2]
    assert len(set(made_up(100_000))) == 100_000
