"""Numbers of requests: ids are their digits, and nothing wraps, counts from the end, or is taken for something else."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from tests.end_to_end.serving.test_app import Noted, ask

NO_IDS = [5.0, -2.0, True, False, [1], {"id": 1}, 1e300]
NOT_FINITE = ["NaN", "Infinity", "-Infinity", "1e999"]


@pytest.fixture(scope="module")
def answerer(artifact: Artifact) -> Answerer:
    return Answerer(artifact)


@pytest.fixture(scope="module")
def client(answerer: Answerer) -> Any:
    with TestClient(create(answerer, ServeConfig(), Noted(), None, "r")) as found:
        yield found


@pytest.fixture(scope="module")
def writer_client(writer_artifact: Artifact) -> Any:
    with TestClient(create(Answerer(writer_artifact), ServeConfig(), Noted(), None, "r")) as found:
        yield found


@pytest.fixture(scope="module")
def sets_client(sets_artifact: Artifact) -> Any:
    with TestClient(create(Answerer(sets_artifact), ServeConfig(), Noted(), None, "r")) as found:
        yield found


@pytest.mark.parametrize("number", [2**32 + 5, 2**63, 2**64 + 1, -1, -2, 5, 0, 10**200])
def test_a_number_is_no_index(client: TestClient, number: int) -> None:
    """The ids of this data set are i1, i2 and so on, so that no number is one."""
    assert "history is empty" in ask(client, 422, "predict", rows=[{"history": [number]}])["detail"]
    alone, beside = ([{"history": history}] for history in (["i1"], ["i1", number]))
    found = ask(client, path="predict", rows=beside)
    assert found["answers"] == ask(client, path="predict", rows=alone)["answers"]
    assert found["notes"] == [f"row 0: column 'history': 1 of 2 are not known as item, such as '{number}'"]
    assert ask(client, history=[number])["source"] == "popularity"
    assert ask(client, 422, "explain", history=["i1"], item=number)["detail"] == f"item '{number}' is not known"
    assert ask(client, user=number)["notes"][0] == f"user '{number}' is not known"
    assert ask(client, history=["i1"], candidates=[number])["items"] == []


@pytest.mark.parametrize("value", NO_IDS)
@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("predict", {"rows": [{"history": ["i1", ...]}]}, "body.rows.0.history.1"),
        ("predict", {"rows": [{"user": ..., "history": ["i1"]}]}, "body.rows.0.user"),
        ("recommend", {"history": [...]}, "body.history.0"),
        ("recommend", {"user": ...}, "body.user"),
        ("recommend", {"user": "u1", "exclude": [...]}, "body.exclude.0"),
        ("recommend", {"user": "u1", "candidates": ["i1", ...]}, "body.candidates.1"),
        ("explain", {"user": "u1", "item": ...}, "body.item"),
    ],
)
def test_what_is_no_id_is_told_with_field_found_and_expected(
    client: TestClient, path: str, body: dict[str, Any], where: str, value: Any
) -> None:
    text = json.dumps(body, default=lambda _: value)
    answer = client.post(f"/v1/{path}", content=text)
    assert answer.status_code == 422, answer.text
    (problem,) = (problem for problem in answer.json()["detail"] if problem["where"] == where)
    assert problem["found"] == repr(value)
    assert problem["expected"] == "Input should be a valid string"


@pytest.mark.parametrize("value", NOT_FINITE)
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(
    client: TestClient, sets_client: TestClient, writer_client: TestClient, value: str
) -> None:
    bodies = [
        (client, "recommend", '{"history": [%s]}'),
        (client, "recommend", '{"user": %s}'),
        (client, "recommend", '{"user": "u1", "k": %s}'),
        (client, "predict", '{"rows": [{"history": [%s]}]}'),
        (sets_client, "predict", '{"rows": [{"visits": [[%s]]}]}'),
        (sets_client, "predict", '{"rows": [{"visits": [[]]}], "threshold": %s}'),
        (writer_client, "predict", '{"rows": [{"user": "user 1", "item": "101"}], "temperature": %s}'),
        (writer_client, "predict", '{"rows": [{"user": "user 1", "item": "101"}], "seed": %s}'),
    ]
    for asked, path, body in bodies:
        answer = asked.post(f"/v1/{path}", content=body % value)
        assert answer.status_code == 422, (body, answer.text)
        json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} in an answer"))


@pytest.mark.parametrize("value", [*NO_IDS[:3], "x" * 257, "", "a\0"])
def test_ids_in_nested_lists_are_checked_as_others(sets_client: TestClient, value: Any) -> None:
    problems = ask(sets_client, 422, "predict", rows=[{"visits": [[], ["code 2", value]]}])["detail"]
    assert "body.rows.0.visits.1.1" in [problem["where"] for problem in problems]


@pytest.mark.parametrize("number", [-1, 2**32, 2**63])
def test_a_number_that_is_no_known_id_of_a_needed_column_is_refused(writer_client: TestClient, number: int) -> None:
    for row in ({"user": number, "item": "101"}, {"user": "user 1", "item": number}):
        told = ask(writer_client, 422, "predict", rows=[row | {"tone": "any"}])["detail"]
        assert told.endswith(f"'{number}' is not known")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("x" * 1000, repr("x" * 80) + "..."),
        ("x" * 257, repr("x" * 80) + "..."),
        ({"a": list(range(1000))}, "{'a': [0, 1, 2, 3, 4, 5, ...]}"),
        ([["x" * 1000] * 100] * 5, None),
    ],
)
def test_what_was_found_is_told_in_short(client: TestClient, value: Any, found: str | None) -> None:
    (problem,) = ask(client, 422, user=value)["detail"]
    assert len(problem["found"]) < 1500
    assert found in (problem["found"], None)
