import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.data.modalities.index import index_of
from rec.data.modalities.knowledge_config import KnowledgeConfig
from rec.data.modalities.retrieval import Retriever
from rec.data.runner import InProcess
from rec.errors import DataError

THIEF = "Master thief Neil McCauley leads a crew through Los Angeles."
ACTOR = "A former child star lives in a cheap Hollywood motel."
CHAPERONE = "An ex-soldier of fortune takes chaperone jobs in Vegas and fights the mob."
HEATS = f'title,year,overview\nHeat,1995,"{THIEF}"\nHeat,1995,"{ACTOR}"\nHeat,1995,"{CHAPERONE}"\nHeat,1995,\n'


def found(tmp_path: Path, items: Sequence[dict[str, str]], **keys: Any) -> list[list[str]]:
    """Return the texts that are found for some items in the files of a folder."""
    config = KnowledgeConfig(**({"paths": (str(tmp_path / "files"),), "width": 8} | keys))
    index = index_of(config, str(tmp_path / "index"), InProcess(), lambda text: None)
    return [[one.passage.text for one in few] for few in Retriever(index, config).retrieve(items)]


def write(tmp_path: Path, **files: str) -> None:
    for name, text in files.items():
        path = tmp_path / "files" / name.replace("__", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_three_films_of_one_title_and_year_are_told_apart_by_what_is_known_of_the_item(tmp_path: Path):
    write(tmp_path, films__csv=HEATS)
    plots = (
        "Neil McCauley, a thief, robs a bank in Los Angeles",
        "A child star in Hollywood meets a has-been in a motel",
        "A soldier of fortune fights the mob in Vegas",
    )
    items = [{"title": "Heat (1995)", "plot": plot} for plot in plots]
    assert found(tmp_path, items) == [[THIEF], [ACTOR], [CHAPERONE]]


def test_the_first_row_is_taken_where_nothing_tells(tmp_path: Path):
    write(tmp_path, films__csv=HEATS)
    assert found(tmp_path, [{"title": "Heat", "year": "1995", "genres": "Drama"}]) == [[THIEF]]


def test_all_rows_are_taken_where_many_are_about_the_same(tmp_path: Path):
    write(tmp_path, reviews__csv=HEATS)
    texts = found(tmp_path, [{"title": "Heat (1995)", "plot": "a mob in Vegas"}], rows="many")[0]
    assert texts[0] == CHAPERONE
    assert set(texts) == {THIEF, ACTOR, CHAPERONE}


def test_a_film_of_another_year_is_another_film(tmp_path: Path):
    write(tmp_path, films__csv=f"name,year,plot\nHeat,1986,{CHAPERONE}\nHeat,1972,{ACTOR}\n")
    items = [{"title": "Heat (1995)"}, {"title": "Heat (1986)"}, {"title": "Heat (1973)"}]
    assert found(tmp_path, items) == [[], [CHAPERONE], [ACTOR]]


def test_an_item_of_which_nothing_is_known_has_no_passage(tmp_path: Path):
    write(tmp_path, films__csv=HEATS)
    items = [{"title": "Casino (1995)", "plot": THIEF}, {"title": "", "plot": THIEF}, {"plot": THIEF}]
    assert found(tmp_path, items) == [[], [], []]


def test_rows_that_say_the_same_are_one_passage(tmp_path: Path):
    write(tmp_path, a__csv=f"title,text\nHeat,{THIEF}\nHeat,{THIEF}\n", b__csv=f"title,text\nHeat,{THIEF}\n")
    assert found(tmp_path, [{"title": "Heat (1995)"}]) == [[THIEF]]


def test_files_of_every_kind_are_read(tmp_path: Path):
    write(
        tmp_path, films__csv=HEATS, notes__jsonl=json.dumps({"Title": "Casino", "Year": 1995, "text": "Ace runs it."})
    )
    write(tmp_path, **{"Jumanji (1995)__txt": "A board game.\n\nA boy\nvanishes.\n"})
    pq.write_table(
        pa.table({"title": ["Ran"], "year": [1985], "summary": ["A warlord retires."]}), tmp_path / "files/more.parquet"
    )
    items = [{"title": title} for title in ("Casino (1995)", "Jumanji (1995)", "Ran (1985)")]
    assert found(tmp_path, items) == [["Ace runs it."], ["A board game. A boy vanishes."], ["A warlord retires."]]


@pytest.mark.parametrize("search", ["exact", "ivf"])
def test_passages_without_a_title_belong_to_the_items_they_name(tmp_path: Path, search: str):
    if search == "ivf":
        pytest.importorskip("faiss")
    other = "\n\n".join(f"Paragraph {n} is about the sea and its {n} fish." for n in range(100))
    write(
        tmp_path, book__txt=f"In Heat (1995) a thief plans it.\n\nHeat (1986) is weak.\n\nThe heat of July.\n\n{other}"
    )
    items = [{"title": "Heat (1995)", "plot": "a thief"}, {"title": "Sea, The"}, {"title": "Casino"}]
    assert found(tmp_path, items, search=search) == [["In Heat (1995) a thief plans it."], [], []]


def test_the_best_passages_of_a_long_text_come_first(tmp_path: Path):
    filler = " ".join(f"Nothing of note happens on day {n}." for n in range(60))
    write(tmp_path, films__csv=f'title,text\nHeat,"{filler} A robber opens the vault with dynamite. {filler}"\n')
    one = found(
        tmp_path, [{"title": "Heat", "plot": "Robbers blow up a vault with dynamite"}], words=30, overlap=10, passages=2
    )[0]
    assert len(one) == 2
    assert "dynamite" in one[0]


def test_shards_of_any_size_give_the_same(tmp_path: Path):
    rows = "".join(
        f'Film {n},19{n % 90 + 10},"Person{n} meets Person{n + 1} in Town{n % 7}. They talk."\n' for n in range(450)
    )
    write(tmp_path, films__csv=f"title,year,text\n{rows}")
    items = [{"title": f"Film {n}", "year": f"19{n % 90 + 10}"} for n in range(450)]
    whole, parts = (found(tmp_path, items, shard_passages=size) for size in (100_000, 100))
    assert whole == parts
    assert all(len(one) == 1 for one in whole)


def test_an_index_is_made_again_only_when_a_file_says_something_else(tmp_path: Path):
    write(tmp_path, films__csv=HEATS)
    config = KnowledgeConfig(paths=(str(tmp_path / "files"),), width=8)
    said: list[str] = []
    first = index_of(config, str(tmp_path / "index"), InProcess(), said.append)
    (tmp_path / "files").rename(tmp_path / "moved")
    moved = config.model_copy(update={"paths": (str(tmp_path / "moved"),), "passages": 1})
    assert index_of(moved, str(tmp_path / "index"), InProcess(), said.append) == first
    assert len(said) == 1
    (tmp_path / "moved" / "films.csv").write_text(HEATS.replace("Vegas", "Reno"))
    assert index_of(moved, str(tmp_path / "index"), InProcess(), said.append) != first


def test_a_passage_says_where_it_stands(tmp_path: Path):
    write(tmp_path, films__csv=HEATS)
    config = KnowledgeConfig(paths=(str(tmp_path / "files"),), width=8)
    index = index_of(config, str(tmp_path / "index"), InProcess(), lambda text: None)
    one = Retriever(index, config).retrieve([{"title": "Heat (1995)", "plot": "Hollywood motel"}])[0][0]
    assert (one.passage.source, one.passage.title, one.passage.year) == ("films.csv:2", "Heat", "1995")
    assert one.match == "title and year"


@pytest.mark.parametrize(
    ("year", "rows", "match"),
    [
        ("", f"Heat,1986,{CHAPERONE}\nHeat,1972,{ACTOR}\n", "ambiguous title"),
        ("", f"Heat,1986,{CHAPERONE}\nHeat,,{ACTOR}\n", "title"),
        ("", f"Heat,1986,{CHAPERONE}\nHeat,1986,{ACTOR}\n", "title"),
        ("1986", f"Heat,1986,{CHAPERONE}\nHeat,1972,{ACTOR}\n", "title and year"),
        ("1986", f"Heat,,{CHAPERONE}\nRan,1972,{ACTOR}\n", "title"),
    ],
)
def test_a_title_of_several_years_is_told_where_the_item_has_none(tmp_path: Path, year: str, rows: str, match: str):
    write(tmp_path, films__csv=f"name,year,plot\n{rows}")
    config = KnowledgeConfig(paths=(str(tmp_path / "files"),), width=8)
    index = index_of(config, str(tmp_path / "index"), InProcess(), lambda text: None)
    assert {one.match for one in Retriever(index, config).retrieve([{"title": "Heat", "year": year}])[0]} == {match}


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("films__csv", "title,year\nHeat,1995\n", r"films.csv: no column of text; there are title, year; name it in"),
        ("films__jsonl", '{"text": "a"}\nb\n', r"films.jsonl: line 2: not JSON"),
        ("films__jsonl", "[1]\n", r"films.jsonl: line 1: found '\[1\]', expected an object"),
        ("films__csv", "title,text\nHeat,\nRan,N/A\n", r"no text in any file, expected some"),
    ],
)
def test_a_file_that_says_nothing_is_refused(tmp_path: Path, name: str, text: str, error: str):
    write(tmp_path, **{name: text})
    with pytest.raises(DataError, match=error):
        found(tmp_path, [{"title": "Heat"}])


def test_a_column_that_is_not_there_is_refused(tmp_path: Path):
    write(tmp_path, films__csv=HEATS)
    with pytest.raises(DataError, match=r"films.csv: no column 'story' \(knowledge.text\); there are title, year, ov"):
        found(tmp_path, [{"title": "Heat"}], text="story")
