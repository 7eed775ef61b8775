"""What guests answer in files and over HTTP: the same as evaluation records, asked in raw ids, without labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from rec.cli import main
from rec.config import RunConfig, to_toml
from rec.evaluation.predict import PredictionOrder, predict
from rec.evaluation.predictor import predict_here
from rec.evaluation.run import Numbers, evaluate_run
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.serving.export import export
from tests.end_to_end.serving.test_app import Noted
from tests.guests.conftest import GUESTS, quiet

pytestmark = pytest.mark.slow

VISITS = [
    {"patient": "patient 3", "visits": [["code 1", "code 4"], ["code 1", "code 7"]], "previous": ["molecule 2"]},
    {"visits": [["code 5", "code 9"]]},
    {"patient": "nobody", "visits": [["code 5", "no such code", "code 9"]]},
    {"patient": "patient 3"},
]
PAIRS = [
    {"user": "user 5", "item": "item 7"},
    {"user": "user 6", "item": "item 7"},
    {"user": "nobody", "item": "item 7"},
]


@pytest.mark.parametrize("guest", GUESTS)
def test_evaluation_of_predictions_is_evaluation_of_the_model(
    trained: dict[str, RunConfig], numbers: dict[str, Numbers], tmp_path: Path, guest: str
) -> None:
    predict(PredictionOrder(config=trained[guest], folder=str(tmp_path / "p"), split="test"), predict_here, quiet)
    found = evaluate_run(trained[guest], "test", str(tmp_path / "p"))
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(numbers[guest]))


def answers(config: RunConfig, folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers to a table of requests."""
    folder.mkdir()
    (folder / "requests.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    order = PredictionOrder(
        config=config, folder=str(folder / "p"), split=None, requests=str(folder / "requests.jsonl")
    )
    predict(order, predict_here, quiet)
    return pq.read_table(folder / "p" / "answers").to_pylist()


def test_visits_are_answered_by_raw_ids(trained: dict[str, RunConfig], tmp_path: Path) -> None:
    found = answers(trained["sets"], tmp_path / "asked", VISITS)
    assert found[0]["labels"]
    assert all(label.startswith("molecule ") for label in found[0]["labels"])
    assert found[0]["probabilities"] == sorted(found[0]["probabilities"], reverse=True)
    assert min(found[0]["probabilities"]) >= 0.5
    assert found[1]["labels"] == found[2]["labels"]  # what is not known is left out and told
    assert any("no such code" in note for note in found[2]["notes"])
    assert "visits" in found[3]["error"]


def test_pairs_are_answered_with_text_and_rating(trained: dict[str, RunConfig], tmp_path: Path) -> None:
    found = answers(trained["writer"], tmp_path / "asked", PAIRS)
    for answer in found[:2]:
        assert answer["text"].endswith(" .")
        assert 1 <= answer["rating"] <= 5
    assert found[0]["text"] != found[1]["text"]  # the users are of different clusters
    assert "nobody" in found[2]["error"]


def test_the_command_line_predicts_a_split(trained: dict[str, RunConfig], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(to_toml(trained["writer"]))
    words = ["predict", str(tmp_path / "run.toml"), "--to", str(tmp_path / "p"), "parallel.workers=0"]
    assert main(words) == 0
    table: pa.Table = pq.read_table(tmp_path / "p" / "answers")
    assert {"user", "item", "text", "rating"} <= set(table.column_names)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("guest", "answer"), [("sets", "labels"), ("writer", "text")])
def test_workers_predict_what_one_process_does(
    ray_runtime: None, trained: dict[str, RunConfig], tmp_path: Path, guest: str, answer: str
) -> None:
    from rec.config import override
    from rec.runtime.predict import predict_on_ray

    config = override(trained[guest], ["parallel.workers=2", "train.evaluate_batch_size=16"])
    tables = {}
    for name, run_parts in (("here", predict_here), ("there", predict_on_ray)):
        predict(PredictionOrder(config=config, folder=str(tmp_path / name), split="test"), run_parts, quiet)
        tables[name] = pq.read_table(tmp_path / name / "answers").to_pylist()
    assert [row[answer] for row in tables["here"]] == [row[answer] for row in tables["there"]]
    assert len({str(row[answer]) for row in tables["here"]}) > 10


@pytest.fixture(scope="module")
def answerers(trained: dict[str, RunConfig], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answerer]:
    """Each guest's artifact, loaded."""
    folder = tmp_path_factory.mktemp("artifacts")
    return {name: Answerer(export(config, str(folder / name), quiet)) for name, config in trained.items()}


def asked(answerer: Answerer, **body: Any) -> Any:
    with TestClient(create(answerer, ServeConfig(), Noted(), None, "r")) as client:
        answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_served_set_is_that_of_the_file(
    answerers: dict[str, Answerer], trained: dict[str, RunConfig], tmp_path: Path
) -> None:
    wanted = answers(trained["sets"], tmp_path / "asked", VISITS)
    found = asked(answerers["sets"], rows=VISITS[:3]).json()
    for row, answer in zip(wanted, found["answers"], strict=False):
        assert [label["label"] for label in answer["labels"]] == row["labels"]
        assert [label["probability"] for label in answer["labels"]] == pytest.approx(row["probabilities"], abs=1e-5)
    assert "Generated data; no medical advice." in found["notes"]


def test_served_texts_and_ratings_are_those_of_the_file_and_texts_stream(
    answerers: dict[str, Answerer], trained: dict[str, RunConfig], tmp_path: Path
) -> None:
    wanted = answers(trained["writer"], tmp_path / "asked", PAIRS)[:2]
    found = asked(answerers["writer"], rows=PAIRS[:2]).json()["answers"]
    assert [answer["text"] for answer in found] == [row["text"] for row in wanted]
    found = asked(answerers["writer"], rows=PAIRS[:2], task="rating").json()["answers"]
    assert [answer["rating"] for answer in found] == pytest.approx([row["rating"] for row in wanted], abs=1e-5)
    stream = asked(answerers["writer"], rows=PAIRS[:1], stream=True).text
    pieces = [json.loads(line[len("data: ") :]) for line in stream.splitlines() if line.startswith("data: ")]
    assert "".join(piece["text"] for piece in pieces[:-1]).strip() == wanted[0]["text"]


def test_the_command_line_exports(trained: dict[str, RunConfig], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(to_toml(trained["writer"]))
    assert main(["export", str(tmp_path / "run.toml"), "--to", str(tmp_path / "artifact")]) == 0
    assert Artifact.open(str(tmp_path / "artifact")).manifest["step"] > 0
