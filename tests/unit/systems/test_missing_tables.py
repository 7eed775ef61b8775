"""Tables that a data set lacks are told at once: which key wants them, which makes them, what does without."""

import re
from pathlib import Path
from typing import Any

import pytest

from rec.config import from_table
from rec.data.prepared import open_prepared
from rec.errors import DataError
from rec.train.job import build
from tests.support.own import own, own_tables, prepared, write_events


def told(tmp_path: Path, sections: dict[str, Any], system: str, **model: Any) -> str:
    """Return the error of a system on a data set that lacks what it reads."""
    prepared(tmp_path / "data", sections)
    table = {"system": f"rec.systems.{system}", "out": str(tmp_path / "run"), "model": model}
    config = from_table(table | {"data": {"root": str(tmp_path / "data")}})
    with pytest.raises(DataError) as found:
        build(config, open_prepared(config))
    return str(found.value).partition(": ")[2]


@pytest.mark.parametrize(("keys", "name"), [({}, "text"), ({"texts": "concatenated"}, "text_concatenated")])
def test_texts_of_msmrec_can_be_done_without(tmp_path: Path, keys: dict[str, str], name: str) -> None:
    events = {"read": own(tmp_path, write_events(tmp_path / "e.csv")).read}
    assert told(tmp_path, events, "msmrec:MSMRec", **keys) == (
        f"the data set holds no table '{name}', which model.gate wants; it is made by data.text: prepare again with "
        "that, or name what is there in [model], or do without: model.gate=none"
    )


def test_what_a_system_always_reads_is_told_as_such(tmp_path: Path) -> None:
    events = {"read": own(tmp_path, write_events(tmp_path / "e.csv")).read}
    words = (
        r"the data set holds no tables 'item_present', 'user_present', 'item_attributes', 'user_attributes', "
        r"'user_attribute_names', which HealthMoE always reads and no table 'item_text', which model.item wants; "
        r"they are made by data.encode and by data.encode.text.encoder: prepare again"
    )
    found = told(tmp_path, events, "healthmoe:HealthMoE", encoders="frozen", user=["attributes"], item=["text"])
    assert re.match(words, found)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"encoders": "frozen", "user": ["attributes"]}, ["'item_text', 'item_image', which model.item wants"]),
        ({"encoders": "frozen", "item": ["id"], "modality_dropout": 0.1}, ["'user_text', which model.user wants"]),
        (
            {},
            [
                "'user_tokens', which model.user wants",
                "'item_tokens', which model.item wants",
                "'tokenizer', which model.encoders wants",
                "or do without: model.encoders=frozen",
            ],
        ),
    ],
)
def test_texts_and_pictures_are_wanted_by_their_side(tmp_path: Path, model: dict[str, Any], words: list[str]) -> None:
    sections = own_tables(tmp_path, text={"encoder": "tfidf", "tokenizer": ""} if not model else {"width": 4})
    found = told(tmp_path, sections, "healthmoe:HealthMoE", **model)
    assert all(word in found for word in words)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"features": ["image"]}, "no table 'feature_image', which model.features wants"),
        ({"content": {"text": 0.5}}, "no tables 'graph_text_edge', 'graph_text_weight', which model.content wants"),
    ],
)
def test_keys_of_kin_without_words_of_their_own_are_found_by_their_values(
    tmp_path: Path, model: dict[str, Any], words: str
) -> None:
    events = {"read": own(tmp_path, write_events(tmp_path / "e.csv")).read}
    found = told(tmp_path, events, "lightgcn:LightGCN", **model)
    assert words in found
    assert "made by data.content.modalities with " in found
