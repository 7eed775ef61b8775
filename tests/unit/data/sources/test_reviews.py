"""Reviews in public layouts and own tables, in made-up sentences; counts of the shared sets."""

import gzip
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rec.data.prepared import Prepared
from rec.errors import ConfigError, DataError
from tests.conftest import SHARED
from tests.support.own import prepared, quiet

SOURCES = "rec.data.sources.reviews"
FIND = {"minimum_feature_count": 1}
GIVEN = {"protocol": "given"}
NAMES = {"2014": ("reviewerID", "asin", "overall", "reviewText", "unixReviewTime")}
NAMES |= {"2018": NAMES["2014"], "2023": ("user_id", "parent_asin", "rating", "text", "timestamp")}
NAMES |= {"yelp": ("user_id", "business_id", "stars", "text", "date")}
DAY = 86_400


def told(data: Prepared, split: str) -> list[tuple[Any, ...]]:
    """Return a split's rows with raw ids."""
    users, items = data.users["id"].to_pylist(), data.items["id"].to_pylist()
    rows = data.seen_as("sentences").rows(split).to_pylist()
    return [(users[r["user"]], items[r["item"]], r["rating"], r["text"], r["feature"], r["opinion"]) for r in rows]


def review(number: int, layout: str = "2014", **changes: Any) -> dict[str, Any]:
    """Return one of many reviews of six users and five items; changes are by our names."""
    time = {"2023": 1000 * DAY * number, "yelp": f"1970-01-{number + 1:02d} 00:00:00"}.get(layout, DAY * number)
    text = f"I waited. It has a clear sound no. {number}."
    ours = {"user": f"00{number % 6}", "item": f"i/{number % 5}", "rating": number % 5 + 1.0}
    ours |= {"text": text, "time": time, **changes}
    found = dict(zip(NAMES[layout], ours.values(), strict=True))
    return found | {"helpful": [0, 1], "style": {"Size:": " 3"}, "title": "Fine", "verified": True}


def write_lines(path: Path, rows: Sequence[Any]) -> str:
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return str(path)


def lines(
    tmp_path: Path, rows: Sequence[Any], source: str = "AmazonReviews", say: Any = quiet, **read: Any
) -> Prepared:
    sections = {
        "source": f"{SOURCES}:{source}",
        "read": {"reviews": [write_lines(tmp_path / "reviews.json.gz", rows)], "find": FIND, **read},
        "split": {"protocol": "warm", "test": 0.1},
    }
    return prepared(tmp_path / "out", sections, say)


@pytest.mark.parametrize("layout", NAMES)
def test_reviews_of_every_layout_are_read_with_raw_ids_and_times_in_seconds(layout: str, tmp_path: Path) -> None:
    source = "YelpReviews" if layout == "yelp" else "AmazonReviews"
    data = lines(tmp_path, [review(n, layout) for n in range(30)], source)
    found = sorted(told(data, "train") + told(data, "val") + told(data, "test"))
    assert found == sorted(
        (f"00{n % 6}", f"i/{n % 5}", n % 5 + 1.0, "it has a clear sound no .", "sound", "clear") for n in range(30)
    )
    assert [data.seen_as("sentences").split_rows(split) for split in ("train", "val", "test")] == [24, 3, 3]
    assert sorted(data.records(["time"])["time"].to_pylist()) == [DAY * n for n in range(30)]
    assert data.manifest["dropped"] == {}


def test_what_is_dropped_is_counted_by_the_first_thing_that_is_missing(tmp_path: Path) -> None:
    rows = [review(n) for n in range(30)]
    rows += [review(30, user=None), review(31, item=""), review(32, rating=None), review(33, text="  ")]
    rows += [review(34, text=None, rating=None), review(35, text="I bought it for my aunt."), review(0)]
    data = lines(tmp_path, rows)
    assert data.manifest["dropped"] == {
        "event without a feature": 1, "event without item": 1, "event without rating": 2, "event without text": 1,
        "event without user": 1, "repeated event": 1,
    }  # fmt: skip
    counts = data.manifest["counts"]
    assert counts["interactions_read"] == 37 == counts["interactions"] + 7


