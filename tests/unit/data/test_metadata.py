"""Item metadata: every kind of file gives its fields as text, and what is wrong is named."""

import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.data.sources.metadata import FIELDS, fill, read_ids, read_items
from rec.errors import DataError

FLAGS = "|".join("1" if n == 1 else "0" for n in range(19))


def first(path: Path) -> dict[str, Any]:
    return read_items(str(path)).to_dict("records")[0]


@pytest.mark.parametrize("exotic", ["\x85", "\x1c", "\x0b", "\xa0", "::", ":::", '"', "\r"])
def test_movies_dat_keeps_what_stands_in_a_title(tmp_path: Path, exotic: str) -> None:
    (tmp_path / "movies.dat").write_bytes(
        f"1::The{exotic}End (1995)::Drama|War\r\n2::B (1996)::War\r\n".encode("latin-1")
    )
    film = first(tmp_path / "movies.dat")
    assert (film["item"], film["title"], film["year"], film["genres"]) == ("1", f"The{exotic}End", "1995", "Drama, War")
    assert len(read_items(str(tmp_path))) == 2


def test_a_title_in_utf8_is_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("1::Amélie\u2028 (2001)::Drama\n", encoding="utf-8")
    assert first(tmp_path / "movies.dat")["title"] == "Amélie\u2028"


def test_a_line_of_movies_dat_without_genres_is_named(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("1::A (1995)::War\n2::B (1996)\n")
    with pytest.raises(DataError, match=r"row 2: found 2 fields .*expected 3 between"):
        read_items(str(tmp_path / "movies.dat"))


def melu(title: str = "Toy Story", plot: str = "A toy.") -> str:
    return f"1::{title}::1995::G::22 Nov 1995::Drama::J. L.::N/A::T. H.::{plot}::http://p/1.jpg"


def test_melu_gives_eleven_fields_and_keeps_exotic_characters(tmp_path: Path) -> None:
    rows = [melu("A::B"), melu(plot="One.\u2028Two.\x85")]
    (tmp_path / "extra.dat").write_bytes("\r\n".join(rows).encode())
    items = read_items(str(tmp_path / "extra.dat"))
    assert items["title"].tolist() == ["A::B", "Toy Story"]
    assert items["plot"].tolist() == ["A toy.", "One.\u2028Two.\x85"]
    assert items["writers"].tolist() == ["", ""]


@pytest.mark.parametrize("row", [melu(plot="A::toy."), melu(plot="").replace("::G", "")])
def test_a_row_of_melu_with_another_number_of_fields_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "extra.dat").write_text("\n".join([melu(), melu(), row]))
    with pytest.raises(DataError, match=r"extra.dat: row 3: found 1[02] fields .*expected 11"):
        read_items(str(tmp_path / "extra.dat"))


def test_u_item_is_read_from_a_folder_and_an_archive(tmp_path: Path) -> None:
    line = f"7|Caf\xe9\x85 (1990)|01-Jan-1990||url|{FLAGS}\n".encode("latin-1")
    (tmp_path / "u.item").write_bytes(line)
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ml-100k/u.item", line)
        archive.writestr("ml-100k/u.data", "1\t2\t3\t4\n")
    for path in (tmp_path / "u.item", tmp_path, tmp_path / "ml.zip", tmp_path / "ml.zip" / "ml-100k"):
        film = first(path)
        assert (film["item"], film["title"], film["year"], film["genres"]) == ("7", "Café\x85", "1990", "Action")


def test_a_line_of_u_item_that_is_too_long_is_named(tmp_path: Path) -> None:
    (tmp_path / "u.item").write_text(f"1|A|||url|{FLAGS}\n2|B|C|||url|{FLAGS}\n")
    with pytest.raises(DataError, match="row 2: found 25 fields"):
        read_items(str(tmp_path / "u.item"))


