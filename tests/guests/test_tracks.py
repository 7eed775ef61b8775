"""What a writer is told of the truth and how its texts are cut is told with every score, and keeps tables apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from rec.cli import main
from rec.config import RunConfig, from_table, override, to_json, to_table
from rec.errors import EvaluationError
from rec.evaluation.compare import compare
from rec.evaluation.predict import order_of, predict, read_records
from rec.evaluation.predictor import predict_here
from rec.evaluation.run import Numbers, evaluate_run, open_run, read_numbers
from rec.evaluation.tasks.writing import baselines as simple
from rec.report.page import write_report
from rec.report.results.page import write_results
from rec.storage import Storage
from rec.systems.capabilities import Decoding, Truth
from rec.train.job import build
from tests.guests.test_guests import text_of
from tests.guests.writer_guest import Reviewer

FACTUAL = ["factual", "hallucinated", "factual_coverage", "factual_pairs"]


class ToldReviewer(Reviewer):
    """The guest, as if the true feature stood in its prompt."""

    def truth_given(self) -> tuple[Truth, ...]:
        return ("feature",)


Measured = tuple[RunConfig, Numbers]


@pytest.fixture(scope="module")
def again(trained: dict[str, RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Measured]:
    """Measure the writer's checkpoint as a run of its own, with other keys."""

    def measure(name: str, **keys: Any) -> Measured:
        folder = tmp_path_factory.mktemp("runs") / name
        shutil.copytree(trained["writer"].out, folder)
        (folder / "settled.json").unlink(missing_ok=True)
        config = from_table(to_table(trained["writer"]) | {"out": str(folder)} | keys)
        (folder / "config.json").write_text(to_json(config))
        return config, evaluate_run(config, "test")

    return measure


@pytest.fixture(scope="module")
def told(again: Callable[..., Measured]) -> Measured:
    return again("told", system="tests.guests.test_tracks:ToldReviewer")


