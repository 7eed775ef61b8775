"""A request that is wrong, odd or unlucky has its own answer, and those that are answered with it have theirs."""

import json
import logging
import threading
from typing import Any

import numpy as np
import pytest
import torch

from rec.nn.input_tables import InputTables
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.serving.example import difference
from rec.serving.export import export
from tests.end_to_end.serving.test_app import Noted
from tests.support.together import Clients, post, told

GOOD = 20
RANKERS = ["artifact", "food_artifact", "lightgcn_artifact", "magnet_artifact"]
EMPTY = "no item is left: all others are seen, excluded, or contain what must be avoided"
NOBODY = "nothing is known of what the user has seen: the most popular items"
LIMITS = ServeConfig(deadline_ms=60_000.0)


def asked(answerer: Answerer, limits: ServeConfig = LIMITS) -> tuple[Clients, Noted]:
    noted = Noted()
    return Clients(create(answerer, limits, noted, None, "r")), noted


@pytest.fixture(scope="module", params=RANKERS)
def ranker(request: pytest.FixtureRequest) -> Answerer:
    return Answerer(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def writer(writer_artifact: Artifact) -> Answerer:
    return Answerer(writer_artifact)


def members(answerer: Answerer, entity: str) -> list[str]:
    found = answerer.entities[entity]
    return [found.id(index) for index in range(found.first, len(found))]


def test_candidates_of_nobody_fail_none_that_is_answered_with_them(ranker: Answerer) -> None:
    users, items = members(ranker, "user"), members(ranker, "item")
    good = [post("recommend", {"user": user, "k": 3}) for user in users[:GOOD]]
    odd = [
        {"user": users[0], "candidates": ["nope"]},
        {"user": users[1], "candidates": ["nope", 2**63], "explain": True},
        {"history": items[:2], "candidates": ["nope", items[3]], "exclude": [items[3]]},
        {"history": items[:2], "candidates": [items[3]]},
    ]
    clients, noted = asked(ranker)
    alone = [told(clients.ask(one)[0]) for one in good]
    answers = [told(answer) for answer in clients.ask(*(post("recommend", body) for body in odd), *good)]
    assert max(noted.batches) > GOOD // 2
    assert [answer["items"] for answer in answers[:3]] == [[], [], []]
    assert answers[0]["notes"][0] == "1 of 1 in candidates are not known items, such as 'nope'"
    assert answers[1]["notes"][0] == "2 of 2 in candidates are not known items, such as 'nope'"
    assert answers[2]["notes"][1] == EMPTY
    assert [entry["item"] for entry in answers[3]["items"]] == [items[3]]
    for wanted, found in zip(alone, answers[4:], strict=True):
        assert difference(wanted, found, "answer") == ""


def test_who_has_everything_gets_an_empty_list_with_a_note(ranker: Answerer) -> None:
    """Seen, excluded, or both; by the model and by popularity, of whom nothing is known."""
    items, clients = members(ranker, "item"), asked(ranker)[0]
    for body in ({"history": items}, {"history": items[:5], "exclude": items[5:]}, {"user": "new", "exclude": items}):
        (answer,) = clients.ask(post("recommend", body | {"explain": True}))
        found = told(answer)
        assert (found["items"], EMPTY in found["notes"]) == ([], True)
    (answer,) = clients.ask(post("predict", {"rows": [{"history": items[:1]}, {"history": items}]}))
    found = told(answer)
    assert [bool(row["items"]) for row in found["answers"]] == [True, False]
    assert f"row 1: {EMPTY}" in found["notes"]


@pytest.mark.parametrize("served", ["lightgcn_artifact", "magnet_artifact"])
def test_a_row_about_nobody_gets_the_most_popular_items_and_is_told_so(
    served: str, request: pytest.FixtureRequest
) -> None:
    """Its vector would be zero, and all items would tie."""
    answerer = Answerer(request.getfixturevalue(served))
    rows = [{"user": "0"}, {}, {"user": "nobody", "history": ["none"]}, {"history": ["1"]}]
    (answer,) = asked(answerer)[0].ask(post("predict", {"rows": rows, "k": 4}))
    found, ranking = told(answer), answerer.services["ranking"]
    popular = [ranking.items.id(int(index)) for index in ranking.popular[:4]]
    assert [[entry["item"] for entry in row["items"]] == popular for row in found["answers"]][1:3] == [True, True]
    assert [note for note in found["notes"] if NOBODY in note] == [f"row 1: {NOBODY}", f"row 2: {NOBODY}"]


def test_where_everything_must_be_avoided_nothing_is_shown_and_that_is_told(food_artifact: Artifact) -> None:
    answerer = Answerer(food_artifact)
    system: Any = answerer.system
    contains_IT = np.array(system.static["item_contains"])
    contains_IT[1:, 0] = True
    system.static = {**system.static, "item_contains": contains_IT}
    system.contained = InputTables({"item": torch.from_numpy(contains_IT).float()})
    clients, avoid = asked(answerer)[0], [system.tags[0].upper()]
    first, second = clients.ask(post("recommend", {"user": "p1", "avoid": avoid}), post("recommend", {"user": "p2"}))
    assert (told(first)["items"], EMPTY in told(first)["notes"]) == ([], True)
    assert len(told(first)["withheld"]) == 10
    assert len(told(second)["items"]) == 10
    assert EMPTY not in told(second)["notes"]


ROWS = [{"user": f"user {n}", "item": 100 + n % 9, "tone": "short"} for n in range(12)]


@pytest.mark.parametrize("task", ["rating", "writing"])
@pytest.mark.parametrize(
    "error", [KeyError("tone"), ZeroDivisionError(), AssertionError(), StopIteration(), SystemExit(3), MemoryError()]
)
def test_an_unexpected_error_is_its_own_requests_alone_and_logged_under_an_id(
    writer: Answerer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException, task: str
) -> None:
    plain = writer.system.collate

    def collate(rows: Any) -> Any:
        if "spoiled" in list(rows["tone"]):
            raise error
        return plain(rows)

    clients, noted = asked(writer)
    bodies = [{"rows": [row], "task": task} for row in ROWS]
    alone = [told(clients.ask(post("predict", body))[0]) for body in bodies]
    monkeypatch.setattr(writer.system, "collate", collate)
    bodies[5] = {"rows": [ROWS[0], ROWS[5] | {"tone": "spoiled"}], "task": task}
    with caplog.at_level(logging.ERROR):
        answers = clients.ask(*(post("predict", body) for body in bodies))
    assert [answer.status_code for answer in answers] == [500 if n == 5 else 200 for n in range(12)]
    told_5 = answers[5].json()
    (record,) = (record for record in caplog.records if told_5["id"] in record.getMessage())
    assert told_5["id"] in told_5["detail"]
    assert "POST /v1/predict" in record.getMessage()
    assert type(error).__name__ in caplog.text
    assert "spoiled" not in caplog.text.partition("Traceback")[0]  # what people send is no part of the message
    for n in (0, 4, 6, 11):
        assert difference(alone[n], told(answers[n]), "answer") == ""
    assert noted.requests[-12:].count(("/v1/predict", 500)) == 1
    monkeypatch.undo()
    assert told(clients.ask(post("predict", bodies[0]))[0]) == alone[0]  # the queue goes on


def test_a_streamed_answer_that_fails_on_the_way_says_so_with_an_id(
    writer: Answerer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, out = writer.system.write, threading.Event()

    def write(module: Any, batch: Any, decoding: Any, *, all_done: Any = bool, heard: Any = None) -> list[str]:
        if 3 in batch.user_B.tolist():
            if heard is not None and not out.is_set():
                heard(["the "] * len(batch))
                out.set()
            raise ZeroDivisionError
        return plain(module, batch, decoding, all_done=all_done, heard=heard)

    clients = asked(writer)[0]
    good = post("predict", {"rows": [ROWS[1]], "stream": True})
    alone = told(clients.ask(good)[0])
    monkeypatch.setattr(writer.system, "write", write)
    bad, *others = clients.ask(post("predict", {"rows": [ROWS[3]], "stream": True}), good, good)
    found = told(bad)
    assert [kind for kind, _ in found] == ["message", "error"]
    assert found[-1][1]["id"] in caplog.text
    assert [told(other) for other in others] == [alone, alone]


def test_a_number_that_json_cannot_hold_is_refused_and_fails_no_other(
    writer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = writer.system.ratings

    def ratings(module: Any, batch: Any) -> Any:
        return plain(module, batch).masked_fill(batch.user_B == 3, float("nan"))

    monkeypatch.setattr(writer.system, "ratings", ratings)
    answers = asked(writer)[0].ask(*(post("predict", {"rows": [row], "task": "rating"}) for row in ROWS[:6]))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422, 200, 200]
    assert "no finite number" in answers[3].json()["detail"]


def test_a_row_that_is_refused_is_named_by_its_place_in_its_own_request(artifact: Artifact) -> None:
    item, clients = "i1", asked(Answerer(artifact))[0]
    bodies = [{"rows": [{"history": [item]}] * 3}, {"rows": [{"history": [item]}, {"history": []}]}]
    first, second = clients.ask(*(post("predict", body) for body in bodies))
    assert first.status_code == 200
    assert second.json()["detail"] == "row 1: history is empty, expected at least one item"


@pytest.mark.parametrize("value", [True, False, "5", "", 5.5, [5], {}, None, -1, 0, 2**31, 2**63, 1e300])
@pytest.mark.parametrize(
    ("served", "path", "field"),
    [
        ("artifact", "recommend", "k"),
        ("artifact", "predict", "k"),
        ("sets_artifact", "predict", "most"),
        ("writer_artifact", "predict", "max_tokens"),
    ],
)
def test_only_whole_numbers_in_range_count(
    served: str, path: str, field: str, value: Any, request: pytest.FixtureRequest
) -> None:
    answerer = Answerer(request.getfixturevalue(served))
    body = answerer.example["request"] if path == "recommend" else {"rows": [answerer.example["row"]]}
    wrong, right = asked(answerer)[0].ask(post(path, body | {field: value}), post(path, body | {field: 5.0}))
    assert wrong.status_code == 422, wrong.text
    assert [problem["where"] for problem in wrong.json()["detail"]] == [f"body.{field}"]
    assert right.status_code == 200


@pytest.mark.parametrize("value", ["true", 1, 0, "on", None, [], {}])
@pytest.mark.parametrize(
    ("served", "path", "field"), [("artifact", "recommend", "explain"), ("writer_artifact", "predict", "stream")]
)
def test_only_truths_are_truths(served: str, path: str, field: str, value: Any, request: pytest.FixtureRequest) -> None:
    answerer = Answerer(request.getfixturevalue(served))
    body = answerer.example["request"] if path == "recommend" else {"rows": [answerer.example["row"]]}
    (wrong,) = asked(answerer)[0].ask(post(path, body | {field: value}))
    assert [problem["where"] for problem in wrong.json()["detail"]] == [f"body.{field}"]


@pytest.mark.parametrize(
    "body", ["[]", "null", "5", '"x"', "true", "{}", "[{}]", "", "{", "NaN", '{"k": 1,}', "\ufeff{}"]
)
@pytest.mark.parametrize("path", ["recommend", "predict", "explain"])
def test_bodies_of_every_type_are_refused_in_words(artifact: Artifact, path: str, body: str) -> None:
    request = post(path, {})
    request.body = body.encode()
    (answer,) = asked(Answerer(artifact))[0].ask(request)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert isinstance(detail, str) or all(problem["where"] and problem["expected"] for problem in detail)


@pytest.mark.parametrize(
    "path", ["users?prefix={}", "items/{}/image", "entities/user?prefix={}", "member?entity=user&id={}"]
)
def test_an_id_that_is_too_long_is_no_shorter_one(artifact: Artifact, path: str) -> None:
    clients = asked(Answerer(artifact))[0]
    request = post("", {})
    request.method, request.body = "GET", None
    request.url = "http://testserver/v1/" + path.format("u1" + "x" * 255)
    assert clients.ask(request)[0].status_code == 422


def test_half_of_a_surrogate_pair_is_no_shorter_id(artifact: Artifact) -> None:
    members = Answerer(artifact).entities["item"]
    assert members.find(["i1\ud800", "\udfffi1", "i1"]).tolist()[:2] == [-1, -1]
    assert members.search("i1\ud800", 5) == []
    assert members.search("i1", 5) != []


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_index_answers_beside_others_as_alone(trained: Any, tmp_path: Any, kind: str) -> None:
    serve = trained.serve.model_copy(update={"index": kind, "index_candidates": 12})
    answerer = Answerer(export(trained.model_copy(update={"serve": serve}), str(tmp_path / kind), lambda _: None))
    clients = asked(answerer)[0]
    users, items = members(answerer, "user"), members(answerer, "item")
    good = [post("recommend", {"user": user, "k": 5}) for user in users[:GOOD]]
    alone = [told(clients.ask(one)[0]) for one in good]
    odd = [{"user": users[0], "candidates": items}, {"user": users[1], "explain": True}, {"user": users[2], "k": 100}]
    answers = clients.ask(*(post("recommend", body) for body in odd), *good)
    assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
    for wanted, answer in zip(alone, answers[3:], strict=True):
        assert difference(wanted, told(answer), "answer") == ""


def test_the_document_says_which_task_takes_which_options(writer: Answerer) -> None:
    ways = writer.routes(LIMITS)["predict"].request.model_json_schema()["oneOf"]
    assert ways[0] == {"properties": {"task": {"const": "writing"}}}
    strange = dict.fromkeys(("max_tokens", "temperature", "seed", "explain", "stream"), False)
    assert ways[1] == {"properties": {"task": {"const": "rating"}, **strange}, "required": ["task"]}
    assert json.dumps(ways)
