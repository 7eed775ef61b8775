"""A HealthMoE run from training to report, artifact and answers, on generated food."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from rec.cli import main
from rec.config import RunConfig, to_toml
from rec.data.prepared import Prepared
from rec.evaluation.compare import compare
from rec.evaluation.run import GENERATED, evaluate_run
from rec.evaluation.tasks.ranking.answers import recommend_batch
from rec.nn.retrieval import Ask
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.config import ServeConfig
from rec.storage import Storage
from tests.end_to_end.serving.test_app import Noted, ask


@pytest.fixture(scope="module")
def run(food_trained: RunConfig) -> RunConfig:
    """A run that was measured."""
    evaluate_run(food_trained, "test")
    return food_trained


@pytest.fixture(scope="module")
def numbers(run: RunConfig) -> dict[str, Any]:
    return Storage(run.out).read_json("evaluation/test/metrics.json")


@pytest.fixture(scope="module")
def answerer(food_artifact: Any) -> Answerer:
    return Answerer(food_artifact)


@pytest.fixture
def client(answerer: Answerer) -> Any:
    with TestClient(create(answerer, ServeConfig(), Noted(), None, "r1")) as found:
        yield found


def test_every_part_of_the_evaluation_is_there(numbers: dict[str, Any]) -> None:
    assert GENERATED in numbers["notes"]
    assert numbers["notice"] == "not dietary or medical advice"
    assert set(numbers["baselines"]) == {"popularity", "random", "similar users", "the planted truth"}
    told = numbers["tasks"]["ranking"]
    assert set(told["cold"]) == {"cold items", "among cold items", "cold subjects"}
    assert set(told["ablations"]["without"]) == {"user text", "user attributes", "item text", "item image"}
    assert len(told["ablations"]["spoiled"]) == 5
    assert set(told["needs image"]) == {"by ablation", "by routed share"}
    groups = told["ablations"]["groups"].values()
    assert all(abs(sum(g["expert share"]) - 1) < 1e-5 for g in groups)
    assert sum(g["examples"] for g in groups) == numbers["examples"]
    assert {"precision@5", "recall@5", "ndcg@5", "map@5", "auc", "hit@1"} <= numbers["metrics"].keys()


def test_baselines_are_what_they_say(numbers: dict[str, Any]) -> None:
    found = numbers["baselines"]
    assert found["random"]["auc"] == pytest.approx(0.5, abs=0.05)
    assert found["similar users"]["auc"] > found["random"]["auc"]
    assert found["the planted truth"]["ndcg@10"] > 2 * found["popularity"]["ndcg@10"]
    assert found["the planted truth"]["auc"] > 0.85


def test_metrics_on_file_are_the_mean_over_users_with_a_relevant_item(run: RunConfig, numbers: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    value = pq.read_table(f"{run.out}/evaluation/test/ranking.parquet")["metric/ndcg@10"].to_numpy()
    assert np.nanmean(value) == pytest.approx(numbers["metrics"]["ndcg@10"])
    assert len(value) == numbers["examples"]


def test_a_run_compared_with_itself_gains_nothing(run: RunConfig) -> None:
    rows = compare(run.out, run.out, 100)
    assert {row["metric"] for row in rows} == {"hit@10", "ndcg@10", "precision@5", "recall@10", "map@5", "auc"}
    assert all(row["difference"]["mean"] == 0 for row in rows)


def test_the_report_shows_pictures_with_scores_and_says_labels_are_synthetic(
    run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(to_toml(run))
    assert main(["report", str(path)]) == 0
    text = Path(capsys.readouterr().out.strip()).read_text()
    assert text.count("data:image/jpeg;base64,") > 10
    for words in ("labels are synthetic", "What each modality is worth", "Spoiled pictures", "Cold items and subjects"):
        assert words in text
    assert main(["evaluate", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "labels are synthetic" in printed
    assert re.search(r"(worse|better) than|not clearly different from", printed)
    assert "popularity (" in " ".join(printed.split())


def test_served_scores_are_those_of_the_system(answerer: Answerer, food: Prepared) -> None:
    items = {name: index for index, name in enumerate(food.items["id"].to_pylist(), 1)}
    body = answerer.routes(answerer.config.serve)["recommend"]
    users = [0, 3, 5]
    requests = [{"user": food.users["id"][user].as_py(), "k": 7, "explain": True} for user in users]
    asked = [one for request in requests for one in body.parse(body.request.model_validate(request))]
    together = [answerer.finished(body.joined([answer])) for answer in answerer.work(body, asked)]
    for user, request, answer in zip(users, requests, together, strict=True):
        alone = answerer.respond("recommend", request)
        scores = [entry["score"] for entry in answer["items"]]
        assert [i["item"] for i in alone["items"]] == [i["item"] for i in answer["items"]]
        assert [i["score"] for i in alone["items"]] == pytest.approx(scores, abs=1e-5)
        seen = everything_seen(food, user)
        batch = answerer.system.collate({"user": [user], "history": [seen], "target": [[]]})
        offline = recommend_batch(answerer.system, answerer.module, batch, [Ask(k=7)])[0]
        assert offline["items"] == [items[entry["item"]] for entry in answer["items"]]
        assert offline["scores"] == pytest.approx(scores, abs=1e-5)
        assert answer["notes"] == ["not dietary or medical advice"]


def everything_seen(data: Prepared, user: int) -> list[int]:
    """Return what is known of a user in the latest split that the user is in, the items to be found included."""
    for split in ("test", "val", "train"):
        for row in data.rows(split).to_pylist():
            if row["user"] == user:
                return [*row["history"], *row["target"]]
    return []


def test_nothing_a_person_must_avoid_is_ever_served(client: TestClient, answerer: Answerer, food: Prepared) -> None:
    contains = {row["id"]: set(row["contains"]) for row in food.items.to_pylist()}
    tags = sorted(set.union(*contains.values()))
    avoided = {row["id"]: set(np.array(tags)[food.array("user_avoid")[row["user"]]]) for row in food.users.to_pylist()}
    rng = np.random.default_rng(0)
    withheld = 0
    for _ in range(60):
        more = sorted(rng.choice(tags, rng.integers(0, 3), replace=False).tolist())
        who: dict[str, Any] = {"user": str(rng.choice(list(avoided)))}
        must = set(more) | avoided[who["user"]]
        kind = rng.integers(4)
        if kind == 1:
            who, must = {"profile": {"text": "A 40 year old man: anemia. Loves thai food."}}, set(more)
        elif kind == 2:
            who, must = {"user": "nobody", "history": ["f1", "f2"]}, set(more)
        elif kind == 3:
            who["candidates"] = [str(i) for i in rng.choice(list(contains), 9, replace=False)]
        answer = ask(client, avoid=more, k=int(rng.integers(1, 40)), explain=bool(rng.integers(2)), **who)
        assert not any(must & contains[entry["item"]] for entry in answer["items"])
        assert all(set(entry["contains"]) == must & contains[entry["item"]] for entry in answer["withheld"])
        withheld += len(answer["withheld"])
    assert withheld > 20


def test_requests_that_cannot_be_honoured_are_refused(client: TestClient) -> None:
    assert "'stone' is not known" in ask(client, 422, user="p1", avoid=["stone"])["detail"]
    assert "known: age, gender, activity" in ask(client, 422, profile={"attributes": {"shoe size": 4}})["detail"]
    assert "expected" in ask(client, 422, k=3)["detail"]
    assert ask(client, profile={"text": " "}, k=3)["items"]


def test_an_explanation_names_modalities_and_adds_up(client: TestClient) -> None:
    best = ask(client, user="p2", k=1)["items"][0]
    told = ask(client, path="explain", user="p2", item=best["item"])
    assert list(told["parts"]) == ["nothing known", "user text", "user attributes", "item text", "item image"]
    assert sum(told["parts"].values()) == pytest.approx(best["score"], abs=1e-4)


def test_pictures_are_served(client: TestClient, food: Prepared) -> None:
    row = next(row for row in food.items.to_pylist() if row["image"])
    found = client.get(f"/v1/items/{row['id']}/image")
    assert found.headers["content-type"] == "image/jpeg"
    assert found.content == row["image"]


def test_a_system_that_reads_no_profile_refuses_one(artifact: Any) -> None:
    with TestClient(create(Answerer(artifact), ServeConfig(), Noted(), None, "r1")) as client:
        assert "reads neither `profile` nor `avoid`" in ask(client, 422, user="u1", avoid=["milk"])["detail"]


@pytest.mark.slow
def test_variants_are_swept_compared_and_kept(
    food_run: Callable[..., RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = food_run(out=str(tmp_path / "sweep"), train={"batch_size": 32, "epochs": 1}, evaluate={"bootstrap": 100})
    path = tmp_path / "run.toml"
    path.write_text(to_toml(config))
    assert main(["sweep", str(path), "--list"]) == 0
    assert "E 8, dense: model.mixture.experts=8 model.mixture.per_row=8" in capsys.readouterr().out
    command = ["sweep", str(path), "--only", "full; text + image, no mixture", "--seeds", "2"]
    # The data set exists; its config is not this one's, so it is given as prepared.
    table = json.loads((Path(config.data.root) / "manifest.json").read_text())["config"]
    path.write_text(to_toml(config.model_copy(update={"data": config.data.model_validate_json(json.dumps(table))})))
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "2 seeds, mean and standard deviation over seeds" in first
    assert "labels are synthetic" in first
    assert main(command) == 0
    assert capsys.readouterr().out == first
    assert main(["sweep", str(path), "--only", "fuller"]) == 1
