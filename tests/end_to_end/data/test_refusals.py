"""What would have no effect, or not the wanted one, is refused before anything is read."""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rec.config import from_json, from_table, override, to_json
from rec.data.config import SplitConfig, TextConfig
from rec.data.prepare import prepare
from rec.data.prepared import open_prepared
from rec.data.runner import InProcess
from rec.errors import ConfigError, EvaluationError
from rec.evaluation.protocol import data_of
from rec.evaluation.run import evaluate_run, read_numbers
from rec.serving.export import export
from rec.train.job import open_data, train_here
from tests.conftest import planted_config
from tests.support.own import own, own_tables, prepared, quiet, write_events


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
        (
            {"views": ["nope"]},
            "data.views: no view 'nope'; there are sequences, pairs, graph, visits, sentences, records",
        ),
    ],
)
def test_keys_without_effect_are_refused_by_name(tmp_path: Path, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prepared(tmp_path / "data", own_tables(tmp_path) | sections)
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_a_text_that_the_table_holds_is_not_written_by_template(tmp_path: Path) -> None:
    sections = own_tables(tmp_path)
    items = Path(sections["read"]["items"])
    table = pd.read_parquet(items)
    table.assign(narrative="what truly happens").to_parquet(items)
    with pytest.raises(ConfigError, match=r"has a column 'narrative', which is not read; name it in data.read.keep"):
        prepared(tmp_path / "data", sections | {"text": {"modalities": ["narrative"]}})
    kept = sections["read"] | {"keep": [*sections["read"].get("keep", ()), "narrative"]}
    data = prepared(tmp_path / "data", sections | {"read": kept, "text": {"modalities": ["narrative"]}})
    assert set(data.items["narrative"].to_pylist()) == {"what truly happens"}


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


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"content": {"modalities": ["text"]}},
            r"data.content.modalities: nothing makes frozen vectors of 'text'; set",
        ),
        ({"content": {"modalities": ["image"]}, "encode": {}}, "of 'image'; set data.encode.image.encoder"),
        ({"filter": {"minimum_user_count": 2}}, "data.filter.minimum_user_count: 2, expected at least 4"),
    ],
)
def test_what_the_config_alone_tells_is_refused_before_a_file_is_opened(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare(own(tmp_path / "data", tmp_path / "nowhere.csv", **sections), InProcess(), quiet)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"content": {"modalities": ["text"]}, "encode": {"text": {"encoder": "tfidf"}}},
            "brings no text of items here",
        ),
        (
            {"content": {"modalities": ["image"]}, "encode": {"image": {"encoder": "raw"}}},
            "brings no image of items here",
        ),
        ({"split": {"protocol": "given"}}, "data.split.protocol: 'given' needs a source that brings the split"),
        ({"split": {"protocol": "time"}}, "data.split.protocol: 'time' needs a source that tells when"),
    ],
)
def test_what_the_columns_tell_is_refused_before_rows_are_read(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    (tmp_path / "e.csv").write_text("who,what\na,b\n")
    read = {"columns": {"user": "who", "item": "what"}}
    with pytest.raises(ConfigError, match=words):
        prepare(own(tmp_path / "data", tmp_path / "e.csv", read=read, **sections), InProcess(), quiet)


def test_a_point_in_time_may_be_a_date_of_toml() -> None:
    split = SplitConfig.model_validate(
        {"protocol": "time", "validation_from": date(2023, 7, 1), "test_from": date(2023, 9, 1)}
    )
    assert (split.validation_from, split.test_from) == ("2023-07-01", "2023-09-01")


def test_a_run_goes_on_and_is_measured_and_exported_on_the_data_that_it_was_trained_on_alone(tmp_path: Path) -> None:
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
    others = {
        r"was trained on split \w{12}, but .* holds \w{12} now; prepare as before": planted_config(
            tmp_path / "data", users=60, interactions=1200, seed=1
        ),
        r"was trained on data set \w{12}, but .* holds \w{12} now; prepare as before": planted_config(
            tmp_path / "data", users=60, interactions=1200
        ).model_copy(update={"text": TextConfig(modalities=("narrative", "visual"), width=16)}),
    }
    for words, other in others.items():
        prepare(other, InProcess(), quiet)
        with pytest.raises(ConfigError, match=words):
            evaluate_run(config, "test")
        with pytest.raises(ConfigError, match=words):
            train_here(config, lambda _: None, quiet)
        with pytest.raises(ConfigError, match=words):
            export(config, str(tmp_path / "artifact"), quiet)
    prepare(data, InProcess(), quiet)
    train_here(config, lambda _: None, quiet)
    assert export(config, str(tmp_path / "artifact"), quiet).manifest["data"] == data_of(open_prepared(config).manifest)
    assert evaluate_run(config, "test") == read_numbers(config.out, "test")
    told = tmp_path / "run" / "evaluation" / "test" / "measurement.json"
    told.write_text(told.read_text().replace(data_of(open_prepared(config).manifest)["sha256"], "0" * 64))
    with pytest.raises(
        EvaluationError, match="measured on another data set than it was trained on; run `rec evaluate`"
    ):
        read_numbers(config.out, "test")


def test_a_run_is_not_trained_on_data_that_were_prepared_otherwise(tmp_path: Path) -> None:
    data = planted_config(tmp_path / "data", users=60, interactions=1200)
    prepare(data, InProcess(), quiet)
    table = {
        "system": "rec.systems.msmrec:MSMRec",
        "out": str(tmp_path / "run"),
        "model": {"width": 8, "blocks": 1, "max_length": 8},
        "data": {"root": data.root, "source": data.source, "filter": {"core": 2}},
        "train": {"batch_size": 32},
    }
    with pytest.raises(ConfigError, match=r"^data.filter.core: 2, but .*/data was prepared with 0; prepare again"):
        train_here(from_table(table), lambda _: None, quiet)
    assert not (tmp_path / "run").exists()
    table["data"] = {"root": data.root, "source": data.source, "split": {"protocol": "leave-one-out"}}
    config = from_table(table)
    for same in (config, from_json(to_json(config)), override(config, ["train.seed=1"])):
        assert open_data(same).num_users == 60


def test_a_search_does_not_go_on_with_other_data_than_its_trials_were_trained_on(tmp_path: Path) -> None:
    from rec.runtime.tuning import search

    data = planted_config(tmp_path / "data", users=60, interactions=1200)
    prepare(data, InProcess(), quiet)
    table = {
        "system": "rec.systems.msmrec:MSMRec",
        "out": str(tmp_path / "search"),
        "model": {"width": 8, "blocks": 1, "max_length": 8},
        "data": {"root": data.root},
        "train": {"batch_size": 32},
        "tune": {"space": {"train.learning_rate": {"log": [1e-3, 1e-2]}}},
    }
    trial = table | {"out": str(tmp_path / "search" / "trials" / "t0" / "run")}
    train_here(from_table(trial), lambda _: None, quiet)
    prepare(planted_config(tmp_path / "data", users=60, interactions=1200, seed=1), InProcess(), quiet)
    with pytest.raises(ConfigError, match=r"t0/run was trained on split \w{12}, but .* holds \w{12} now"):
        search(from_table(table), quiet)
