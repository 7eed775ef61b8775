"""SASRec's file of MovieLens-1M."""

from pathlib import Path

import numpy as np
import pytest

from rec.errors import DataError, RequestError
from rec.evaluation.profiles import find
from rec.evaluation.tasks.ranking.popularity_groups import groups, popular_items, popular_share
from tests.support.own import prepared

SOURCE = "rec.data.sources.sasrec:SASRec"


def test_lines_are_in_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("".join(f"{user} {item}\n" for user in (1, 2) for item in (9, 3, 7, 1)))
    data = prepared(tmp_path / "out", {"source": SOURCE, "read": {"records": [f"{tmp_path}/x.txt"]}}, view="sequences")
    assert data.items["id"].to_pylist() == ["1", "3", "7", "9"]
    assert data.rows("test").to_pylist()[0] == {"user": 0, "history": [4, 2, 3], "target": 1}


def test_another_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 1\n")
    with pytest.raises(DataError, match=r"x.txt: git blob hash .*, expected 0000"):
        prepared(tmp_path / "out", {"source": SOURCE, "read": {"records": [f"{tmp_path}/x.txt"], "sha1": "0" * 40}})


def test_users_come_under_the_records_ids_with_their_original_ones(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("".join(f"{user} {item}\n" for user in (1, 2) for item in (9, 3, 7, 1)))
    (tmp_path / "users.dat").write_text("30::F::1::10::48067\n40::M::56::16::70072\n50::M::25::15::55117\n")
    (tmp_path / "ids.txt").write_text("1 40\n2 30\n")
    read = {
        "records": [f"{tmp_path}/x.txt"], "users": f"{tmp_path}/users.dat", "user_ids": f"{tmp_path}/ids.txt"
    }  # fmt: skip
    data = prepared(tmp_path / "out", {"source": SOURCE, "read": read}, view="sequences")
    told = [(row["id"], row["original"], row["text"]) for row in data.users.to_pylist()]
    assert told == [("1", "40", "A 56 year old man, self-employed"), ("2", "30", "A woman under 18, K-12 student")]
    assert find(data, "user", "30") == (1, "User 30 (2 in the records)")
    with pytest.raises(RequestError, match=r"no user '2'; found 2 such as 40, 30"):
        find(data, "user", "2")


@pytest.mark.data
def test_movielens_1m_counts_order_groups_and_original_users(movielens: Path, tmp_path: Path) -> None:
    read = {
        "records": [str(movielens / "ml-1m" / "ml-1m.txt")],
        "sha1": "9ab8e3edb8742f8d8cc4911e3dee25e82a6fcc24",
        "items": str(movielens / "ml-1m" / "movies.dat"),
        "item_ids": str(movielens / "ml-1m" / "sas_to_original_items.txt"),
        "metadata": [str(movielens / "metadata" / "ml1m_movies_extrainfos.dat")],
        "users": str(movielens / "ml-1m" / "users.dat"),
        "user_ids": str(movielens / "ml-1m" / "sas_to_original_users.txt"),
    }
    data = prepared(tmp_path, {"source": SOURCE, "read": read}, view="sequences")
    counts = data.manifest["counts"]
    names = ("interactions_read", "interactions", "users", "items")
    assert [counts[name] for name in names] == [999_611, 999_611, 6040, 3416]
    assert sum(plot != "" for plot in data.items["plot"].to_pylist()) == 3410
    rows = data.rows("test")
    histories = [np.append(h, t) for h, t in zip(rows["history"].to_numpy(), rows["target"].to_numpy(), strict=True)]
    # The specification's table: share, popular items, Niche / Diverse / Blockbuster.
    for share, count, expected in (
        (0.0005, 618, [180, 3190, 2670]), (0.001, 207, [1998, 3641, 401]), (0.0015, 67, [4270, 1650, 120])
    ):  # fmt: skip
        popular = popular_items(np.asarray(data.array("item_total")), share)
        assert popular.sum() == count
        assert np.bincount(groups(popular_share(histories, popular))).tolist() == expected
    # The paper's users are told by their original ids.
    titles = np.array(data.items["title"].to_pylist())
    for user, length, film in (("390", 214, "Dancer in the Dark"), ("1752", 434, "Fight Club"), ("2115", 58, None)):
        index, _ = find(data, "user", user)
        assert len(histories[index]) == length
        assert film is None or film in titles[histories[index] - 1]
