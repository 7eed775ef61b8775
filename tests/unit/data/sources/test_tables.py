"""Own tables: columns by any name, what has no effect, what is missing."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.errors import ConfigError, DataError
from tests.support.own import own, own_tables, prepared, quiet, write_events


@pytest.mark.parametrize("name", ["events.parquet", "events.csv"])
def test_own_tables_become_rows(tmp_path: Path, name: str) -> None:
    data = prepared(tmp_path / "out", {"read": own(tmp_path, write_events(tmp_path / name)).read}, view="sequences")
    counts = {"interactions_read": 36, "interactions": 36, "users": 6, "items": 9}
    assert data.manifest["counts"] == counts | {"train interactions": 24, "val interactions": 6, "test interactions": 6}
    assert data.rows("test").to_pylist()[0] == {"user": 0, "history": [1, 2, 3, 4], "target": 5}
    assert data.users["id"].to_pylist() == [f"u{u}" for u in range(6)]
    assert data.items["id"].to_pylist() == [f"i{i}" for i in range(9)]
    data.verify()


def test_own_tables_of_users_and_items_are_prepared(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", own_tables(tmp_path))
    counts = data.manifest["counts"]
    assert (counts["interactions"], counts["users"], counts["items"]) == (60, 12, 10)
    assert data.items["id"].to_pylist() == [f"i{n}" for n in range(10)]
    assert data.array("user_attributes").shape == (12, 3)
    assert not data.manifest["synthetic_labels"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"user": "whom"},
            r"pairs.parquet: no column 'whom' \(data.read.columns.user\); the file has who, sku, stars; did",
        ),
        (
            {"image": "picture"},
            r"items.parquet: no column 'picture' \(data.read.columns.image\); the file has sku, words",
        ),
        (
            {"user_attributes": ["age", "size"]},
            r"users.csv: no column 'size' \(data.read.columns.user_attributes\[1\]\); the file has who, age, sex",
        ),
        ({"rating": "words"}, r"pairs.parquet: no column 'words' \(data.read.columns.rating\)"),
    ],
)
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "data", own_tables(tmp_path, columns=columns))


@pytest.mark.parametrize(
    ("key", "value", "table"), [("user_text", ["story"], "users"), ("image", "photo", "items"), ("avoid", "a", "users")]
)
def test_columns_of_a_table_that_is_not_there_are_refused(tmp_path: Path, key: str, value: Any, table: str) -> None:
    read = {"columns": {"user": "who", "item": "what", key: value}}
    config = own(tmp_path, write_events(tmp_path / "e.csv"), read=read)
    with pytest.raises(ConfigError, match=f"data.read.columns.{key}: has no effect without data.read.{table}"):
        prepared(tmp_path / "out", {"read": config.read})


@pytest.mark.parametrize(
    ("key", "value", "table"),
    [
        ("users_format", {"delimiter": ";"}, "users"),
        ("items_format", {"encoding": "cp1252"}, "items"),
        ("keep", ["year"], "items"),
        ("item_ids", "ids.txt", "items"),
        ("metadata", ["films.csv"], "items"),
    ],
)
def test_keys_of_a_table_that_is_not_there_are_refused(tmp_path: Path, key: str, value: Any, table: str) -> None:
    read = own(tmp_path, write_events(tmp_path / "e.csv"), read={key: value}).read
    with pytest.raises(ConfigError, match=f"data.read.{key}: has no effect without data.read.{table}"):
        prepared(tmp_path / "out", {"read": read})


@pytest.mark.parametrize(("key", "value"), [("keep", ["words"]), ("items_format", {"delimiter": ","})])
def test_keys_of_plain_items_are_refused_beside_films(tmp_path: Path, key: str, value: Any) -> None:
    read = own(tmp_path, write_events(tmp_path / "e.csv"), read={"items": "u.item", "metadata": ["f.csv"], key: value})
    with pytest.raises(ConfigError, match=f"data.read.{key}: has no effect beside data.read.item_ids and metadata"):
        prepared(tmp_path / "out", {"read": read.read})


@pytest.mark.parametrize(
    ("key", "tables", "words"),
    [
        ("minimum_known_share", {}, "brings no table of users or items here"),
        ("maximum_unknown_share", {}, "has no effect without data.filter.unseen"),
        ("minimum_known_share", {"items": True}, ""),
        ("maximum_unknown_share", {"items": True}, "has no effect without data.filter.unseen"),
        ("maximum_unknown_share", {"items": True, "unseen": ["item"]}, ""),
    ],
)
def test_limits_on_who_is_unknown_need_a_table(tmp_path: Path, key: str, tables: Any, words: str) -> None:
    items = tmp_path / "items.csv"
    items.write_text("what\n" + "".join(f"i{n}\n" for n in range(9)))
    read = {"items": str(items)} if "items" in tables else {}
    keys = {key: 0.5} | ({"unseen": tables["unseen"]} if "unseen" in tables else {})
    config = own(tmp_path / "out", write_events(tmp_path / "e.csv"), read=read, filter=keys)
    if not words:
        assert prepare(config, InProcess(), quiet).num_items == 9
        return
    with pytest.raises(ConfigError, match=f"data.filter.{key}: .*{words}"):
        prepare(config, InProcess(), quiet)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_delimiter_that_does_not_stand_there_gets_a_hint(tmp_path: Path, delimiter: str) -> None:
    events = write_events(tmp_path / "e.csv")
    config = own(tmp_path / "out", events, read={"format": {"delimiter": delimiter}})
    with pytest.raises(
        DataError, match=r"no column 'who' .*; ',' may stand between its values: leave the format's del"
    ):
        prepare(config, InProcess(), quiet)


def test_one_path_of_records_is_a_list_of_one(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.csv")
    one, many = (own(tmp_path / "out", events, read={"records": paths}) for paths in (str(events), [str(events)]))
    assert one == many
    assert prepare(one, InProcess(), quiet).num_users == 6


def test_keys_without_effect_beside_films_are_refused(tmp_path: Path) -> None:
    sections = own_tables(tmp_path)
    sections["read"] = sections["read"] | {"metadata": ["films.csv"]}
    with pytest.raises(ConfigError, match=r"data.read.columns.item_text: has no effect beside data.read.item_ids and"):
        prepared(tmp_path / "out", sections)
    config = own(tmp_path, write_events(tmp_path / "e.csv"), read={"item_ids": "ids.txt"})
    with pytest.raises(ConfigError, match=r"data.read.item_ids: has no effect without data.read.items"):
        prepared(tmp_path / "out", {"read": config.read})


def test_a_column_that_would_be_taken_for_another_is_refused(tmp_path: Path) -> None:
    sections = own_tables(tmp_path, columns={"title": "words", "item_attributes": ["title"]})
    items = pd.read_parquet(tmp_path / "items.parquet").assign(title="T")
    items.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match="column 'title' is read beside 'words', which becomes 'title' of items"):
        prepared(tmp_path / "data", sections)


def test_unseen_users_need_a_table(tmp_path: Path) -> None:
    config = own(tmp_path, write_events(tmp_path / "e.csv"))
    with pytest.raises(ConfigError, match=r"data.filter.unseen: the source has no table of 'user'"):
        prepared(tmp_path / "out", {"read": config.read, "filter": {"unseen": ["user"]}})


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really", b"\x00" * 100])
def test_a_broken_parquet_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken.parquet: cannot be read"):
        prepared(tmp_path / "out", {"read": own(tmp_path, path).read})


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train", "val", "test"], [0, 1, 2]),
        (["TRAIN", "Validation", " Test "], [0, 1, 2]),
        (["training", "valid", "test"], [0, 1, 2]),
        (["0", "1.0", "2"], [0, 1, 2]),
        ([0.0, 1.0, 2.0], [0, 1, 2]),
        ([0, 1, 2], [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_given_split_is_told_by_numbers_or_words(
    tmp_path: Path, words: list[Any], parts: list[int], ending: str
) -> None:
    frame = pd.DataFrame({"who": ["a"] * 4 + ["b"] * 4, "what": list("stuvstuv"), "part": [words[0], *words] * 2})
    path = tmp_path / f"e.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    columns = {"user": "who", "item": "what", "part": "part"}
    sections = {"read": own(tmp_path, path, read={"columns": columns}).read, "split": {"protocol": "given"}}
    data = prepared(tmp_path / "out", sections)
    assert data.records(["part"])["part"].to_pylist() == [0, *parts] * 2


@pytest.mark.parametrize("value", ["holdout", "3", "1.5", "-1"])
def test_a_part_that_is_none_is_refused_with_what_is_expected(tmp_path: Path, value: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(f"who,what,part\na,s,train\na,t,{value}\n")
    columns = {"user": "who", "item": "what", "part": "part"}
    sections = {"read": own(tmp_path, path, read={"columns": columns}).read, "split": {"protocol": "given"}}
    words = f"row 2, column 'part': found '{value}', expected 0, 1 or 2, or train, val or test, in any case"
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "out", sections)


@pytest.mark.parametrize("part", [3, -1, True])
def test_a_part_of_parquet_that_is_none_is_refused(tmp_path: Path, part: Any) -> None:
    pd.DataFrame({"who": ["a"], "what": ["s"], "part": [part]}).to_parquet(tmp_path / "e.parquet")
    columns = {"user": "who", "item": "what", "part": "part"}
    read = own(tmp_path, tmp_path / "e.parquet", read={"columns": columns}).read
    with pytest.raises(
        DataError, match=r"row 1, column 'part': found (3|-1|bool), expected 0, 1 or 2, or train, val or"
    ):
        prepared(tmp_path / "out", {"read": read, "split": {"protocol": "given"}})


def test_a_missing_part_is_dropped_and_counted(tmp_path: Path) -> None:
    rows = ["a,s,train", "a,t,val", "a,u,test", "a,v,"]
    (tmp_path / "e.csv").write_text("\n".join(["who,what,part", *rows]))
    columns = {"user": "who", "item": "what", "part": "part"}
    read = own(tmp_path, tmp_path / "e.csv", read={"columns": columns}).read
    data = prepared(tmp_path / "out", {"read": read, "split": {"protocol": "given"}})
    assert data.manifest["dropped"] == {"record without part": 1}


@pytest.mark.parametrize(("user", "item"), [("person", "what"), ("who", "sku"), ("person", "sku")])
def test_every_table_names_its_own_ids(tmp_path: Path, user: str, item: str) -> None:
    path = write_events(tmp_path / "e.csv")
    pd.DataFrame({user: [f"u{n}" for n in range(6)], "age": range(6)}).to_csv(tmp_path / "users.csv", index=False)
    pd.DataFrame({item: [f"i{n}" for n in range(9)], "name": list("abcdefghi")}).to_csv(tmp_path / "i.csv", index=False)
    columns = {"user": "who", "item": "what", "user_id": user, "item_id": item, "title": "name"}
    columns |= {"user_attributes": ["age"]}
    read = {"users": str(tmp_path / "users.csv"), "items": str(tmp_path / "i.csv"), "columns": columns}
    data = prepared(tmp_path / "out", {"read": own(tmp_path, path, read=read).read})
    assert data.items.select(["id", "title"]).to_pylist()[3] == {"id": "i3", "title": "d"}
    assert sorted(data.users.column_names) == ["age", "id", "user"]
    assert data.users["age"].to_pylist() == list(range(6))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"user_id": "person"}, r"users.csv: no column 'person' \(data.read.columns.user_id\); the file has who, age"),
        ({"item_id": "code"}, r"items.parquet: no column 'code' \(data.read.columns.item_id\)"),
        (
            {"item": "stars"},
            r"no column 'stars' \(data.read.columns.item; data.read.columns.item_id names another one of items\)",
        ),
    ],
)
def test_ids_that_a_table_lacks_are_told_with_their_key(tmp_path: Path, columns: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "out", own_tables(tmp_path, columns=columns))


def test_a_key_of_ids_needs_its_table(tmp_path: Path) -> None:
    columns = {"user": "who", "item": "what"}
    for key, table in (("user_id", "users"), ("item_id", "items")):
        read = own(tmp_path, write_events(tmp_path / "e.csv"), read={"columns": columns | {key: "id"}}).read
        with pytest.raises(ConfigError, match=f"data.read.columns.{key}: has no effect without data.read.{table}"):
            prepared(tmp_path / "out", {"read": read})


def german(tmp_path: Path, **format: Any) -> Any:
    """Ratings and prices with decimal commas, and times as a German spreadsheet writes them."""
    rows = [f"u{u};i{(u + k) % 5};{k},5;{1 + k}.12.2022 09:3{k}" for u in range(4) for k in range(4)]
    (tmp_path / "e.csv").write_text("\n".join(["who;what;stars;when", *rows]))
    (tmp_path / "i.csv").write_text("\n".join(["what;price", *[f"i{n};{n},25" for n in range(5)]]))
    columns = {"user": "who", "item": "what", "time": "when", "rating": "stars", "item_attributes": ["price"]}
    read = {"items": str(tmp_path / "i.csv"), "columns": columns, **format}
    return own(tmp_path, tmp_path / "e.csv", read=read).read


def test_decimal_commas_and_forms_of_times_are_read_where_keys_say_so(tmp_path: Path) -> None:
    written = {"decimal": ",", "time_format": "%d.%m.%Y %H:%M"}
    read = german(tmp_path, format=written, items_format={"decimal": ","})
    data = prepared(tmp_path / "out", {"read": read, "encode": {}})
    assert sorted(set(data.records()["rating"].to_pylist())) == [0.5, 1.5, 2.5, 3.5]
    day, minute = 86_400 * 10**9, 60 * 10**9
    first = data.records()["time"].to_pylist()[:4]
    assert [time - first[0] for time in first] == [k * (day + minute) for k in range(4)]
    assert first[0] == pd.Timestamp("2022-12-01T09:30").value
    assert data.items["price"].to_pylist() == [0.25, 1.25, 2.25, 3.25, 4.25]
    assert data.array("item_attributes").shape == (6, 1)  # a number, not five words


@pytest.mark.parametrize(
    ("format", "words"),
    [
        (
            {"time_format": "%d.%m.%Y %H:%M"},
            r"row 1, column 'stars': found '0,5', expected a number; data.read.format.decimal = \",\" reads decimal",
        ),
        (
            {"decimal": ","},
            r"row 1, column 'when': found '1.12.2022 09:30', expected a time: .*; "
            r"data.read.format.time_format = \"%d.%m.%Y %H:%M\" and the like tell another form",
        ),
        (
            {"decimal": ",", "time_format": "%Y"},
            r"format.time_format\n.*tells no year, month and day; expected a form such as '%d.%m.%Y %H:%M'",
        ),
        (
            {"decimal": ",", "time_format": "%m/%d/%Y"},
            r"row 1, column 'when': found '1.12.2022 09:30', expected a time as data.read.format.time_format = '%m/",
        ),
    ],
)
def test_the_key_that_reads_a_value_is_named(tmp_path: Path, format: dict[str, Any], words: str) -> None:
    with pytest.raises((DataError, ValidationError), match=words):
        prepared(tmp_path / "out", {"read": german(tmp_path, format=format)})


def test_items_whose_table_knows_none_of_them_are_refused_with_ids_of_both_sides(tmp_path: Path) -> None:
    path = write_events(tmp_path / "e.csv")
    for known, words in ((0, "holds 0 of the 9 items"), (2, "holds 2 of the 9 items")):
        ids = [f"i{n}" for n in range(known)] + [f"sku-{n}" for n in range(known, 9)]
        pd.DataFrame({"what": ids[::-1]}).to_csv(tmp_path / "items.csv", index=False)
        read = own(tmp_path, path, read={"items": str(tmp_path / "items.csv")}).read
        least = {"filter": {"minimum_known_share": 0.3}} if known else {}
        share = "30.0%" if known else "10.0%"
        message = rf"items.csv: {words} of records, at least {share} must be there \(data.filter.minimum_known_share\)"
        with pytest.raises(DataError, match=rf"{message}; records name 'i{known}', the table 'sku-8'"):
            prepared(tmp_path / "out", {"read": read, **least})
    assert prepared(tmp_path / "out", {"read": read}).num_items == 9


def test_users_and_items_are_not_one_column(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="user and item are both 'who', expected columns of their own"):
        own(tmp_path / "out", write_events(tmp_path / "e.csv"), read={"columns": {"user": "who", "item": "who"}})


def test_an_empty_name_switches_a_column_off(tmp_path: Path) -> None:
    columns = {"user": "who", "item": "what", "time": "", "part": ""}
    config = own(tmp_path / "out", write_events(tmp_path / "e.csv"), read={"columns": columns})
    assert config.read.model_dump()["columns"]["time"] is None
    assert config.read.model_dump()["columns"]["part"] is None
