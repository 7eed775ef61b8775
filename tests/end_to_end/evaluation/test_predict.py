"""Predictions in files: what evaluation reads of them, what they answer, and how a stopped command goes on."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config import RunConfig, override
from rec.errors import ConfigError, EvaluationError
from rec.evaluation.measure import of_all
from rec.evaluation.predict import (
    PredictionOrder,
    PredictionPart,
    identity,
    parts_of,
    predict,
    read_records,
    rows_per_part,
)
from rec.evaluation.predictor import Predictor, predict_here
from rec.evaluation.records import Records
from rec.evaluation.run import Trained, evaluate_run, open_run
from rec.nn.retrieval import Ask
from rec.storage import Storage


def quiet(_: str) -> None:
    """Say nothing."""


def small(config: RunConfig, *words: str) -> RunConfig:
    """Return the run with few examples in a batch, so that a split has several parts."""
    return override(config, ["train.evaluate_batch_size=16", *words])


def order(config: RunConfig, folder: Path, **changes: Any) -> PredictionOrder:
    return replace(PredictionOrder(config=config, folder=str(folder), split="test"), **changes)


def differences(a: Any, b: Any, at: str = "") -> Iterator[str]:
    """Yield where two plain values differ by more than 1e-9."""
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            yield from differences(a[key], b[key], f"{at}/{key}")
    elif isinstance(a, list) and isinstance(b, list):
        assert len(a) == len(b), at
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{at}/{place}")
    elif isinstance(a, float) and isinstance(b, float):
        if abs(a - b) > 1e-9 and not (np.isnan(a) and np.isnan(b)):
            yield f"{at}: {a} {b}"
    elif a != b:
        yield f"{at}: {a!r} {b!r}"


def same_as_evaluation(config: RunConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that every number of an evaluation is the same where it is read from predictions."""
    expected = evaluate_run(config, "test")
    predict(order(config, folder), predict_here, quiet)
    monkeypatch.setattr(type(open_run(config).system), "states", None)  # no example passes through the model again
    monkeypatch.setattr(type(open_run(config).system), "observed", None)
    found = evaluate_run(config, "test", str(folder))
    assert found["metrics"]
    assert not list(differences(json.loads(json.dumps(expected)), json.loads(json.dumps(found))))