@pytest.mark.parametrize("name", ["key", "id", "_key", "_size", "row", "index", "column 0"])
def test_a_column_may_have_any_name(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"item": ["a", "b"], name: [1, None], "title": ["T", None]}), tmp_path / "i.parquet")
    items = read_items(str(tmp_path / "i.parquet"))
    assert items[name].tolist() == ["1", ""]
    assert items["item"].tolist() == ["a", "b"]
    more = items.assign(plot="A plot.")
    assert fill(items, more)["plot"].tolist() == ["A plot.", "A plot."]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1995, None]), ["1995", ""]),
        (pa.array([1995.0, None]), ["1995", ""]),
        (pa.array([0.5, float("nan")]), ["0.5", ""]),
        (pa.array([True, None]), ["true", ""]),
        (pa.array(["a", None]).dictionary_encode(), ["a", ""]),
        (pa.array([Decimal("1.5"), None]), ["1.5", ""]),
        (pa.array([["a", "b"], None]), ["a, b", ""]),
        (pa.array([b"png", None]), [b"png", None]),
    ],
    ids=str,
)
def test_own_columns_of_every_type_may_have_nulls(tmp_path: Path, column: pa.Array, expected: list[Any]) -> None:
    pq.write_table(pa.table({"item": [1, 2], "own": column, "struct": [{"a": 1}, None]}), tmp_path / "i.parquet")
    items = read_items(str(tmp_path / "i.parquet"))
    assert items["own"].tolist() == expected
    assert items["item"].tolist() == ["1", "2"]
    assert "struct" not in items


@pytest.mark.parametrize("year", [pa.array([1995, None]), pa.array([1995.0, None]), pa.array(["1995", None])])
def test_a_year_is_text_without_a_point_and_taken_from_the_title_where_it_is_missing(tmp_path: Path, year: Any) -> None:
    pq.write_table(pa.table({"item": ["a", "b"], "title": ["A", "B (1996)"], "year": year}), tmp_path / "i.parquet")
    assert read_items(str(tmp_path / "i.parquet"))["year"].tolist() == ["1995", "1996"]


def test_ids_of_items_stay_as_written(tmp_path: Path) -> None:
    ids = ["00001", "1", "12345678901234567890", "1e5", "NA", " a/b", "1.0"]
    (tmp_path / "i.csv").write_text("item,title\n" + "".join(f"{i},T\n" for i in ids))
    assert read_items(str(tmp_path / "i.csv"))["item"].tolist() == ids


def test_csv_in_cp1252_with_quoted_newlines_is_read(tmp_path: Path) -> None:
    body = 'item;title;overview\n1;M\xfcnchen;"One.\nTwo."\n'
    (tmp_path / "i.csv").write_bytes(body.encode("cp1252"))
    film = first(tmp_path / "i.csv")
    assert (film["title"], film["plot"]) == ("München", "One.\nTwo.")


def test_a_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": [1], "title": ["A"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"title": ["B"], "item": ["x"]}), tmp_path / "2.parquet")
    assert read_items(str(tmp_path))["item"].tolist() == ["1", "x"]


@pytest.mark.parametrize(
    ("head", "shown"),
    [
        ("item,title,name", "'title' and 'name' are both the title"),
        ("item,Title,title", "'Title' and 'title' are both the title"),
        ("item,item_id,title", "'item' and 'item_id' are both the item"),
        ("item,item,title", "column 'item' stands twice"),
        ("film,plot", "no column for the item id or the title; the file has film, plot"),
    ],
)
def test_columns_that_clash_or_lack_are_refused_by_name(tmp_path: Path, head: str, shown: str) -> None:
    (tmp_path / "i.csv").write_text(f"{head}\n{','.join('abc'[: head.count(',') + 1])}\n")
    with pytest.raises(DataError, match=shown):
        read_items(str(tmp_path / "i.csv"))


def test_missing_files_and_empty_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.csv: no such file"):
        read_items(str(tmp_path / "nowhere.csv"))
    (tmp_path / "movies.dat").write_text("\n")
    with pytest.raises(DataError, match=r"movies.dat: is empty"):
        read_items(str(tmp_path / "movies.dat"))


def test_ids_are_pairs_and_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(b"1 007\r\n2\t\xe9\x85\n\n")
    assert read_ids(str(path)) == {"1": "007", "2": "é\x85"}
    path.write_text("1 2\n3\n")
    with pytest.raises(DataError, match="row 2: found '3', expected two ids"):
        read_ids(str(path))
    path.write_text("1 2\n1 3\n")
    with pytest.raises(DataError, match="row 2: id '1' stands for '2' and '3'"):
        read_ids(str(path))


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(dict.fromkeys(FIELDS, "") | columns)


def test_empty_fields_are_filled_by_id_where_titles_agree() -> None:
    items = frame(item=["1", "2"], title=["A", "B"], plot=["own", ""])
    more = frame(item=["2", "1", "2"], title=["B", "A", "B"], plot=["x", "y", "longer"])
    assert fill(items, more)["plot"].tolist() == ["own", "longer"]


def test_items_that_the_tables_lack_stay_empty() -> None:
    items = frame(item=["1", "2"], title=["A", None], plot=[None, None])
    more = frame(item=["9"], title=["A"], plot=["of A"])
    assert fill(items, more)["plot"].tolist() == ["of A", ""]
