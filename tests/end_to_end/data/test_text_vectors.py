"""Items that are added are written and encoded alone; what was there stays as it was, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from rec.benchmarks.chat_server import Chat, embedding
from rec.cli import main
from rec.data.encoders import Tfidf
from rec.data.prepared import Prepared
from rec.data.stages.text_vectors import ENCODING
from tests.end_to_end.data.test_encoders import small_bert
from tests.support.films import film_tables

NAMES = ("mood", "narrative")
TEMPLATES = {"templates": {"mood": "{title} of {year} is a {genres}: {plot}", "narrative": "{plot}"}}
TABLES = ("text", "text_concatenated")


def made(folder: Path, count: int, *words: str, modalities: dict[str, Any] = TEMPLATES, **text: Any) -> Prepared:
    """Prepare so many films by the command."""
    sections = film_tables(folder, count, names=NAMES)
    sections["text"] = {"modalities": list(NAMES)} | (text or {"width": 8})
    data = sections | {"root": f"{folder}/data", "modalities": modalities or TEMPLATES}
    table = {"system": "rec.systems.msmrec:MSMRec", "out": f"{folder}/run", "data": data, "parallel": {"workers": 0}}
    path = folder / "films.toml"
    path.write_text(tomli_w.dumps(table))
    assert main(["prepare", str(path), *words]) == 0
    return Prepared.open(f"{folder}/data")


def by_id(data: Prepared, table: str) -> dict[str, bytes]:
    """Return the bytes of the vectors of each item."""
    array = np.array(data.array(table))
    return {item: array[n].tobytes() for n, item in enumerate(data.items["id"].to_pylist(), 1)}


def told(data: Prepared) -> dict[str, Any]:
    found: dict[str, Any] = data.storage.read_json(ENCODING)
    return found


def vectors(data: Prepared) -> dict[str, dict[str, bytes]]:
    return {table: by_id(data, table) for table in TABLES}


def test_tfidf_stays_as_it_was_fitted_and_is_applied_to_new_items(tmp_path: Path) -> None:
    first = made(tmp_path, 9)
    before = vectors(first)
    flat = [text or name for row in zip(*(first.items[n].to_pylist() for n in NAMES), strict=True)
            for text, name in zip(row, NAMES, strict=True)]  # fmt: skip
    data = made(tmp_path, 12, "--again")
    after = vectors(data)
    for table in TABLES:
        assert {item: after[table][item] for item in before[table]} == before[table]
    mood = data.items["mood"].to_pylist()
    place = data.items["id"].to_pylist().index("f11")
    expected = Tfidf.learned(flat, 8)[0].encode([mood[place]])[0]
    assert np.abs(expected).sum() > 0
    np.testing.assert_allclose(np.asarray(data.array("text"))[place + 1, 0], expected, atol=1e-5)
    assert told(data)["encoded"] == 3 + 3  # a new mood of each, and a new text of all; the plots are those of others
    other = tmp_path / "other"
    other.mkdir()
    anew = vectors(made(other, 12))
    assert {item: anew["text"][item] for item in before["text"]} != before["text"]


def test_a_second_time_it_is_still_the_first_fit(tmp_path: Path) -> None:
    made(tmp_path, 9)
    before = vectors(made(tmp_path, 12, "--again"))
    after = vectors(made(tmp_path, 14, "--again"))
    for table in TABLES:
        assert {item: after[table][item] for item in before[table]} == before[table]


def test_a_server_is_asked_for_new_and_changed_texts_alone(tmp_path: Path, chat: Chat) -> None:
    keys: dict[str, Any] = {"encoder": "endpoint", "endpoint": {"url": chat.embeddings, "model": "m"}}
    before = vectors(made(tmp_path, 9, **keys))
    chat.behave()
    data = made(tmp_path, 11, "--again", **keys)
    after = vectors(data)
    for table in TABLES:
        assert {item: after[table][item] for item in before[table]} == before[table]
    asked = chat.told()["asked"]
    items = data.items.to_pylist()
    new = [item for item in items if item["id"] in ("f9", "f10")]
    assert asked == {text: 1 for item in new for text in (item["mood"], f"{item['mood']} {item['narrative']}")}
    place = items.index(new[0])
    np.testing.assert_allclose(np.asarray(data.array("text"))[place + 1, 0], embedding(new[0]["mood"], 8), 1e-6)


def test_a_model_writes_of_new_items_alone(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=list(NAMES))
    writer = {"writer": {"kind": "chat", "url": chat.url, "model": "m"}}
    before = vectors(made(tmp_path, 9, modalities=writer))
    data = made(tmp_path, 12, "--again", modalities=writer)
    assert chat.told()["asked"] == {f"Film {n}": 1 for n in range(12)}
    assert told(data)["encoded"] == 3 * 3
    after = vectors(data)
    assert {item: after["text"][item] for item in before["text"]} == before["text"]


def test_a_transformers_model_encodes_new_texts_alone_until_it_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_bert(tmp_path)
    keys: dict[str, Any] = {"encoder": model, "batch_size": 4}
    before = vectors(made(tmp_path, 9, **keys))
    data = made(tmp_path, 12, "--again", **keys)
    after = vectors(data)
    for table in TABLES:
        assert {item: after[table][item] for item in before[table]} == before[table]
    assert told(data)["encoded"] == 6
    (Path(model) / "README.md").write_text("another version")
    capsys.readouterr()
    assert told(made(tmp_path, 12, "--again", **keys))["encoded"] == 12 * 3
    assert "is not what encoded the texts before: all are encoded anew" in capsys.readouterr().err


def test_another_encoder_takes_over_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, 9)
    data = made(tmp_path, 9, "--again", width=4)
    assert told(data)["encoded"] == 9 * 3
    assert "data.text was another one before" in capsys.readouterr().err


def test_nothing_is_read_again_unless_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = made(tmp_path, 9).manifest
    assert made(tmp_path, 12).manifest == before
    assert "not looked at again (--again does" in " ".join(capsys.readouterr().err.split())


def test_a_damaged_fit_is_told_and_the_data_set_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made(tmp_path, 9)
    file = Path(data.storage.root) / "fitted-text.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(AssertionError):
        made(tmp_path, 12, "--again")
    assert "fitted-text.safetensors: is damaged" in " ".join(capsys.readouterr().err.split())
    assert len(Prepared.open(f"{tmp_path}/data").items) == 9
