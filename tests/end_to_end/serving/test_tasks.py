"""Sets, ratings and texts by request, from systems that are no part of the package."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from pydantic import ValidationError

from rec.data.prepared import open_prepared
from rec.data.stream import to_columns
from rec.errors import RequestError
from rec.evaluation.run import GENERATED
from rec.sections import sentence
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.config import ServeConfig
from rec.serving.example import differs
from rec.systems.capabilities import Decoding
from tests.end_to_end.serving.test_app import Noted, ask
from tests.guests import sets_guest

NOTICE = sets_guest.Prescriber.notice


@pytest.fixture(scope="module")
def sets(sets_artifact) -> Answerer:
    return Answerer(sets_artifact)


@pytest.fixture(scope="module")
def writer(writer_artifact) -> Answerer:
    return Answerer(writer_artifact)


@pytest.fixture
def sets_client(sets) -> Iterator[TestClient]:
    with TestClient(create(sets, ServeConfig(), Noted(), None, "r")) as client:
        yield client


@pytest.fixture
def writer_client(writer) -> Iterator[TestClient]:
    with TestClient(create(writer, ServeConfig(), Noted(), None, "r")) as client:
        yield client


def as_rows(columns: Any, names: list[str]) -> list[dict[str, Any]]:
    return [dict(zip(names, values, strict=True)) for values in zip(*(columns[n] for n in names), strict=True)]


def test_sets_are_predicted_from_raw_ids_as_offline(sets, sets_client) -> None:
    data = open_prepared(sets.config)
    columns = to_columns(data.rows("test").slice(0, 12))
    with torch.inference_mode():
        probability_BV = torch.sigmoid(sets.module(sets.system.collate(columns))).numpy()
    rows = [
        {
            "patient": f"patient {row['patient']}",
            "visits": [[f"code {code}" for code in visit] for visit in row["visits"]],
            "previous": [f"molecule {label}" for label in row["previous"]],
        }
        for row in as_rows(columns, ["patient", "visits", "previous"])
    ]
    found = ask(sets_client, path="predict", rows=rows)
    assert found["notes"] == [NOTICE]
    for answer, probability_V in zip(found["answers"], probability_BV, strict=True):
        chosen = sorted(np.flatnonzero(probability_V >= 0.5), key=lambda v: -probability_V[v])
        assert [label["label"] for label in answer["labels"]] == [f"molecule {v}" for v in chosen]
        assert [label["probability"] for label in answer["labels"]] == pytest.approx(probability_V[chosen], abs=1e-5)
    every = ask(sets_client, path="predict", rows=rows[:1], threshold=0.0, most=5)["answers"][0]["labels"]
    assert [label["label"] for label in every] == [f"molecule {v}" for v in np.argsort(-probability_BV[0])[:5]]


def test_what_interacts_in_a_set_is_told_by_name_and_severity(sets, sets_client) -> None:
    rows = [{"visits": [["code 1", "code 7"], ["code 3"]]}]
    every = ask(sets_client, path="predict", rows=rows, threshold=0.0)["answers"][0]
    matrix_VV, severity = sets.system.interactions(), sets.system.severities()
    place = {f"molecule {v}": v for v in range(len(matrix_VV))}
    told = {tuple(sorted((place[e["label"]], place[e["other"]]))): e["severity"] for e in every["interactions"]}
    assert told == severity
    assert {(a, b) for a, b in np.argwhere(np.triu(matrix_VV))} == set(told)
    assert every["taken_out"] == []
    few = ask(sets_client, path="predict", rows=rows, threshold=0.0, most=2)["answers"][0]
    kept = {entry["label"] for entry in few["labels"]}
    assert all({entry["label"], entry["other"]} <= kept for entry in few["interactions"])


def same(ours, theirs) -> bool:
    """Whether labels are the same; rows that are answered in batches of other sizes differ in the last digits."""
    names = [[entry["label"] for entry in labels] for labels in (ours, theirs)]
    ours, theirs = ([entry["probability"] for entry in labels] for labels in (ours, theirs))
    return names[0] == names[1] and ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("how", ["greedy", "two_sat"])
def test_a_request_may_ask_for_a_filter(sets, sets_client, how) -> None:
    rows = [{"visits": [["code 1", "code 7"], ["code 3"]]}, {"visits": [["code 9", "code 4"]]}]
    plain = ask(sets_client, path="predict", rows=rows, threshold=0.1)["answers"]
    found = ask(sets_client, path="predict", rows=rows, threshold=0.1, filter=how)["answers"]
    assert any(answer["interactions"] for answer in plain)
    for before, after in zip(plain, found, strict=True):
        assert after["interactions"] == []
        both = [*after["labels"], *after["taken_out"]]
        assert same(sorted(both, key=lambda e: -e["probability"]), before["labels"])
    asked = {"threshold": 0.1, "filter": "none"}
    unfiltered = ask(sets_client, path="predict", rows=rows, **asked)["answers"]
    assert all(same(one["labels"], other["labels"]) for one, other in zip(unfiltered, plain, strict=True))
    problems = ask(sets_client, 422, "predict", rows=rows, filter="strict")["detail"]
    assert problems[0]["where"] == "body.filter"


def test_what_weighed_most_and_what_is_missing_is_told(sets_client) -> None:
    rows = [{"visits": [["code 1"], ["code 2", "code 7"], ["code 3"]]}, {"visits": []}, {"visits": [["code 3"]]}]
    found = ask(sets_client, path="predict", rows=rows, explain=True)["answers"]
    first = found[0]["reasons"]
    assert first["sections"]["codes"] + sum(one["weight"] for one in first["earlier"]) == pytest.approx(1, abs=1e-5)
    assert {one["visit"] for one in first["earlier"]} == {1, 2}
    assert [one["weight"] for one in first["earlier"]] == sorted((e["weight"] for e in first["earlier"]), reverse=True)
    assert [answer["missing"] for answer in found] == [
        ["previous"],
        ["visits", "previous", "codes of this visit"],
        ["previous"],
    ]
    assert found[2]["reasons"] == {"sections": {"codes": 1.0}, "earlier": []}
    plain = ask(sets_client, path="predict", rows=rows)["answers"]
    assert all("reasons" not in answer for answer in plain)
    for answer, without in zip(found, plain, strict=True):
        assert answer["labels"] == without["labels"]


def test_earlier_visits_of_a_request_count_the_same(ward_artifact) -> None:
    answerer = Answerer(ward_artifact)
    assert differs(answerer) == ""
    row = {"codes": ["code 1"], "earlier_codes": [["code 2"], []]}
    plain = answerer.respond("predict", {"rows": [row]})["answers"]
    assert plain == answerer.respond("predict", {"rows": [row | {"gap": [0.0, 0.0]}]})["answers"]
    assert answerer.respond("predict", {"rows": [{}]})["answers"][0]["missing"] == ["codes", "earlier visit"]
    with pytest.raises(RequestError, match=r"row 0: columns along 'earlier visit' must be as long as each other"):
        answerer.respond("predict", {"rows": [row | {"gap": [1.0]}]})
    with pytest.raises(ValidationError, match=r"gap\.1\s+Input should be greater than or equal to 0"):
        answerer.respond("predict", {"rows": [row | {"gap": [1.0, -1.0]}]})
    with pytest.raises(ValidationError, match="visit"):
        answerer.respond("predict", {"rows": [row | {"visit": 3}]})


def test_a_system_that_tells_no_reasons_says_so(sets, sets_client, monkeypatch) -> None:
    monkeypatch.setattr(sets.system, "reasons", lambda module, batch: [])
    found = ask(sets_client, path="predict", rows=[{"visits": [["code 3"]]}], explain=True)
    assert "reasons" not in found["answers"][0]
    assert any("tells no reasons" in note for note in found["notes"])


def test_what_is_left_out_or_not_known_of_a_visit_is_noted(sets_client) -> None:
    plain = ask(sets_client, path="predict", rows=[{"visits": [["code 1", "code 2"]]}])
    odd = {"patient": "new", "visits": [["code 1", "none", "code 2"]]}
    found = ask(sets_client, path="predict", rows=[odd])
    assert found["answers"] == plain["answers"]
    assert found["notes"] == [
        "row 0: column 'patient': patient 'new' is not known",
        "row 0: column 'visits': 1 of 3 are not known as code, such as 'none'",
        NOTICE,
    ]
    for row, where in [
        ({"visits": ["code 1"]}, "body.rows.0.visits.0"),
        ({"visits": [[["code 1"]]]}, "body.rows.0.visits.0.0"),
        ({"visits": [["code 1"]], "given": ["molecule 1"]}, "body.rows.0.given"),
        ({"patient": "patient 1"}, "body.rows.0.visits"),
    ]:
        problems = ask(sets_client, 422, "predict", rows=[row])["detail"]
        assert any(problem["where"].startswith(where) for problem in problems), problems
    extra = ask(sets_client, 422, "predict", rows=[{"visits": []}], stream=True)["detail"]
    assert [problem["where"] for problem in extra] == ["body.stream"]


def test_an_artifact_without_a_ranking_holds_its_example_and_says_what_it_answers(sets, sets_client) -> None:
    assert differs(sets) == ""
    assert sets.example["path"] == "/v1/predict"
    assert "given" not in sets.example["request"]["rows"][0]
    assert sets_client.post("/v1/recommend", json={"user": "u"}).status_code == 404
    model = sets_client.get("/v1/model").json()
    about_data = "Labels are synthetic: nobody has judged what is relevant."
    assert (model["notice"], list(model["tasks"]), list(model["entities"])) == (
        f"{NOTICE} {about_data}",
        ["sets"],
        ["patient", "code", "molecule"],
    )
    assert model["licence"] == sets_guest.LICENCE
    (route,) = model["routes"]
    visits = route["request"]["properties"]["rows"]["items"]["properties"]["visits"]
    assert visits["items"]["items"]["x-entity"] == "code"
    found = sets_client.get("/v1/entities/code?prefix=code 2").json()
    assert [entry["id"] for entry in found][:2] == ["code 2", "code 20"]


def test_a_row_is_rated_and_written_about_as_offline(writer, writer_client) -> None:
    rows = [{"user": f"user {n}", "item": 100 + n, "tone": "any"} for n in range(8)]
    labels = {"rating": np.zeros(8), "text": [""] * 8}
    batch = writer.system.collate({"user": np.arange(8), "item": np.arange(8), **labels})
    with torch.inference_mode():
        ratings = writer.system.ratings(writer.module, batch).clamp(1, 4)
        texts = writer.system.write(writer.module, batch, Decoding(max_tokens=3))
        drawn = writer.system.write(writer.module, batch, Decoding(max_tokens=9, temperature=1.0, seed=3))
    found = ask(writer_client, path="predict", rows=rows, task="rating")["answers"]
    assert [answer["rating"] for answer in found] == pytest.approx(ratings.tolist(), abs=1e-5)
    assert ask(writer_client, path="predict", rows=rows, max_tokens=3)["answers"] == [{"text": t} for t in texts]
    asked = {"max_tokens": 9, "temperature": 1.0, "seed": 3}
    assert ask(writer_client, path="predict", rows=rows, **asked)["answers"] == [{"text": t} for t in drawn]
    assert drawn != texts
    refused = ask(writer_client, 422, "predict", rows=rows, task="rating", max_tokens=3)["detail"]
    assert refused == "max_tokens: the task 'rating' does not take it; it takes nothing beside rows"
    assert ask(writer_client, 422, "predict", rows=rows, max_tokens=257)["detail"][0]["where"] == "body.max_tokens"
    assert ask(writer_client, 422, "predict", rows=[{"user": "nobody", "item": "101"}])["detail"] == (
        "row 0: column 'user': user 'nobody' is not known"
    )


@pytest.mark.parametrize(
    ("own", "about_data", "notice"),
    [
        ("", GENERATED, GENERATED),
        ("no advice", GENERATED, f"No advice. {sentence(GENERATED)}"),
        ("no advice", "", "no advice"),
        ("", "", ""),
    ],
)
def test_generated_data_are_told_before_all_answers(
    writer_artifact, monkeypatch, own: str, about_data: str, notice: str
) -> None:
    told = replace(writer_artifact, manifest=writer_artifact.manifest | {"warning": about_data})
    answerer = Answerer(told)
    monkeypatch.setattr(type(answerer.system), "notice", own)
    with TestClient(create(answerer, ServeConfig(), Noted(), None, "r")) as client:
        assert client.get("/v1/model").json()["notice"] == notice
        answer = ask(client, path="predict", rows=[{"user": "user 1", "item": "102"}])
        assert answer["notes"] == ([own] if own else [])
        described = client.get("/openapi.json").json()["info"]["description"]
    assert described == "Answers of one trained model." + (f" Note: {sentence(notice)}" if notice else "")


@pytest.fixture(scope="module")
def reviewer(reviewer_artifact) -> Answerer:
    return Answerer(reviewer_artifact)


PAIRS = [{"user": "user 3", "item": "item 2"}, {"user": "user 7", "item": "item 11"}]


def test_a_text_is_told_with_its_rating_gate_and_the_experts_of_each_token(reviewer) -> None:
    plain = reviewer.respond("predict", {"rows": PAIRS})["answers"]
    found = reviewer.respond("predict", {"rows": PAIRS, "explain": True})["answers"]
    ratings = reviewer.respond("predict", {"rows": PAIRS, "task": "rating"})["answers"]
    for answer, bare, rating in zip(found, plain, ratings, strict=True):
        assert bare == {"text": answer["text"]}
        assert answer["rating"] == pytest.approx(rating["rating"], abs=1e-6)
        words = [token["text"] for token in answer["tokens"]]
        assert words[: len(answer["text"].split())] == answer["text"].split()
        for token in answer["tokens"]:
            (weights,) = token["experts"].values()
            assert len(weights) == reviewer.system.config.experts_per_row
            assert sum(weights.values()) == pytest.approx(1, abs=1e-5)
            assert list(weights.values()) == sorted(weights.values(), reverse=True)
    # The gate is that of the user's cluster, and another gate chooses other experts of the same words.
    module = reviewer.module
    user = torch.tensor([reviewer.rows.members["user"].find([pair["user"]])[0] for pair in PAIRS])
    with torch.inference_mode():
        cluster = module.clusters(module.users.latent(module.user_UF[user])[0]).tolist()
    assert [answer["gate"] for answer in found] == [f"cluster {one}" for one in cluster]


@pytest.mark.parametrize(
    "asked", [{"beams": 4}, {"temperature": 1.0, "top_p": 0.5, "seed": 2}, {"temperature": 0.7, "max_tokens": 4}]
)
def test_a_request_chooses_how_a_text_is_drawn(reviewer, asked, monkeypatch) -> None:
    columns = {"user": np.arange(6), "item": np.arange(6), "rating": np.zeros(6)}
    columns |= {name: [""] * 6 for name in ("text", "feature", "opinion")}
    decoding = Decoding(**{"max_tokens": 16, **asked})
    with torch.inference_mode():
        texts = reviewer.system.write(reviewer.module, reviewer.system.collate(columns), decoding)
    user, item = (reviewer.rows.members[name] for name in ("user", "item"))
    rows = [{"user": user.id(n), "item": item.id(n)} for n in range(6)]
    assert [a["text"] for a in reviewer.respond("predict", {"rows": rows, **asked})["answers"]] == texts
    if "beams" not in asked:  # greedy texts of this model are the most probable ones too
        assert texts != [a["text"] for a in reviewer.respond("predict", {"rows": rows})["answers"]]
    plain, seen = reviewer.system.write, []
    monkeypatch.setattr(reviewer.system, "write", lambda m, b, how, **kw: seen.append(how) or plain(m, b, how, **kw))
    reviewer.respond("predict", {"rows": rows, **asked})
    assert seen == [decoding]


@pytest.mark.parametrize(
    ("asked", "where", "words"),
    [
        ({"beams": 4, "temperature": 0.5}, "body", "a search with several beams draws nothing at random"),
        ({"beams": 0}, "body.beams", "greater than or equal to 1"),
        ({"beams": 1000}, "body.beams", "less than or equal to 16"),
        ({"top_p": 0.0}, "body.top_p", "greater than 0"),
    ],
)
def test_ways_of_drawing_that_cannot_be_are_refused(reviewer, asked, where, words) -> None:
    with TestClient(create(reviewer, ServeConfig(), Noted(), None, "r")) as client:
        (problem,) = ask(client, 422, "predict", rows=PAIRS, **asked)["detail"]
    assert problem["where"] == where
    assert words in problem["expected"]


def test_a_writer_is_asked_for_no_way_that_it_does_not_know(writer_client) -> None:
    rows = [{"user": "user 1", "item": "102"}]
    for asked in ({"beams": 2}, {"top_p": 0.5}):
        (problem,) = ask(writer_client, 422, "predict", rows=rows, **asked)["detail"]
        assert problem["where"] == f"body.{next(iter(asked))}"
    (answer,) = ask(writer_client, path="predict", rows=rows, explain=True)["answers"]
    assert set(answer) == {"text", "rating"}  # it rates, and tells nothing of tokens


def events(answer: Any) -> list[tuple[str, Any]]:
    """Return kind and content of server-sent events."""
    found = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


def test_texts_are_told_piece_by_piece_and_then_whole(writer_client) -> None:
    rows = [{"user": "user 1", "item": "102"}, {"user": "user 3", "item": "105"}]
    whole = ask(writer_client, path="predict", rows=rows)
    answer = writer_client.post("/v1/predict", json={"rows": rows, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer)
    assert found[-1] == ("answer", whole)
    assert {kind for kind, _ in found[:-1]} == {"message"}
    for number, row in enumerate(whole["answers"]):
        pieces = [content["text"] for _, content in found[:-1] if content["row"] == number]
        assert len(pieces) > 3
        assert "".join(pieces).strip() == row["text"]


def test_pieces_come_while_the_text_is_written_and_end_with_the_deadline(writer, monkeypatch) -> None:
    step, plain = threading.Event(), writer.system.write
    seen: list[int] = []

    def slow(module, batch, decoding, *, all_done=bool, heard=None):
        def tell(pieces):
            heard(pieces)
            seen.append(len(pieces))
            if len(seen) == 2:
                step.wait(10)

        return plain(module, batch, decoding, all_done=all_done, heard=tell)

    monkeypatch.setattr(writer.system, "write", slow)
    body = {"rows": [{"user": "user 1", "item": "102"}], "stream": True}
    with TestClient(create(writer, ServeConfig(deadline_ms=300.0), Noted(), None, "r")) as client:
        found = events(client.post("/v1/predict", json=body))
        assert [kind for kind, _ in found] == ["message", "message", "error"]
        assert found[-1][1]["detail"] == "nothing was written within 300 ms"
        step.set()
        deadline_s = time.monotonic() + 5
        while time.monotonic() < deadline_s and len(seen) < 3:
            time.sleep(0.02)
        time.sleep(0.1)
        assert len(seen) == 3  # nobody listens: writing ended with the next word
    monkeypatch.setattr(writer.system, "write", lambda *_, **__: time.sleep(0.5) or [""])
    with TestClient(create(writer, ServeConfig(deadline_ms=100.0), Noted(), None, "r")) as client:
        assert client.post("/v1/predict", json=body).status_code == 504


def test_an_error_before_the_first_piece_has_its_own_status(writer_client) -> None:
    body = {"rows": [{"user": "user 1"}], "stream": True}
    assert writer_client.post("/v1/predict", json=body).status_code == 422
