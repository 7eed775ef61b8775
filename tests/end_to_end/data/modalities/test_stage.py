"""Texts of items are written when a data set is prepared, and kept with how each was made."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rec.benchmarks.chat_server import Chat
from rec.data.config import MODALITIES, DataConfig, TextConfig
from rec.data.encoders import Hashing
from rec.data.items import FiledItems, HeldItems, in_parts
from rec.data.modalities.config import ITEM_FIELDS
from rec.data.modalities.job import ModalityJob
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.data.sources.metadata import FIELDS
from rec.data.stages import item_texts
from rec.data.stages import modalities as stage
from rec.data.stages.text_vectors import TextVectors
from rec.data.writing import Draft
from rec.errors import ConfigError, DataError
from tests.support.films import film_tables, films, job_of
from tests.support.own import prepared

NAMES = ("narrative", "pace")


def made(folder: Path, root: str, **modalities: Any) -> Prepared:
    sections = film_tables(folder)
    return prepared(folder / root, sections | ({"modalities": modalities} if modalities else {}), view="sequences")


def written(data: Prepared) -> list[dict[str, Any]]:
    parts = sorted((Path(data.storage.root) / "written").glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_the_offline_template_writes_what_it_wrote_without_the_section(tmp_path: Path) -> None:
    plain, same = made(tmp_path, "plain"), made(tmp_path, "same", batch=4)
    np.testing.assert_array_equal(plain.array("text"), same.array("text"))
    assert plain.items.to_pydict() == same.items.to_pydict()
    rows = written(same)
    assert len(rows) == 18
    assert {row["writer"] for row in rows} == {"template"}
    assert rows[0]["item"] == 1
    assert rows[0]["modality"] == "narrative"
    assert same.manifest["written"]["modalities"]["narrative"]["coverage"] == 1.0


def test_own_modalities_are_templates_of_the_config(tmp_path: Path) -> None:
    sections = film_tables(tmp_path, names=("mood",))
    sections["modalities"] = {"templates": {"mood": "{genres} of {year}"}}
    data = prepared(tmp_path / "data", sections, view="sequences")
    assert data.items["mood"].to_pylist()[0] == "Drama of 1950"


def test_templates_quote_what_is_found_of_an_item(tmp_path: Path) -> None:
    sections = film_tables(tmp_path, names=("story",))
    (tmp_path / "known.csv").write_text("title,overview\nFilm 1 (1951),A  shark hunts.\nFilm 1 (1951),It is caught.\n")
    knowledge = {"paths": [f"{tmp_path}/known.csv"], "text": ["overview"], "rows": "many"}
    sections["modalities"] = {"templates": {"story": "{title}: {context}"}, "knowledge": knowledge}
    data = prepared(tmp_path / "data", sections, view="sequences")
    texts = dict(zip(data.items["id"].to_pylist(), data.items["story"].to_pylist(), strict=True))
    assert texts["f1"] in ("Film 1: A shark hunts. It is caught.", "Film 1: It is caught. A shark hunts.")
    assert texts["f2"] == "Film 2:"
    quoted = {row["item"]: row["passages"] for row in written(data)}
    assert sorted(map(len, quoted.values())) == [0] * 8 + [2]
    passages = pq.read_table(f"{data.storage.root}/passages").to_pylist()
    assert [row["source"] for row in passages] == ["known.csv:1", "known.csv:2"]
    assert data.manifest["written"]["with_passages"] == 1


def test_a_model_writes_the_texts_and_what_it_took_is_told(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    data = made(tmp_path, "data", writer={"kind": "chat", "url": chat.url, "model": "m"})
    assert data.items["narrative"].to_pylist()[3] == "Film 3 as narrative"
    assert np.abs(np.asarray(data.array("text"))[1:]).sum() > 0
    told = data.manifest["written"]
    assert told["requests"]["made"] == 9
    assert told["modalities"]["pace"]["writers"] == {"chat": 9}
    assert {(row["writer"], row["model"]) for row in written(data)} == {("chat", "m")}


def test_answers_survive_preparing_into_another_folder(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    keys = {"writer": {"kind": "chat", "url": chat.url, "model": "m"}}
    first, second = made(tmp_path, "one", **keys), made(tmp_path, "two", **keys)
    assert chat.told()["requests"] == 9
    assert first.items.to_pydict() == second.items.to_pydict()
    assert second.manifest["written"]["requests"]["from cache"] == 9


def test_the_key_is_sent_and_written_nowhere(tmp_path: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILM_KEY", "s3cr3t-of-films")
    chat.behave(names=NAMES, key="s3cr3t-of-films")
    made(tmp_path, "data", writer={"kind": "chat", "url": chat.url, "model": "m", "key": "FILM_KEY"})
    assert chat.told()["requests"] == 9
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"s3cr3t" in path.read_bytes()]


def test_a_key_that_is_not_there_or_wrong_is_told_without_it(
    tmp_path: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"kind": "chat", "url": chat.url, "model": "m", "key": "FILM_KEY"}
    with pytest.raises(ConfigError, match="the environment has no variable 'FILM_KEY'"):
        made(tmp_path, "data", writer=keys)
    monkeypatch.setenv("FILM_KEY", "wr0ng")
    chat.behave(names=NAMES, key="right")
    with pytest.raises(DataError, match=r"answered 401: wrong key Bearer \[key\] .*names 'FILM_KEY'"):
        made(tmp_path, "data", writer=keys)
    assert chat.told()["requests"] <= 16  # those that were on their way


def test_no_field_of_films_stands_in_the_place_of_a_modality() -> None:
    """A column of a modality's name is taken for its text: the address of a poster was."""
    assert not {*FIELDS, *ITEM_FIELDS} & set(MODALITIES)


