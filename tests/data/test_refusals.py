"""What would have no effect, or not the wanted one, is refused before anything is read."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from rec.config import from_table
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.errors import ConfigError
from rec.evaluation.run import evaluate_run
from rec.keys_data import SplitConfig
from rec.train.job import train_here
from tests.conftest import planted_config
from tests.data.own import own, own_tables, prepared, quiet, write_events


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"text": {"modalities": ["wrds"]}},
            r"data.text.modalities: 'wrds' is neither a column .*did you mean 'words'?",
        ),
        ({"text": {"modalities": ["naratve"]}}, r"data.text.modalities: 'naratve' .*did you mean 'narrative'?"),
        ({"content": {"neighbours": 3}}, "data.content: has no effect without data.content.modalities"),
        ({"content": {"search": "ivf"}}, "data.content: has no effect without data.content.modalities"),
        ({"views": ["rec.data.schema:Source"]}, "data.views: no view 'rec.data.schema:Source'"),
        ({"views": ["nope"]}, "data.views: no view 'nope'; there are sequences, pairs, graph, records"),
    ],
)
def test_keys_without_effect_are_refused_by_name(tmp_path: Path, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prepared(tmp_path / "data", own_tables(tmp_path) | sections)
    assert not (tmp_path / "data" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("read", "sections", "words"),
    [
        ({}, {"text": {"modalities": ["narrative"]}}, "data.text: has no effect"),
        ({}, {"encode": {}}, "data.encode: has no effect"),
        ({}, {"filter": {"minimum_rating": 3.0}}, "data.filter.minimum_rating: has no effect"),
        ({}, {"filter": {"required": ["image"]}}, "data.filter.required: .* brings no image"),
        ({"columns": {"user": "who", "item": "what", "part": "when"}}, {}, "data.split.protocol: the source brings"),
    ],
)
def test_what_a_source_does_not_bring_cannot_be_used(
    tmp_path: Path, read: dict[str, Any], sections: dict[str, Any], words: str
) -> None:
    config = own(tmp_path / "data", write_events(tmp_path / "e.csv"), read=read, **sections)
    with pytest.raises(ConfigError, match=words):
        prepare(config, InProcess(), quiet)


def test_a_point_in_time_may_be_a_date_of_toml() -> None:
    split = SplitConfig.model_validate(
        {"protocol": "time", "validation_from": date(2023, 7, 1), "test_from": date(2023, 9, 1)}
    )
    assert (split.validation_from, split.test_from) == ("2023-07-01", "2023-09-01")


def test_a_run_is_not_measured_on_another_split_than_it_was_trained_on(tmp_path: Path) -> None:
    data = planted_config(tmp_path / "data", users=60, interactions=1200)
    prepare(data, InProcess(), quiet)
    table = {
        "system": "rec.systems.msmrec:MSMRec",
        "out": str(tmp_path / "run"),
        "model": {"width": 8, "blocks": 1, "max_length": 8},
        "data": {"root": data.root},
        "train": {"batch_size": 32},
    }
    config = from_table(table)
    train_here(config, lambda _: None, quiet)
    evaluate_run(config, "test")
    prepare(planted_config(tmp_path / "data", users=60, interactions=1200, seed=1), InProcess(), quiet)
    for again in (lambda: evaluate_run(config, "test"), lambda: train_here(config, lambda _: None, quiet)):
        with pytest.raises(ConfigError, match=r"was trained on split .* holds .* now; prepare as before"):
            again()
    longer = from_table(table | {"train": {"batch_size": 32, "epochs": 4}})
    with pytest.raises(ConfigError, match=r"data.root: .* was trained on split"):
        train_here(longer, lambda _: None, quiet)