def test_evaluation_of_predictions_is_evaluation_of_users(
    trained: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_as_evaluation(small(trained), tmp_path / "p", monkeypatch)
    assert len(list((tmp_path / "p" / "answers").iterdir())) > 3


def test_evaluation_of_predictions_is_evaluation_of_patients(
    food_trained: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_as_evaluation(small(food_trained), tmp_path / "p", monkeypatch)


class Parted:
    """Measures a split part by part in this process, the last part first."""

    count = 3

    def records(self, run: Trained, split: str, told: Callable[[int], None]) -> dict[str, Records]:
        asked = PredictionOrder(config=run.config, folder=run.config.out, split=split)
        predictor = Predictor(asked, {**identity(run.config), "split": split})
        rows = run.data.split_rows(split)
        parts = parts_of(rows, rows_per_part(rows, run.config.train.evaluate_batch_size))
        assert len(parts) > 3
        found = [predictor.records(part) for part in reversed(parts)]
        told(rows)
        return of_all(found[::-1], run.system)


@pytest.mark.parametrize("kind", ["users", "patients"])
def test_parts_measured_apart_are_what_is_measured_together(
    kind: str, trained: RunConfig, food_trained: RunConfig
) -> None:
    config = small(trained if kind == "users" else food_trained)
    storage = Storage(f"{config.out}/evaluation/test")
    found = []
    for workers, count in ((None, 0), (Parted(), 3)):
        evaluate_run(config, "test", workers=workers)
        assert storage.read_json("measurement.json")["workers"] == count
        found.append({name: storage.sha256(name) for name in storage.list() if name != "measurement.json"})
        assert {"metrics.json", "sections.json", "ranking.parquet"} <= found[-1].keys()
    assert found[0] == found[1]


def test_answers_are_the_raw_ids_that_a_request_would_get(trained: RunConfig, tmp_path: Path) -> None:
    from rec.evaluation.tasks.ranking.answers import recommend_batch

    run = open_run(trained)
    for most in (5, 30):  # from the records' best items, and ranked anew
        predict(order(trained, tmp_path / str(most), most=most), predict_here, quiet)
        table = pq.read_table(tmp_path / str(most) / "answers")
        batches = [batch for batch, _ in run.feed.evaluate("test")]
        expected = [
            a for b in batches for a in recommend_batch(run.system, run.module.eval(), b, [Ask(k=most)] * len(b))
        ]
        raw = run.data.items["id"].to_pylist()
        assert table["user"].to_pylist() == run.data.users["id"].take(run.data.rows("test")["user"]).to_pylist()
        assert table["row"].to_pylist() == list(range(len(expected)))
        for found, wanted in zip(table.to_pylist(), expected, strict=True):
            assert found["items"] == [raw[index - 1] for index in wanted["items"]]
            np.testing.assert_allclose(found["scores"], wanted["scores"], atol=1e-5)


def test_nothing_forbidden_is_answered_and_the_notice_stands_in_the_file(
    food_trained: RunConfig, tmp_path: Path
) -> None:
    predict(order(food_trained, tmp_path / "p"), predict_here, quiet)
    (file, *_) = sorted((tmp_path / "p" / "answers").iterdir())
    assert pq.read_schema(file).metadata[b"notice"] == b"not dietary or medical advice"
    run = open_run(food_trained)
    raw = {name: place + 1 for place, name in enumerate(run.data.items["id"].to_pylist())}
    contains, avoid = run.system.static["item_contains"], run.system.static["user_avoid"]
    users = run.data.rows("test")["user"].to_pylist()
    for row, user in zip(pq.read_table(tmp_path / "p" / "answers").to_pylist(), users, strict=True):
        assert row["items"]
        for name in row["items"]:
            assert not (contains[raw[name]] & avoid[user]).any()


class Stopped(Exception):
    """What stands for a command that is killed."""


class NoNotes(Storage):
    """Stops where a part would count as whole: its files are there by then."""

    def write_json(self, name: str, value: Any) -> None:
        raise Stopped


def stopping(after: int, made: list[int]) -> Callable[..., Iterator[dict[str, Any]]]:
    """Return a way to make parts that ends in the middle of one, and notes which it has begun."""

    def run_parts(
        order: PredictionOrder, claim: dict[str, Any], parts: Sequence[PredictionPart], told: Callable[[int], None]
    ) -> Iterator[dict[str, Any]]:
        predictor = Predictor(order, claim, told)
        for count, part in enumerate(parts):
            made.append(part.number)
            if count == after:
                predictor.storage = NoNotes(predictor.storage.uri)
            yield predictor(part)

    return run_parts


def test_a_stopped_command_goes_on_and_redoes_nothing_that_is_whole(trained: RunConfig, tmp_path: Path) -> None:
    config = small(trained)
    whole = predict(order(config, tmp_path / "whole"), predict_here, quiet)
    made: list[int] = []
    with pytest.raises(Stopped):
        predict(order(config, tmp_path / "p"), stopping(3, made), quiet)
    assert not (tmp_path / "p" / "manifest.json").exists()
    with pytest.raises(Exception, match="no finished predictions here"):
        read_records(str(tmp_path / "p"), open_run(config), "test")
    (tmp_path / "p" / "answers" / "part-00004.parquet.0123abcd.tmp").write_bytes(b"left behind")
    (tmp_path / "p" / "answers" / "part-00001.parquet").write_bytes(b"damaged")
    made.clear()
    said: list[str] = []
    found = predict(order(config, tmp_path / "p"), stopping(99, made), said.append)
    assert made == [1, *range(3, len(parts_of(301, 16)))]
    assert "32 of 301 examples are there already" in said[0]
    assert [entry["sha256"] for entry in found["files"]] == [entry["sha256"] for entry in whole["files"]]
    assert len(pq.read_table(tmp_path / "p" / "answers")) == 301
    made.clear()
    predict(order(config, tmp_path / "p"), stopping(0, made), said.append)
    assert not made
    assert "all of it is there already" in said[-1]


@pytest.mark.parametrize(
    ("change", "key"),
    [({"most": 20}, "most"), ({"split": "val"}, "split"), ({"config": "evaluate.cold_count=3"}, "config")],
)
def test_another_order_in_the_same_folder_is_refused(
    trained: RunConfig, tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    first = order(trained, tmp_path / "p")
    predict(first, predict_here, quiet)
    if key == "config":
        change = {"config": override(trained, [change["config"]])}
    with pytest.raises(ConfigError, match=rf"holds predictions of .*, whose {key} is .* choose another folder"):
        predict(replace(first, **change), predict_here, quiet)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="holds files that are no predictions"):
        predict(order(trained, tmp_path / "other"), predict_here, quiet)


def test_predictions_of_another_run_or_split_are_refused(
    trained: RunConfig, run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    from rec.train.job import train_here

    predict(order(trained, tmp_path / "p"), predict_here, quiet)
    with pytest.raises(EvaluationError, match=r"on test, expected .* on val; run `rec predict CONFIG` for it"):
        evaluate_run(trained, "val", str(tmp_path / "p"))
    other = run_config(train={"epochs": 1})
    train_here(other, lambda _: None, quiet)
    with pytest.raises(
        EvaluationError, match=r"predictions of .* at step \d+ on test, expected .* \(weights differs\)"
    ):
        evaluate_run(other, "test", str(tmp_path / "p"))


def test_a_damaged_file_is_refused(trained: RunConfig, tmp_path: Path) -> None:
    found = predict(order(trained, tmp_path / "p"), predict_here, quiet)
    name = next(entry["name"] for entry in found["files"] if entry["name"].startswith("records"))
    file = tmp_path / "p" / name
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    with pytest.raises(Exception, match="checksum differs from the manifest; run `rec predict CONFIG` again"):
        evaluate_run(trained, "test", str(tmp_path / "p"))


def test_parts_are_whole_batches() -> None:
    assert rows_per_part(100, 256) == 256
    assert rows_per_part(35_598, 256) == 256 * 4
    assert rows_per_part(10**7, 256) == 4096
    assert rows_per_part(10**7, 5000) == 5000
    parts = parts_of(1000, 256)
    assert [part.stop - part.start for part in parts] == [256, 256, 256, 232]
    assert parts_of(0, 256) == []


def requests_in(folder: Path, kind: str, rows: list[dict[str, Any]]) -> str:
    path = folder / f"people.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = [f"{row.get('user') or ''},{'|'.join(row['history'])}" for row in rows]
        path.write_text("\n".join(["user,history", *lines]))
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_requests_get_the_answers_of_the_split(trained: RunConfig, tmp_path: Path, kind: str) -> None:
    run = open_run(trained)
    rows, raw = run.data.rows("test").to_pylist()[:40], run.data.items["id"].to_pylist()
    users = run.data.users["id"].to_pylist()
    told = [{"user": users[row["user"]], "history": [raw[index - 1] for index in row["history"]]} for row in rows]
    table = requests_in(tmp_path, kind, told)
    predict(order(trained, tmp_path / "p"), predict_here, quiet)
    predict(order(small(trained), tmp_path / "r", split=None, requests=table), predict_here, quiet)
    expected = pq.read_table(tmp_path / "p" / "answers").slice(0, 40)
    found = pq.read_table(tmp_path / "r" / "answers")
    assert found["user"].to_pylist() == expected["user"].to_pylist()
    assert found["items"].to_pylist() == expected["items"].to_pylist()
    assert found["error"].null_count == 40
    assert not (tmp_path / "r" / "records").exists()


def test_what_is_wrong_with_a_request_stands_in_its_row(trained: RunConfig, tmp_path: Path) -> None:
    raw = open_run(trained).data.items["id"].to_pylist()
    lines = [
        json.dumps({"user": "nobody", "history": [raw[0], "unheard", raw[1]]}),
        "{broken",
        json.dumps({"history": ["unheard"]}),
        json.dumps({"user": None, "history": [raw[2]], "age": 7}),
        json.dumps({"user": 1.5, "history": [raw[2]]}),
        json.dumps({"user": "1"}),
        json.dumps({"history": {"a": 1}}),
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    said: list[str] = []
    asked = order(trained, tmp_path / "p", split=None, requests=str(tmp_path / "r.jsonl"))
    manifest = predict(asked, predict_here, said.append)
    rows = pq.read_table(tmp_path / "p" / "answers").to_pylist()
    assert rows[0]["notes"] == [
        "column 'user': user 'nobody' is not known",
        "column 'history': 1 of 3 are not known as item, such as 'unheard'",
    ]
    assert len(rows[0]["items"]) == len(rows[3]["items"]) == 10
    assert [row["error"] is None for row in rows] == [True, False, False, True, False, False, False]
    assert "not JSON" in rows[1]["error"]
    assert "history is empty" in rows[2]["error"]
    assert rows[4]["error"] == "column 'user': input should be a valid string, got '1.5'"
    assert rows[5]["error"] == "column 'history': field required"
    assert "should be a valid list" in rows[6]["error"]
    assert all(row["items"] is None for row in rows if row["error"])
    assert (manifest["examples"], manifest["errors"], manifest["noted"]) == (
        7,
        5,
        2,
    )  # nobody and unheard; "1" has no history, so it is not answered
    assert "columns of the table that are not read: age" in said[0]


def test_parts_without_any_answer_have_the_columns_of_the_others(trained: RunConfig, tmp_path: Path) -> None:
    raw = open_run(trained).data.items["id"].to_pylist()
    config = override(trained, ["train.evaluate_batch_size=1024"])
    rows = [{"history": []}] * 1024 + [{"history": [raw[5]]}]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    predict(order(config, tmp_path / "p", split=None, requests=str(tmp_path / "r.jsonl")), predict_here, quiet)
    table = pq.read_table(tmp_path / "p" / "answers")
    assert len(sorted((tmp_path / "p" / "answers").iterdir())) == 2
    assert table["items"].null_count == 1024
    assert len(table["items"][1024]) == 10


def test_the_command_line(trained: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rec.cli import main
    from rec.config import to_toml

    file = tmp_path / "run.toml"
    file.write_text(to_toml(trained))
    folder = str(tmp_path / "p")
    assert main(["predict", str(file), "--to", folder]) == 0
    assert "predict test 0/301" in capsys.readouterr().err
    assert main(["evaluate", str(file), "--predictions", folder, "--workers", "2"]) == 1
    assert "--predictions run no model; expected no --workers" in capsys.readouterr().err
    assert main(["evaluate", str(file), "--predictions", folder]) == 0
    assert "301 examples of the test split" in capsys.readouterr().out
    (tmp_path / "r.jsonl").write_text('{"user": "1"}')
    words = ["predict", str(file), "--requests", str(tmp_path / "r.jsonl"), "--to", str(tmp_path / "r")]
    assert main(words) == 0
    assert "warning: 1 of 1 rows have no answer" in capsys.readouterr().err
    assert main([*words, "--strict"]) == 1
    assert main(["predict", str(file), "--to", folder, "--k", "0"]) == 1