def test_settings_are_filed_and_told_with_every_score(
    numbers: dict[str, Numbers], told: Measured, trained: dict[str, RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = numbers["writer"]["settings"]
    assert settings["writing"]["track"] == "leak-free"
    assert settings["rating"] == {"predictions": "clipped to 1 to 5"}
    assert numbers["writer"]["apart"] == {
        "writing": {
            "track": "leak-free",
            "scored": "all words",
            "signs": "as written",
            "decoding": "the most probable token each time",
        }
    }
    assert told[1]["settings"]["writing"]["track"] == "given the true feature"
    page = text_of(write_report(told[0].out))
    assert "track given the true feature; scored all words; signs as written; decoding the most probable" in page
    assert main(["evaluate", trained["writer"].out]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Writing: track leak-free; scored all words; signs as written; decoding the most probable token" in printed
    for name in (simple.TRUE_TEMPLATE, simple.FIRST_OF_ITEM, "mean rating with biases"):
        assert name in printed, name


def test_factuality_stands_first_with_intervals_groups_and_simple_answers(numbers: dict[str, Numbers]) -> None:
    found = numbers["writer"]
    assert found["shown"][:4] == FACTUAL
    metrics = found["metrics"]
    assert 0.5 < metrics["factual"] <= 1
    assert metrics["hallucinated"] == pytest.approx(1 - metrics["factual"])
    assert found["interval"]["factual"]["low"] <= metrics["factual"] <= found["interval"]["factual"]["high"]
    copy = found["tasks"]["writing"]["baselines"][simple.FIRST_OF_ITEM]
    assert copy["factual"] == 1
    assert found["tasks"]["writing"]["statements"]["opinions"] == 3
    groups = found["tasks"]["writing"]["groups"]
    assert all({"factual", "bleu4", "usr", "fcr", "div"} <= entry.keys() for entry in groups.values())


def test_runs_of_two_tracks_are_never_compared(
    numbers: dict[str, Numbers], told: Measured, trained: dict[str, RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {entry["metric"]: entry for entry in compare(trained["writer"].out, told[0].out, 100)}
    assert found["bleu4"]["difference"] is None
    assert found["bleu4"]["why"] == "never compared: track leak-free and given the true feature"
    assert found["rmse"]["difference"]["mean"] == 0  # ratings are told nothing
    assert main(["evaluate", "--compare", trained["writer"].out, told[0].out]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("never compared") == 1
    assert "metrics never compared: track leak-free and given the true feature: factual, hallucinated," in printed
    assert "rmse" in printed.rpartition("share of resamples")[2]
    assert "A, writing: track leak-free; scored all words" in printed
    assert "B, writing: track given the true feature; scored all words" in printed
    assert "A and B, rating: predictions clipped to 1 to 5" in printed
    same = {entry["metric"]: entry for entry in compare(told[0].out, told[0].out, 100)}
    assert same["factual"]["difference"]["mean"] == same["bleu4"]["difference"]["mean"] == 0


def test_tables_of_results_are_of_one_track(
    numbers: dict[str, Numbers], told: Measured, trained: dict[str, RunConfig], tmp_path: Path
) -> None:
    page, plain = write_results([trained["writer"].out, told[0].out], "tracks", str(tmp_path), resamples=100)
    tables = json.loads(Path(plain).read_text())["tables"]
    assert [len(table["lines"]) for table in tables] == [1, 1]
    by_track = {table["apart"]["writing"]["track"]: table for table in tables}
    assert set(by_track) == {"leak-free", "given the true feature"}
    text = Path(page).read_text()
    for track in by_track:
        assert f"track {track}" in next(line for line in text.split("\n") if line.startswith("## ") and track in line)
    assert "measured with other settings stand in a table of their own" in text
    assert "decoding the most probable token each time; length at most 16 tokens" in text
    free, given = by_track["leak-free"], by_track["given the true feature"]
    assert free["told_more"] == sorted(simple.LEAKS)
    assert given["told_more"] == []
    assert simple.TRUE_TEMPLATE in given["best"]["fmr"]
    assert not set(free["best"]["fmr"]) & set(simple.LEAKS)
    assert {entry["label"] for entry in free["baselines"]} >= set(simple.LEAKS)  # shown all the same


def test_what_was_measured_by_other_keys_is_kept_and_told(again: Callable[..., Measured]) -> None:
    config, _ = again("kept", evaluate={"bootstrap": 100})
    storage, said = Storage(config.out), list[str]()
    whole = storage.read("evaluation/test/metrics.json")
    evaluate_run(config, "test", say=said.append)
    assert (said, storage.list("evaluation")) == ([], ["test"])  # by the same keys it is made again
    short = override(config, ["evaluate.words=3", "evaluate.decoding.max_tokens=5"])
    evaluate_run(short, "test", say=said.append)
    (name,) = set(storage.list("evaluation")) - {"test"}
    (told,) = said
    assert told == (
        f"{config.out}: the former measurement of test, with evaluate.words=unset, "
        f"evaluate.decoding.max_tokens=unset, is kept in evaluation/{name}"
    )
    assert storage.read(f"evaluation/{name}/metrics.json") == whole
    assert storage.exists(f"evaluation/{name}/writing.parquet")
    assert read_numbers(config.out, "test")["settings"]["writing"]["scored"] == "the first 3 words of both texts"
    evaluate_run(config, "test", say=said.append)  # back again: the short one is kept now, the whole one is current
    assert storage.read("evaluation/test/metrics.json") == whole
    (other,) = set(storage.list("evaluation")) - {"test"}
    assert other != name
    assert "with evaluate.words=3, evaluate.decoding.max_tokens=5, is kept" in said[-1]


@pytest.mark.parametrize(("keys", "scored"), [({"words": 3}, "the first 3 words of both texts")])
def test_other_cuts_are_told_and_stand_apart(
    again: Callable[..., Measured], trained: dict[str, RunConfig], numbers: dict[str, Numbers], keys: Any, scored: str
) -> None:
    config, found = again("cut", evaluate={"bootstrap": 100, **keys})
    assert found["settings"]["writing"]["scored"] == scored
    assert found["metrics"]["bleu4"] == 0  # no text has four words
    assert numbers["writer"]["metrics"]["bleu4"] > 50
    entry = next(e for e in compare(trained["writer"].out, config.out, 100) if e["metric"] == "bleu1")
    assert entry["why"] == f"never compared: scored all words and {scored}"
    assert Storage(config.out).read_json("settled.json")["tasks"] == {"writing": {"most_words": 3}}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"temperature": 1.5, "seed": 4}, "drawn with temperature 1.5, seed 4"),
        ({"beams": 2, "length_penalty": -2.0}, "the best text of a beam search, beams 2, length_penalty -2.0"),
    ],
)
def test_other_ways_of_writing_are_followed_told_and_stand_apart(
    again: Callable[..., Measured],
    trained: dict[str, RunConfig],
    numbers: dict[str, Numbers],
    tmp_path: Path,
    keys: dict[str, Any],
    words: str,
) -> None:
    asked = {"evaluate": {"bootstrap": 100, "decoding": {"max_tokens": 9, **keys}}}
    config, found = again(words.replace(" ", "_"), **asked)
    assert found["settings"]["writing"]["decoding"] == words
    assert found["settings"]["writing"]["length"] == "at most 9 tokens"
    run = open_run(trained["writer"])
    (batch,) = [batch for batch, _ in run.feed.evaluate("test")]
    with torch.inference_mode():
        texts = run.system.write(run.module, batch, Decoding(max_tokens=9, **keys))
    with Storage(config.out).open("evaluation/test/writing.parquet") as file:
        assert pq.read_table(file)["text"].to_pylist() == texts
    assert build(config, run.data).tasks[0].decoding == Decoding(max_tokens=9, **keys)  # in training too
    predicted = predict(order_of(config, k=1), predict_here, str)
    with Storage(f"{config.out}/predictions/test").open(predicted["files"][0]["name"]) as file:
        assert pq.read_table(file)["text"].to_pylist() == texts
    with pytest.raises(EvaluationError, match="config differs"):
        read_records(f"{config.out}/predictions/test", replace(run, config=without_decoding(config)), "test")
    entry = next(e for e in compare(trained["writer"].out, config.out, 100) if e["metric"] == "bleu1")
    assert entry["why"] == f"never compared: decoding the most probable token each time and {words}"
    page, plain = write_results([trained["writer"].out, config.out], "ways", str(tmp_path), resamples=100)
    assert [len(table["lines"]) for table in json.loads(Path(plain).read_text())["tables"]] == [1, 1]
    heads = [line for line in Path(page).read_text().split("\n") if line.startswith("## ")]
    (head,) = [line for line in heads if f"decoding {words}" in line]
    for key, value in {"max_tokens": 9, **keys}.items():
        assert f"evaluate.decoding.{key}={value}" in head
    assert any("evaluate.decoding.max_tokens=none" in line for line in heads)


def without_decoding(config: RunConfig) -> RunConfig:
    """Return the same run measured as its task does."""
    return from_table(to_table(config) | {"evaluate": {"bootstrap": 100}})


def test_the_report_shows_the_best_and_the_worst_texts(trained: dict[str, RunConfig], numbers: Any) -> None:
    page = text_of(write_report(trained["writer"].out))
    for words in (
        "the best by rouge_l_f1",
        "the worst by rouge_l_f1",
        "drawn at random",
        "Measured with track: leak-free",
    ):
        assert words in page, words