def test_a_config_without_anything_to_write_is_refused(tmp_path: Path) -> None:
    sections = film_tables(tmp_path, names=("plot",)) | {"modalities": {"batch": 4}}
    with pytest.raises(ConfigError, match=r"data\.modalities: has no effect: all of data.text.modalities"):
        prepared(tmp_path / "data", sections, view="sequences")


def test_a_template_of_a_column_is_refused(tmp_path: Path) -> None:
    sections = film_tables(tmp_path, names=("plot", "mood"))
    sections["modalities"] = {"templates": {"plot": "{title}", "mood": "{genres}"}}
    with pytest.raises(ConfigError, match=r"templates\.plot: has no effect: 'plot' is a column of the items"):
        prepared(tmp_path / "data", sections, view="sequences")


@pytest.mark.parametrize(
    ("modalities", "fault"),
    [
        ({"templates": {"narrative": "{plt}"}}, r"templates.narrative: \{plt\} is none of .*; did you mean \{plot\}\?"),
        ({"templates": {"narrative": "{plot!r}"}}, r"found \{plot!r\}, expected the name of a field alone"),
        ({"templates": {"narrative": "{plot"}}, "cannot be filled"),
        ({"templates": {"mood": "{plot}"}}, "is none of data.text.modalities"),
        ({"prompt": {"user": "{titel}"}}, r"prompt.user: \{titel\} is none of"),
        ({"prompt": {"system": "{context}"}}, r"prompt.system: \{context\} is none of"),
        ({"prompt": {"about": {"mood": "how it feels"}}}, "about.mood: is none of data.text.modalities"),
        ({"prompt": {"examples": [{"fields": {"name": "x"}, "answer": {}}]}}, "'name' is none of"),
        ({"writer": {"kind": "chat", "model": "m"}}, "needs an address"),
        ({"writer": {"kind": "local"}}, "needs the name of a model"),
        ({"fields": ["context"]}, "cannot be named in a prompt"),
        ({"templates": {"pace": "{context}"}}, r"templates.pace: \{context\} needs data.modalities.knowledge"),
        ({"templates": {"pace": "x"}, "knowledge": {"paths": "a.csv"}}, "no model writes, and no template names"),
    ],
)
def test_prompts_and_templates_are_checked_when_the_config_is_read(modalities: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        DataConfig.model_validate({"root": "d", "text": {"modalities": list(NAMES)}, "modalities": modalities})


def test_a_field_that_items_lack_is_told_before_anything_is_asked(tmp_path: Path, chat: Chat) -> None:
    keys = {"fields": ["mood"], "prompt": {"user": "{title} {mood}"}}
    with pytest.raises(ConfigError, match=r"data\.modalities\.fields: 'mood' is no column of the items"):
        made(tmp_path, "data", writer={"kind": "chat", "url": chat.url, "model": "m"}, **keys)
    assert chat.told()["requests"] == 0


def test_files_of_templates_are_those_of_texts_written_item_by_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "ITEMS_PER_FILE", 8)
    keys = {"batch": 3, "templates": {"mood": "{genres} {tagline}", "none": ""}, "fields": ["tagline"]}
    config = DataConfig.model_validate(
        {"root": f"{tmp_path}/data", "text": {"modalities": ["pace", "mood", "none"]}, "modalities": keys}
    )
    frame = films(31).assign(tagline=[None if n % 4 else n for n in range(31)])
    slow, quick = Draft(f"{tmp_path}/slow"), Draft(f"{tmp_path}/quick")
    kept, summary = stage.Kept(slow), stage.Summary()
    for written in stage.job_of(config, HeldItems(frame), np.ones(31), InProcess(), quiet).write():
        summary.add(written)
        kept.add(written)
    kept.flush()
    assert config.modalities is not None
    on_disk = stage.filed(quick, frame, config.modalities)
    texts, told = stage.write_modalities(quick, on_disk, np.ones(31), config, InProcess(), quiet)
    assert told == summary.as_json() | {"files": kept.files}
    assert [rows for _, rows in kept.files] == [27, 27, 27, 12]
    assert quick.files == slow.files
    for name in slow.files:
        assert quick.storage.read(name) == slow.storage.read(name)
    beside = texts.beside(frame)
    assert beside["mood"].tolist()[:6] == ["Drama 0.0", "Musical", "Action", "Drama", "Musical 4.0", "Action"]
    assert beside["none"].tolist() == [""] * 31