def test_literals_of_python_lists_and_halves_of_characters_are_read(tmp_path: Path) -> None:
    rows = [review(n) for n in range(30)]
    old = repr(review(1, text='It\'s a "solid" cable, it has a great strap.'))
    odd = json.dumps(review(2)).replace("I waited", "\\ud83d I waited")
    data = lines(tmp_path, [*rows[:1], old, odd, *rows[3:]])
    assert [r for r in told(data, "train") + told(data, "val") + told(data, "test") if r[4] != "sound"] == [
        ("001", "i/1", 2.0, "it's a solid cable , it has a great strap .", "cable", "solid")
    ]
    assert data.manifest["counts"]["interactions"] == 30


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{'a': ", r"line 2: not JSON .*: \"\{'a': \""),
        ("[1, 2]", "line 2: a list, expected an object"),
        (review(1, rating="five"), "line 2: 'overall': found 'five', expected a number"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(row: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"reviews.json.gz: {words}"):
        lines(tmp_path, [review(0), row, review(2)])


@pytest.mark.parametrize(
    ("layout", "where"),
    [("yelp", r"reviews\.json\.gz: row 18, column 'time'"), ("2014", r"reviews\.json\.gz: no review")],
)
def test_errors_of_later_passes_name_the_file_that_was_given(
    layout: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rec.data.reviews.lines.BLOCK_BYTES", 1000)  # several blocks
    rows = [review(n, layout, **({"text": ""} if layout == "2014" else {})) for n in range(30)]
    rows[17] |= {"date": "yesterday"}
    with pytest.raises(DataError, match=where) as error:
        lines(tmp_path, rows, "YelpReviews" if layout == "yelp" else "AmazonReviews")
    assert "parquet" not in str(error.value)


def test_errors_about_items_name_the_file_that_was_given(tmp_path: Path) -> None:
    items = write_lines(tmp_path / "meta.json", [{"asin": "other", "title": "Other"}])
    with pytest.raises(DataError, match=r"meta\.json: none of 1 items is one of 5 that reviews name") as error:
        lines(tmp_path, [review(n) for n in range(30)], items=items)
    assert "parquet" not in str(error.value)


def test_bytes_that_are_not_utf8_are_read_in_a_way_that_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    rows = [json.dumps(review(n)) for n in range(30)]
    rows[3] = rows[3].replace("I waited", "A caf\u00e9")
    path = tmp_path / "some.json"
    path.write_bytes("".join(f"{row}\n" for row in rows).encode("latin-1"))
    data = lines(tmp_path, rows, reviews=[str(path)], say=said.append)
    assert f"{path}: 1 line with bytes that are not UTF-8, read as '\ufffd'" in said
    assert data.manifest["counts"]["interactions"] == 30
    table = pd.DataFrame(
        [dict(zip(("user", "item", "rating", "text"), list(review(n).values())[:4], strict=True)) for n in range(30)]
    )
    table.loc[2, "user"] = "Ren\u00e9"
    (tmp_path / "own.csv").write_bytes(table.to_csv(index=False).encode("cp1252"))
    (tmp_path / "items.csv").write_bytes("item,name\ni/0,Caf\u00e9\n".encode("cp1252"))
    read = {"reviews": [str(tmp_path / "own.csv")], "items": str(tmp_path / "items.csv"), "columns": {"title": "name"}}
    said.clear()
    sections = {
        "source": f"{SOURCES}:ReviewTables", "read": {**read, "find": FIND}, "split": {"protocol": "warm", "test": 0.1}
    }  # fmt: skip
    own = prepared(tmp_path / "own", sections, said.append)
    for name in ("own", "items"):
        assert f"{tmp_path}/{name}.csv: not UTF-8 everywhere: values that are not are read as cp1252" in said
    assert "Ren\u00e9" in own.users["id"].to_pylist()


def test_files_of_another_layout_or_cut_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1 has the names who, .*expected those of Amazon's .*reviewerID, asin; "):
        lines(tmp_path, [{"who": 1, "what": 2}])
    path = Path(write_lines(tmp_path / "reviews.json.gz", [review(n) for n in range(30)]))
    path.write_bytes(path.read_bytes()[:-20])
    sections = {"source": f"{SOURCES}:AmazonReviews", "read": {"reviews": [str(path)]}, "split": {"protocol": "warm"}}
    with pytest.raises(DataError, match=r"reviews.json.gz: cannot be read after line .*downloaded to its end"):
        prepared(tmp_path / "out", sections)


@pytest.mark.parametrize("layout", ["2014", "2023", "yelp"])
def test_what_is_known_of_items_is_theirs_and_the_rest_is_left_behind(layout: str, tmp_path: Path) -> None:
    item, source = NAMES[layout][1], "YelpReviews" if layout == "yelp" else "AmazonReviews"
    title, text = ("name", "categories") if layout == "yelp" else ("title", "description")
    words = ["Loud", "and clear"] if layout == "2023" else "Loud and clear"
    known = [{item: f"i/{n}", title: f"Item {n}", text: words} for n in (9, 3, 1, 4)] + [{item: "i/0", title: None}]
    vectors = np.arange(10, dtype=np.float64).reshape(5, 2) + 1
    np.save(tmp_path / "v.npy", vectors)
    said: list[str] = []
    ada = write_lines(tmp_path / "user.json", [{"user_id": "003", "name": "Ada"}])
    users = {"users": ada} if layout == "yelp" else {}
    items = write_lines(tmp_path / "meta.json", known)
    vector = {"image": str(tmp_path / "v.npy")}
    data = lines(
        tmp_path, [review(n, layout) for n in range(30)], source, said.append, items=items, vectors=vector, **users
    )
    assert data.items["id"].to_pylist() == [f"i/{n}" for n in range(5)]
    assert data.items["title"].to_pylist() == [None, "Item 1", None, "Item 3", "Item 4"]
    assert data.items["text"].to_pylist() == [None, "Loud and clear", None, "Loud and clear", "Loud and clear"]
    np.testing.assert_array_equal(data.array("feature_image"), [vectors[4], vectors[2], [0, 0], vectors[1], vectors[3]])
    assert any("items: 1 of 5 are in no row of" in line for line in said)
    if users:
        assert data.users["title"].to_pylist() == [None, None, None, "Ada", None, None]


def test_a_core_leaves_out_items_with_what_is_known_of_them(tmp_path: Path) -> None:
    rows = [review(n) for n in range(30)] + [review(30, item="once")]
    known = [{"asin": name, "title": name} for name in ("once", *(f"i/{n}" for n in range(5)))]
    np.save(tmp_path / "v.npy", np.arange(6, dtype=np.float32)[:, None])
    sections = {
        "source": f"{SOURCES}:AmazonReviews",
        "read": {
            "reviews": [write_lines(tmp_path / "r.json", rows)], "items": write_lines(tmp_path / "i.json", known),
            "vectors": {"image": str(tmp_path / "v.npy")}, "find": FIND,
        },
        "split": {"protocol": "warm", "test": 0.1},
        "filter": {"core": 2},
        "encode": {"text": {"encoder": "hashing", "tokenizer": "", "width": 8}},
    }  # fmt: skip
    known[1]["description"] = "loud"
    write_lines(tmp_path / "i.json", known)
    data = prepared(tmp_path / "out", sections)
    assert data.items["id"].to_pylist() == [f"i/{n}" for n in range(5)]
    assert data.array("feature_image").tolist() == [[1], [2], [3], [4], [5]]
    assert data.array("item_text_present").tolist() == [True, False, False, False, False]
    assert data.array("item_text").shape == (5, 8)
    assert data.manifest["dropped"] == {"record of a user or item with fewer than 2 records": 1}


def frame() -> pd.DataFrame:
    rows = [(f"00{n % 6}", f"i{n % 5}", n % 5 + 1, f"It has a clear sound no. {n}.", n) for n in range(30)]
    return pd.DataFrame(rows, columns=["who", "what", "stars", "words", "when"])


COLUMNS = {"user": "who", "item": "what", "rating": "stars", "text": "words"}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_own_tables_are_read_by_the_names_of_their_columns(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"r.{ending}"
    frame().to_csv(path, index=False) if ending == "csv" else frame().to_parquet(path)
    read = {"reviews": [str(path)], "columns": COLUMNS | {"time": "when"}, "find": FIND}
    sections = {"source": f"{SOURCES}:ReviewTables", "read": read, "split": {"protocol": "time", "test": 0.1}}
    data = prepared(tmp_path / "out", sections)
    assert told(data, "test")[0][:3] == ("003", "i2", 3.0)
    assert data.records(["time"])["time"].to_pylist()[:2] == [0, 6]


def test_features_and_splits_that_a_table_tells_are_taken(tmp_path: Path) -> None:
    parts = ["train"] * 20 + ["dev"] * 5 + ["test"] * 5
    table = frame().assign(about="sound", says=[None, *["clear"] * 29], part=parts)
    table.loc[3, "about"] = None
    table.to_parquet(tmp_path / "r.parquet")
    columns = COLUMNS | {"feature": "about", "opinion": "says", "part": "part"}
    read = {"reviews": [str(tmp_path / "r.parquet")], "columns": columns}
    data = prepared(tmp_path / "out", {"source": f"{SOURCES}:ReviewTables", "read": read, "split": GIVEN})
    assert told(data, "train")[0] == ("000", "i0", 1.0, "It has a clear sound no. 0.", "sound", "")
    assert [len(told(data, split)) for split in ("train", "val", "test")] == [19, 5, 5]
    assert data.manifest["dropped"] == {"event without a feature": 1}


@pytest.mark.parametrize(
    ("read", "words"),
    [
        ({"columns": COLUMNS | {"title": "t"}}, "data.read.columns.title: has no effect without data.read.items"),
        ({"columns": COLUMNS | {"opinion": "o"}}, "data.read.columns.opinion: has no effect without"),
        ({"columns": COLUMNS | {"feature": "words"}, "find": FIND}, "data.read.find: has no effect beside"),
        ({"columns": COLUMNS, "vectors": {"image": "v.npy"}}, "data.read.vectors: has no effect without data.read.it"),
        ({"columns": COLUMNS, "find": {"finder": f"{SOURCES}:NLG4RS"}}, "data.read.find.finder: .* is no class below"),
        ({"columns": COLUMNS, "find": {"finder": "no:Finder"}}, "data.read.find.finder: no class 'no:Finder'"),
    ],
)
def test_keys_without_effect_are_refused(read: dict[str, Any], words: str, tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "r.parquet")
    read = {"reviews": [str(tmp_path / "r.parquet")], **read}
    with pytest.raises(ConfigError, match=words):
        prepared(tmp_path / "out", {"source": f"{SOURCES}:ReviewTables", "read": read, "split": {"protocol": "warm"}})


def test_a_finder_of_ones_own_is_named_by_its_import_path(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "r.parquet")
    find = {"finder": "tests.support.last_word:LastWord", "minimum_feature_count": 1}
    read = {"reviews": [str(tmp_path / "r.parquet")], "columns": COLUMNS, "find": find}
    sections = {"source": f"{SOURCES}:ReviewTables", "read": read, "split": {"protocol": "warm"}}
    data = prepared(tmp_path / "out", sections)
    assert {row[4] for row in told(data, "train")} <= {f"{n}." for n in range(30)}


def nlg(folder: Path, rows: list[Any], folds: dict[str, list[str]], pickled: bool = True) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    if pickled:
        (folder / "reviews.pickle").write_bytes(pickle.dumps(rows))
    else:
        write_lines(folder / "reviews.jsonl", rows)
    for name, parts in folds.items():
        (folder / name).mkdir(exist_ok=True)
        for part, text in zip(("train", "validation", "test"), parts, strict=True):
            (folder / name / f"{part}.index").write_text(text)
    return {"source": f"{SOURCES}:NLG4RS", "read": {"folder": str(folder)}, "split": GIVEN}


def made(number: int, **changes: Any) -> dict[str, Any]:
    template = ("sound", "clear", f"a clear sound {number} .", 1)
    row = {"user": f"u{number % 3}", "item": f"i{number % 4}", "rating": 4, "predicted": "x", "template": template}
    return {key: value for key, value in (row | changes).items() if value is not ...}


FOLDS = {"1": ["3 0 2 5", "1", "4\n"], "2": ["0 1 2 3", "4", "5"]}


@pytest.mark.parametrize("pickled", [True, False])
def test_a_fold_gives_the_split_and_the_order_of_its_rows(pickled: bool, tmp_path: Path) -> None:
    rows = [made(n) for n in range(6)]
    sections = nlg(tmp_path / "set", rows, FOLDS, pickled)
    data = prepared(tmp_path / "1", sections)
    assert [row[3] for row in told(data, "train")] == [f"a clear sound {n} ." for n in (3, 0, 2, 5)]
    assert told(data, "val") == [("u1", "i1", 4.0, "a clear sound 1 .", "sound", "clear")]
    sections["read"] |= {"fold": "2"}
    data = prepared(tmp_path / "2", sections)
    assert [row[3][-3] for row in told(data, "val") + told(data, "test")] == ["4", "5"]
    drawn = {"protocol": "ratio", "test": 0.4, "validation": 0.4}
    sections |= {"read": sections["read"] | {"fold": ""}, "split": drawn}
    assert prepared(tmp_path / "3", sections).manifest["counts"]["interactions"] == 6


def test_tuples_in_a_list_count_as_a_template_and_what_has_none_is_dropped(tmp_path: Path) -> None:
    both = [("tone", "warm", "a warm tone .", 1), ("price", "fair", "a fair price .", 1)]
    rows = [made(0, template=..., sentence=both), made(1), made(2), made(3, user=None), made(4), made(5)]
    rows += [made(6, template=..., sentence=[]), made(7, template=...), made(8, rating=None)]
    folds = {"1": ["0 3 2 5 6 7 8", "1", "4"]}
    data = prepared(tmp_path / "1", nlg(tmp_path / "set", rows, folds))
    assert told(data, "train")[0] == ("u0", "i0", 4.0, "a warm tone .", "tone", "warm")
    assert data.manifest["dropped"] == {
        "event without a feature": 2, "event without rating": 1, "event without user": 1
    }  # fmt: skip
    data = prepared(tmp_path / "2", nlg(tmp_path / "set", rows[:6], {"1": ["0 2", "1", "4"]}))
    assert data.manifest["dropped"] == {"event that no index file names": 1, "event without user": 1}


@pytest.mark.parametrize(
    ("rows", "folds", "words"),
    [
        ([made(0)], {}, "1/train.index: no such file, expected .*; data.read.fold may be unset"),
        ([made(0)], {"2": ["0", "", ""]}, "data.read.fold may be 2$"),
        ([made(n) for n in range(3)], {"1": ["0 1", "3", "2"]}, r"validation.index: position 3, expected 0 to 2"),
        ([made(n) for n in range(3)], {"1": ["0 -1", "1", "2"]}, r"train.index: position -1, expected 0 to 2"),
        ([made(n) for n in range(3)], {"1": ["0 1", "1", "2"]}, r"position 1 stands twice"),
        ([made(n) for n in range(3)], {"1": ["0 x", "1", "2"]}, r"train.index: expected positions divided by blanks"),
        ([made(0), "text"], {}, "review 2: a str, expected a dict"),
        ([made(0, rating="5")], {}, "review 1: rating: found '5', expected a number"),
        ([made(0, template=("a", "b"))], {}, r"review 1: found \('a', 'b'\), expected \(feature, adjective, sentence"),
        ([made(0), {1, 2}], {}, "review 2: a set, expected a dict"),
        ({"a": 1}, {}, "holds a dict, expected a list of reviews"),
    ],
)
def test_a_set_of_another_form_is_refused(rows: Any, folds: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "out", nlg(tmp_path / "set", rows, folds))


@pytest.fixture(scope="module")
def shared() -> Path:
    if not (SHARED / "reviews").is_dir():
        pytest.skip("needs ../shared/data/reviews, which is not part of the project")
    return SHARED / "reviews"


@pytest.mark.data
def test_the_set_of_musical_instruments_has_the_known_counts(shared: Path, tmp_path: Path) -> None:
    read = {"folder": str(shared / "nlg4rs" / "MusicalInstruments")}
    data = prepared(tmp_path / "out", {"source": f"{SOURCES}:NLG4RS", "read": read, "split": GIVEN}, view="sentences")
    counts = data.manifest["counts"]
    assert [counts[name] for name in ("interactions", "users", "items")] == [4590, 1144, 807]
    assert [data.split_rows(split) for split in ("train", "val", "test")] == [3672, 459, 459]
    assert np.bincount(data.array("user_sparsity")).tolist() == [229, 229, 229, 229, 228]
    records = data.records(["feature", "user", "item", "part"]).to_pandas()
    assert records["feature"].nunique() == 266
    train = records[records["part"] == 0]
    assert (train["user"].nunique(), train["item"].nunique()) == (1144, 807)


@pytest.mark.data
def test_musical_instruments_have_the_known_counts_and_most_of_the_sentences_are_found_again(
    shared: Path, tmp_path: Path
) -> None:
    file = shared / "musical_instruments_5core.parquet"
    ratings = pd.read_parquet(file, columns=["rating", "user", "item"])
    assert ratings["rating"].value_counts().sort_index().tolist() == [217, 250, 772, 2084, 6938]
    assert (ratings["user"].nunique(), ratings["item"].nunique()) == (1429, 900)
    sections = {
        "source": f"{SOURCES}:ReviewTables",
        "read": {"reviews": [str(file)], "columns": {"time": "unix_time"}},
        "filter": {"core": 2},
        "split": {"protocol": "warm", "test": 0.1},
    }
    data = prepared(tmp_path / "out", sections)
    assert data.manifest["counts"]["interactions_read"] == 10_261
    assert data.manifest["dropped"]["event without text"] == 7
    rows = [json.loads(line) for line in (shared / "nlg4rs/MusicalInstruments/reviews.jsonl").open()]
    wanted = {(row["user"], row["item"]): row["template"] for row in rows}
    found = {row[:2]: row for split in ("train", "val", "test") for row in told(data, split)}
    both = [(row, found[pair]) for pair, row in wanted.items() if pair in found]
    assert len(wanted) == 4590
    assert len(both) == 4514
    assert sum(theirs[2] == ours[3] for theirs, ours in both) == 4303
    assert sum([theirs[2], theirs[0], theirs[1]] == list(ours[3:]) for theirs, ours in both) == 4267
