"""SASRec's file of MovieLens-1M."""

from pathlib import Path

import numpy as np
import pytest

from rec.errors import DataError
from rec.evaluation.tasks.ranking.popularity_groups import groups, popular_items, popular_share
from tests.data.own import prepared

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


@pytest.mark.data
def test_movielens_1m_counts_order_and_groups(movielens: Path, tmp_path: Path) -> None:
    read = {
        "records": [str(movielens / "ml-1m" / "ml-1m.txt")],
        "sha1": "9ab8e3edb8742f8d8cc4911e3dee25e82a6fcc24",
        "items": str(movielens / "ml-1m" / "movies.dat"),
        "item_ids": str(movielens / "ml-1m" / "sas_to_original_items.txt"),
        "metadata": [str(movielens / "metadata" / "ml1m_movies_extrainfos.dat")],
    }
    data = prepared(tmp_path, {"source": SOURCE, "read": read}, view="sequences")
    counts = data.manifest["counts"]
    names = ("interactions_read", "interactions", "users", "items")
    assert [counts[name] for name in names] == [999_611, 999_611, 6040, 3416]
    assert sum(plot != "" for plot in data.items["plot"].to_pylist()) == 3410
    rows = data.rows("test")
    histories = [np.append(h, t) for h, t in zip(rows["history"].to_numpy(), rows["target"].to_numpy(), strict=True)]
    # The specification's table: share, Niche / Diverse / Blockbuster.
    for share, expected in ((0.0005, [180, 3190, 2670]), (0.001, [1998, 3641, 401]), (0.0015, [4270, 1650, 120])):
        popular = popular_items(np.asarray(data.array("item_total")), share)
        assert np.bincount(groups(popular_share(histories, popular))).tolist() == expected