def test_vectors_of_texts_are_written_in_parts_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TextConfig(modalities=("narrative", "acting"), width=6, encoder="hashing")
    actors = [None if n % 3 else f"Actor {n} meets" for n in range(20)]
    frame = films(20).assign(acting=actors)
    drafts = [Draft(f"{tmp_path}/{name}") for name in ("one", "parts")]
    for draft, items_at_once in zip(drafts, (item_texts.ITEMS_AT_ONCE, 3), strict=True):
        monkeypatch.setattr(item_texts, "ITEMS_AT_ONCE", items_at_once)
        vectors = TextVectors(config, draft.root.uri, InProcess(), quiet, draft)
        item_texts.write_item_texts(draft, frame, config, vectors, quiet)
    for name in ("text.npy", "text_concatenated.npy"):
        assert drafts[0].storage.read(name) == drafts[1].storage.read(name)
    slow = np.zeros((21, 2, 6), np.float32)
    for n, plot, acting in zip(range(1, 21), frame["plot"], actors, strict=True):
        narrative = plot or f"Film {n - 1} {frame['genres'][n - 1]}"
        slow[n] = Hashing(6).encode([narrative, acting or "acting"])
        slow[n, 1] *= acting is not None
    np.testing.assert_array_equal(np.load(drafts[1].storage.path("text.npy")), slow)


def test_items_on_disk_are_those_in_memory(tmp_path: Path, chat: Chat) -> None:
    frame = films(20).assign(image=b"png", length=[None, *range(19)])
    held, filed = HeldItems(frame), FiledItems.write(Draft(f"{tmp_path}/d").storage, in_parts(frame, 6))
    assert (len(filed), list(filed.files)) == (20, [0, 1, 2, 3])
    keys: dict[str, Any] = {"writer": {"kind": "chat", "url": chat.url, "model": "m"}, "fields": ["length"], "batch": 4}
    keys["select"] = {"most_characters": 40}
    jobs = [job_of(tmp_path, items=items, **keys) for items in (held, filed)]
    for places in (range(20), [3, 4, 19], [17, 2], []):
        assert every(jobs[0], places) == every(jobs[1], places)
    assert 0 < jobs[0].selected_I.sum() < 20
    np.testing.assert_array_equal(jobs[0].selected_I, jobs[1].selected_I)


def test_memory_of_writing_does_not_grow_with_the_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "ITEMS_PER_FILE", 100)
    table = {"root": f"{tmp_path}/data", "text": {"modalities": list(NAMES)}, "modalities": {"batch": 50}}
    config = DataConfig.model_validate(table)

    def peak_bytes(name: str, count: int) -> int:
        draft = Draft(f"{tmp_path}/{name}")
        tracemalloc.start()
        items = FiledItems.write(draft.root.below("items"), (films(100) for _ in range(count // 100)))
        stage.write_modalities(draft, items, np.ones(count), config, InProcess(), quiet)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_bytes("first", 200)  # what is imported and made once
    few, many = peak_bytes("few", 200), peak_bytes("many", 2000)
    # Ids and counts of 1,800 further items, and a name and a number of 18 further files; the two texts of
    # an item would take more than twice as much.
    assert many - few < 1800 * 60


def every(job: ModalityJob, places: Any) -> list[Any]:
    return [one for some in job.batches(places) for one in some]


def quiet(_: str) -> None:
    return None
