import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.evaluation.tasks.ranking.answers import recommend_batch
from rec.nn.retrieval import Ask
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.engine import load_model
from rec.train.job import build


class Noted:
    """Keeps what is measured."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.batches: list[int] = []
        self.used: dict[tuple[str, str], list[float]] = {}

    def request(self, route, status, seconds) -> None:
        self.requests.append((route, status))

    def batch(self, size, seconds, waiting) -> None:
        self.batches.append(size)

    def shares(self, kind, name, shares) -> None:
        self.used[kind, name] = list(shares)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def answerer(artifact: Artifact) -> Answerer:
    return Answerer(artifact)


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def client(answerer: Answerer, noted: Noted) -> Any:
    with TestClient(create(answerer, ServeConfig(max_k=50), noted, None, "r1")) as found:
        yield found


def ask(client: TestClient, status: int = 200, path: str = "recommend", **body: Any) -> Any:
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_served_answer_equals_the_offline_one(client, answerer, trained, planted: Prepared) -> None:
    """Offline: the checkpoint in the system, without a catalogue, in one batch; served: one request at a time."""
    system = build(trained, planted)
    module = system.model().eval()
    load_model(module, CheckpointStore(Storage(trained.out).below("checkpoints")).load_best().tensors)
    table = planted.rows("test").slice(0, 20)
    rows = to_columns(table)
    histories = [[*h.tolist(), int(t)] for h, t in zip(rows["history"], rows["target"], strict=True)]
    ids, users = planted.items["id"].to_pylist(), planted.users["id"].to_pylist()
    with torch.inference_mode():
        batch = system.collate({"user": rows["user"], "history": histories, "target": rows["target"]})
        offline = recommend_batch(system, module, batch, [Ask(k=7, explain=True)] * 20)
    for user, history, wanted in zip(rows["user"], histories, offline, strict=True):
        known = ask(client, user=users[user], k=7, explain=True)
        told = ask(client, history=[ids[i - 1] for i in history], k=7, explain=True)
        assert [i["item"] for i in known["items"]] == [i["item"] for i in told["items"]]
        assert [i["item"] for i in known["items"]] == [ids[i - 1] for i in wanted["items"]]
        assert [i["score"] for i in known["items"]] == pytest.approx(wanted["scores"], abs=1e-5)
        for item, weights in zip(known["items"], wanted["modalities"], strict=True):
            assert list(item["modalities"].values()) == pytest.approx(weights, abs=1e-6)


def test_what_is_not_known_gets_an_answer_that_says_so(client, answerer) -> None:
    ranking = answerer.services["ranking"]
    popular = [ranking.items.id(int(i)) for i in ranking.popular[:4]]
    nobody = ask(client, user="nobody", k=4)
    assert (nobody["source"], [i["item"] for i in nobody["items"]]) == ("popularity", popular)
    assert nobody["notes"][0] == "user 'nobody' is not known"
    empty = ask(client, history=[], k=2, exclude=popular[:1])
    assert [i["item"] for i in empty["items"]] == popular[1:3]
    partly = ask(client, history=["no such item", popular[0]], k=3)
    assert partly["source"] == "model"
    assert partly["notes"] == ["1 of 2 in history are not known items, such as 'no such item'"]
    assert popular[0] not in [i["item"] for i in partly["items"]]
    assert ask(client, history=popular[:2], candidates=["x"])["items"] == []
    among = ask(client, history=popular[:2], candidates=[popular[3], "x", popular[0]], k=5)
    assert {i["item"] for i in among["items"]} == {popular[0], popular[3]}
    assert "1 of 3 in candidates" in among["notes"][0]


def test_an_explanation_adds_up_and_names_experts_and_similar_items(client, answerer) -> None:
    history = [answerer.entities["item"].id(i) for i in (3, 4, 5)]
    best = ask(client, history=history, k=1)["items"][0]
    why = ask(client, path="explain", history=history, item=best["item"])
    assert why["score"] == pytest.approx(best["score"], abs=1e-4)
    assert sum(why["parts"].values()) == pytest.approx(why["score"], abs=1e-4)
    assert list(why["parts"]) == ["id", "narrative", "visual", "audio"]
    assert sum(why["modalities"].values()) == pytest.approx(1, abs=1e-5)
    assert [sum(shares) for shares in why["experts"].values()] == pytest.approx([1.0], abs=1e-5)
    assert {entry["item"] for entry in why["similar"]} == set(history)
    assert ask(client, 422, "explain", history=history, item="zzz")["detail"] == "item 'zzz' is not known"


def test_rows_are_ranked_in_raw_ids_as_offline_and_bad_ones_are_named(client, answerer) -> None:
    item = answerer.entities["item"].id
    rows = [{"user": "u1", "history": [item(1), item(2), item(3)]}, {"history": [item(9)]}]
    found = ask(client, path="predict", rows=rows, k=4)
    columns = {"user": [1, 2], "history": [[1, 2, 3], [9]]}
    with torch.inference_mode():
        wanted = recommend_batch(answerer.system, answerer.module, answerer.system.collate(columns), [Ask(k=4)] * 2)
    assert [[i["item"] for i in a["items"]] for a in found["answers"]] == [list(map(item, a["items"])) for a in wanted]
    assert found["notes"] == []
    for row, where in [
        ({"user": "u1"}, "body.rows.0.history"),
        ({"history": 3}, "body.rows.0.history"),
        ({"history": [[item(1)]]}, "body.rows.0.history.0"),
        ({"user": 1.5, "history": [item(1)]}, "body.rows.0.user"),
        ({"history": [item(1)], "age": 3}, "body.rows.0.age"),
        ({"history": [item(1)], "target": item(2)}, "body.rows.0.target"),
    ]:
        problems = ask(client, 422, "predict", rows=[row])["detail"]
        assert any(problem["where"].startswith(where) for problem in problems), problems
    assert "history is empty" in ask(client, 422, "predict", rows=[{"history": []}])["detail"]


def test_unknown_ids_of_rows_are_noted_and_numbers_stand_for_ids(client, answerer) -> None:
    item = answerer.entities["item"].id
    odd = {"user": "nobody", "history": ["none", item(3), "-"]}
    found = ask(client, path="predict", rows=[{"history": [item(3)]}, odd])
    assert found["notes"] == [
        "row 1: column 'user': user 'nobody' is not known",
        "row 1: column 'history': 2 of 3 are not known as item, such as 'none'",
    ]
    assert found["answers"][0] == found["answers"][1]
    assert "user '7' is not known" in ask(client, path="recommend", user=7, history=[item(1)])["notes"]


def test_a_bad_row_fails_its_own_request_and_none_that_is_answered_with_it(answerer, noted, monkeypatch) -> None:
    """32 clients while a pass takes long, one of whose rows the system refuses only in the batch."""
    item = answerer.entities["item"].id
    ranking, plain = answerer.services["ranking"], answerer.services["ranking"].answer_rows
    sizes: list[int] = []
    monkeypatch.setattr(
        ranking, "answer_rows", lambda rows: (sizes.append(len(rows)), time.sleep(0.05), plain(rows))[2]
    )
    with TestClient(create(answerer, ServeConfig(), noted, None, "r")) as client, ThreadPoolExecutor(32) as pool:
        bodies = [[{"history": [item(1 + n)]}] for n in range(32)]
        bodies[5] = [{"history": [item(1)]}, {"history": []}]
        answers = list(pool.map(lambda rows: client.post("/v1/predict", json={"rows": rows}), bodies))
    assert [a.status_code for a in answers] == [422 if n == 5 else 200 for n in range(32)]
    assert max(sizes) > 4
    assert sum(noted.batches) >= 31
    alone = answerer.respond("predict", {"rows": bodies[7]})
    assert [i["item"] for i in answers[7].json()["answers"][0]["items"]] == [
        i["item"] for i in alone["answers"][0]["items"]
    ]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"history": ["a"], "k": 51}, "body.k"),
        ({"history": ["a"], "k": 0}, "body.k"),
        ({"history": ["a"] * 5001}, "body.history"),
        ({"history": [1.5]}, "body.history.0"),
        ({"history": ["a"], "kk": 3}, "body.kk"),
        ({"candidates": [], "user": "u"}, "body.candidates"),
        ({"user": ""}, "body.user"),
    ],
)
def test_a_malformed_request_is_told_where(client, body, where: str) -> None:
    assert where in [problem["where"] for problem in ask(client, 422, **body)["detail"]]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"user": "\\ud800"}', b"[" * 100_000, b'{"k": 1e999}', b""])
def test_bodies_that_are_no_json_are_refused(client, body: bytes) -> None:
    answer = client.post("/v1/recommend", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    json.loads(answer.content)


def test_neither_user_nor_history_is_refused(client) -> None:
    assert ask(client, 422, k=3)["detail"] == "expected `user`, `history` or `profile`"


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(answerer, noted) -> None:
    app = create(answerer, ServeConfig(max_body_bytes=1000), noted, None, "r")
    with TestClient(app) as client:
        body = json.dumps({"history": ["a" * 200] * 10}).encode()
        assert client.post("/v1/recommend", content=body).status_code == 413
        chunks = (body[i : i + 100] for i in range(0, len(body), 100))
        answer = client.post("/v1/recommend", content=chunks, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
    assert [status for _, status in noted.requests] == [413, 413]


def test_a_token_is_asked_for_everywhere_but_health_and_page(answerer, noted) -> None:
    with TestClient(create(answerer, ServeConfig(), noted, "secret", "r")) as client:
        assert client.get("/v1/health").json()["status"] == "ok"
        assert client.get("/").status_code == 200
        assert client.post("/v1/recommend", json={"history": []}).status_code == 401
        wrong = {"Authorization": "Bearer secre"}
        assert client.post("/v1/recommend", json={"history": []}, headers=wrong).status_code == 401
        assert client.get("/v1/model", headers=wrong).status_code == 401
        assert client.get("/openapi.json").json()["security"] == [{"token": []}]
        right = {"Authorization": "Bearer secret"}
        assert client.post("/v1/recommend", json={"history": []}, headers=right).status_code == 200


def test_a_deadline_ends_in_an_error_of_who_set_it(answerer, noted, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking, plain = answerer.services["ranking"], answerer.services["ranking"].recommend
    monkeypatch.setattr(ranking, "recommend", lambda wishes: (time.sleep(0.2), plain(wishes))[1])
    with TestClient(create(answerer, ServeConfig(), noted, None, "r")) as client:
        late = client.post("/v1/recommend", json={"history": []}, headers={"X-Deadline-Ms": "20"})
        assert (late.status_code, late.json()["detail"]) == (408, "no answer within 20 ms")
        assert client.post("/v1/recommend", json={"history": []}).status_code == 200
        assert client.post("/v1/recommend", json={}, headers={"X-Deadline-Ms": "-1"}).status_code == 422
    with TestClient(create(answerer, ServeConfig(deadline_ms=20.0), noted, None, "r")) as client:
        assert client.post("/v1/recommend", json={"history": []}).status_code == 504


def test_what_was_measured(client, noted) -> None:
    ask(client, user="nobody")
    ask(client, history=["i1", "i2"], explain=True)
    client.get("/nowhere")
    assert noted.requests == [("/v1/recommend", 200), ("/v1/recommend", 200), ("other", 404)]
    assert noted.batches == [1, 1]
    (expert,) = [value for (kind, _), value in noted.used.items() if kind == "expert"]
    assert sum(expert) == pytest.approx(1, abs=1e-5)
    assert len(noted.used["modality", "gate"]) == 3


def test_pictures_and_users_and_the_model_are_shown(client, answerer) -> None:
    item = ask(client, history=["i1"], k=1)["items"][0]
    assert item["title"].startswith("Item")
    picture = client.get("/" + item["image"])
    assert picture.content.startswith(b"\x89PNG")
    assert client.get(f"/v1/items/{item['item']}/image").content == picture.content
    assert client.get("/v1/items/none/image").status_code == 404
    assert client.get("/v1/entities/item/none/media").status_code == 404
    assert client.get("/v1/users?prefix=u29").json()[:2] == ["u29", "u290"]
    assert [u["id"] for u in client.get("/v1/entities/user?prefix=u29").json()][:2] == ["u29", "u290"]
    titled = client.get("/v1/entities/item?prefix=ITEM 7").json()
    assert titled
    assert all("item 7" in entry["title"].lower() for entry in titled)
    user, index = client.get("/v1/entities/user/u29").json(), int(answerer.entities["user"].find(["u29"])[0])
    assert [entry["item"] for entry in user["known"]] == [
        answerer.entities["item"].id(i) for i in answerer.services["ranking"].known_subjects.history(index)[::-1]
    ]
    assert len(user["known"]) > 3
    assert "there are user, item" in client.get("/v1/entities/film").json()["detail"]
    model = client.get("/v1/model").json()
    assert (model["entities"]["user"]["count"], model["limits"]["max_k"]) == (301, 50)
    assert [route["path"] for route in model["routes"]] == ["recommend", "explain", "predict"]
    assert [route["about"] for route in model["routes"]] == ["", "item", ""]


def test_documents_load_nothing_from_elsewhere(client) -> None:
    text = client.get("/docs").text
    assert "://" not in text.replace("http://www.w3.org", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"docs/{name}" in text
        assert len(client.get(f"/docs/{name}").content) > 10_000
    assert client.get("/docs/../app.py").status_code == 404
