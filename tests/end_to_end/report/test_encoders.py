"""`rec modalities --encoders`: one run on what each encoder makes of the same texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from rec.benchmarks.chat_server import Chat
from rec.cli import main
from rec.config import load
from rec.data.prepared import Prepared
from rec.errors import ConfigError
from rec.report.encoders import variants
from tests.end_to_end.data.test_encoders import small_bert
from tests.support.films import film_tables

RUN = {
    "system": "rec.systems.msmrec:MSMRec",
    "model": {"width": 8, "blocks": 1, "max_length": 6},
    "train": {"epochs": 1, "batch_size": 8},
    "parallel": {"workers": 0},
}


def config(folder: Path, **text: Any) -> str:
    data = film_tables(folder, 12, names=("plot", "title")) | {"root": f"{folder}/data"}
    data["text"] = {"modalities": ["plot", "title"]} | (text or {"width": 8})
    path = folder / "films.toml"
    path.write_text(tomli_w.dumps(RUN | {"out": f"{folder}/run", "data": data}))
    return str(path)


def test_encoders_are_compared_once_and_told(tmp_path: Path, chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    path, bert = config(tmp_path), small_bert(tmp_path)
    asked = f"tfidf, {bert}, {chat.embeddings}#m"
    command = ["modalities", path, "--encoders", asked, "--json", f"{tmp_path}/told.json"]
    assert main(command) == 0
    out = capsys.readouterr().out
    told = json.loads((tmp_path / "told.json").read_text())
    assert [row["encoder"] for row in told["rows"]] == ["tfidf", bert, f"{chat.embeddings}#m"]
    assert [row["encoding"]["width"] for row in told["rows"]] == [8, 8, 8]
    assert [row["encoding"]["texts"] for row in told["rows"]] == [12 * 3] * 3
    assert all(row["parameters"] > 0 and row["encoding"]["seconds"] > 0 for row in told["rows"])
    assert told["rows"][0]["difference"] == ""
    assert " to " in told["rows"][1]["difference"]
    for row in told["rows"]:
        for split in ("val", "test"):
            assert 0 <= row["metrics"][split]["ndcg@10"]["mean"] <= 1
    assert "encoded in s" in out
    assert "on validation" in " ".join(told["notes"])
    html = (tmp_path / "run" / "encoders.html").read_text()
    assert "texts by modality" in html
    assert "by genres" in html
    data = Prepared.open(f"{tmp_path}/data-tfidf")
    before = (data.manifest, chat.told()["requests"], (tmp_path / "run/encoders/tfidf/map.json").read_bytes())
    trained = list((tmp_path / "run").rglob("checkpoints/*/*"))
    stamps = {file: file.stat().st_mtime_ns for file in trained}
    assert stamps
    assert main(command) == 0  # all is there: nothing is prepared, trained or asked again
    capsys.readouterr()
    again = json.loads((tmp_path / "told.json").read_text())
    assert again == told
    data = Prepared.open(f"{tmp_path}/data-tfidf")
    assert (data.manifest, chat.told()["requests"]) == before[:2]
    assert {file: file.stat().st_mtime_ns for file in trained} == stamps
    assert [main([name, path]) for name in ("prepare", "train", "evaluate", "report")] == [0] * 4
    assert "Texts as tfidf sees them" in (tmp_path / "run" / "report.html").read_text()


def test_keys_without_effect_on_an_encoder_are_left_out(tmp_path: Path) -> None:
    found = variants(load(config(tmp_path)), ["tfidf", "models/a", "hashing"])
    texts = [one.config.data.text for one in found]
    assert [(text.encoder, text.width) for text in texts if text] == [("tfidf", 8), ("models/a", 128), ("hashing", 8)]
    assert [one.config.data.root for one in found][1] == f"{tmp_path}/data-models-a"
    assert found[1].seed(2).out == f"{tmp_path}/run/encoders/models-a/seed-2"


def test_the_endpoint_of_the_config_keeps_its_keys(tmp_path: Path) -> None:
    endpoint = {"url": "http://a/v1/embeddings", "model": "m", "dimensions": 4}
    found = variants(
        load(config(tmp_path, encoder="endpoint", endpoint=endpoint)), ["tfidf", "endpoint", "http://b/v1/embeddings#n"]
    )
    keys = [one.config.data.text.endpoint for one in found if one.config.data.text]
    assert [(key.url, key.model, key.dimensions) for key in keys] == [
        ("", "", 0), ("http://a/v1/embeddings", "m", 4), ("http://b/v1/embeddings", "n", 4)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("encoders", "fault"),
    [
        (["tfidf", "tfidf"], "'tfidf' is there twice"),
        (["a/b", "a-b"], "'a-b' is there twice, or cannot be told"),
        (["http://a/v1/embeddings"], r"data.text.endpoint.model: needs the name of a model"),
        (["endpoint"], r"endpoint.url: needs an address"),
    ],
)
def test_encoders_that_cannot_be_are_refused(tmp_path: Path, encoders: list[str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        variants(load(config(tmp_path)), encoders)


def test_a_list_of_none_and_a_config_without_texts_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path)
    assert main(["modalities", path, "--encoders", " , "]) == 1
    assert "--encoders: names none" in capsys.readouterr().err
    run = load(path)
    with pytest.raises(ConfigError, match=r"data.text: is not set"):
        variants(run.model_copy(update={"data": run.data.model_copy(update={"text": None})}), ["tfidf"])
