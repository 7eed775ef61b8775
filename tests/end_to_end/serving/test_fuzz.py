"""Whatever a request holds gets an answer or an error of the client's, and those beside it are answered as alone.

Requests are drawn from the OpenAPI document, fitting and not, and from good ones of which parts are replaced; each draw
is sent at once with good requests. `REC_FUZZ_REQUESTS=2000` draws as many for each artifact.
"""

import copy
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from rec.data.attributes import Attributes
from rec.evaluation.service import Answer
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.config import ServeConfig
from rec.serving.example import difference
from tests.end_to_end.serving.test_app import Noted
from tests.support.together import HOST, Clients, post, told

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("REC_FUZZ_REQUESTS", "120"))
TOGETHER = 8
LIMITS = ServeConfig(max_history=50, deadline_ms=60_000.0)
ARTIFACTS = [
    "artifact",
    "food_artifact",
    "lightgcn_artifact",
    "magnet_artifact",
    "sets_artifact",
    "ward_artifact",
    "writer_artifact",
    "reviewer_artifact",
]
IDS = [
    "",
    ".",
    "..",
    "a/b",
    "a\0",
    "\0",
    "\ud800",
    "\U0001f600",
    "%2F",
    "?",
    "a b",
    "\u2028",
    "x" * 256,
    "x" * 257,
    "NaN",
]
NUMBERS = [
    0,
    -1,
    -2,
    1 << 31,
    (1 << 32) + 5,
    1 << 63,
    1 << 64,
    10**4000,
    0.5,
    -0.0,
    1e-300,
    1e308,
    float("nan"),
    float("inf"),
]
PLAIN = st.sampled_from([None, True, False, [], {}, [[]], [None], {"a": 1}, "x" * 100_001, *IDS, *NUMBERS])
ODD = st.recursive(
    st.one_of(PLAIN, st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def good_requests(answerer: Answerer) -> list[tuple[str, Answer]]:
    """Return requests by path that an artifact answers."""
    example = answerer.example
    row = example["row"]
    found = [(example["path"].removeprefix("/v1/"), example["request"]), ("predict", {"rows": [row, row]})]
    if "rating" in answerer.services:
        found.append(("predict", {"rows": [row], "task": "rating"}))
    if "writing" in answerer.services:
        options = {"max_tokens": 5, "temperature": 1.0, "seed": 3}
        found += [("predict", {"rows": [row], "stream": True}), ("predict", {"rows": [row]} | options)]
    if "sets" in answerer.services:
        found.append(("predict", {"rows": [row], "threshold": 0.2, "most": 3}))
        found.append(("predict", {"rows": [row], "threshold": 0.1, "filter": "two_sat", "explain": True}))
    ranking: Any = answerer.services.get("ranking")
    if ranking is None:
        return found
    some = [ranking.items.id(int(index)) for index in ranking.popular[:6]]
    user = ranking.subjects.id(ranking.subjects.first + 2)
    found += [
        ("recommend", {"history": some[:3], "exclude": some[3:4], "k": 4}),
        ("recommend", {"user": user, "candidates": some, "k": 3}),
    ]
    if next(route for path, route in answerer.routes(LIMITS).items() if path == "explain").offered:
        told = answerer.respond("recommend", {"user": user, "k": 1})["items"]
        found.append(("explain", {"user": user, "item": told[0]["item"]}))
    if ranking.ranker.knows_subjects:
        schema = Attributes.from_json(bytes(answerer.system.static["user_attribute_names"]).decode())
        told = {c.name: c.values[0] if c.values else 1.5 for c in schema.columns}
        profile = {"text": "salt and \U0001f600", "attributes": told}
        found.append(("recommend", {"profile": profile, "avoid": answerer.system.tags[:1], "k": 5}))
    return found


def places(body: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where a body holds values: containers and keys."""
    for key in range(len(body)) if isinstance(body, list) else list(body) if isinstance(body, dict) else ():
        yield body, key
        yield from places(body[key])


@st.composite
def replaced(draw: Any, good: list[tuple[str, Answer]]) -> requests.PreparedRequest:
    """Draw a good request of which some values are replaced by others, of any kind."""
    path, body = copy.deepcopy(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 2))):
        container, key = draw(st.sampled_from(list(places(body))))
        container[key] = draw(ODD)
    return post(path, body)


@st.composite
def looked_up(draw: Any, answerer: Answerer) -> requests.PreparedRequest:
    """Draw an address that holds an id of any characters."""
    entity = draw(st.sampled_from([*answerer.entities, *IDS]))
    entity, name = (quote(text, safe="", errors="surrogatepass") for text in (entity, draw(st.sampled_from(IDS))))
    paths = [f"media?entity={entity}&id={name}", f"member?entity={entity}&id={name}", f"users?prefix={name}"]
    paths += [f"entities/{entity}?prefix={name}", f"entities/{entity}/{name}", f"items/{name}/image"]
    found = requests.Request("GET", HOST).prepare()
    found.url = f"{HOST}/v1/{draw(st.sampled_from(paths))}"
    return found


def prepared(case: Any, row: Answer) -> requests.PreparedRequest:
    """Return a drawn case as a request, with the single ids of `row` in its rows.

    What is drawn is never known, and a row about nobody is refused.
    """
    rows = case.body.get("rows") if isinstance(case.body, dict) else None
    for drawn in rows if isinstance(rows, list) else ():
        if isinstance(drawn, dict):
            drawn.update({name: value for name, value in row.items() if isinstance(drawn.get(name), str | int)})
    return requests.Request(**case.as_transport_kwargs(base_url=HOST)).prepare()


@pytest.mark.parametrize("served", ARTIFACTS)
def test_a_request_stands_alone(served: str, request: pytest.FixtureRequest) -> None:
    answerer, noted = Answerer(request.getfixturevalue(served)), Noted()
    app = create(answerer, LIMITS, noted, None, "r")
    clients, good = Clients(app), good_requests(answerer)
    alone = [told(clients.ask(post(*one))[0]) for one in good]
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    row = answerer.example["row"]
    kinds = [st.tuples(replaced(good), st.none()), st.tuples(looked_up(answerer), st.none())]
    fitting = []
    for operation in operations:
        cases = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE).map(lambda c: prepared(c, row))]
        if operation.body or list(operation.iter_parameters()):  # else it can be wrong in no way
            cases.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE).map(lambda c: prepared(c, {})))
        fitting.append(st.tuples(cases[0], st.just(operation)))
        kinds += [st.tuples(case, st.just(operation)) for case in cases]
    statuses: Counter[int] = Counter()

    def run(drawn: Sequence[tuple[requests.PreparedRequest, Any]]) -> None:
        answers = clients.ask(*(one for one, _ in drawn), *(post(*one) for one in good))
        for (one, operation), answer in zip(drawn, answers, strict=False):
            what = f"{one.method} {one.url} {one.body!r:.2000}: {answer.status_code} {answer.content!r:.2000}"
            assert answer.status_code < 500, what
            assert answer.status_code == 200 or answer.json()["detail"], what
            statuses[answer.status_code] += 1
            if answer.status_code == 200 and operation is not None:
                operation.validate_response(answer)
        for one, answer, wanted in zip(good, answers[len(drawn) :], alone, strict=True):
            assert difference(wanted, told(answer), "answer") == "", one

    options = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    each_operation = st.tuples(*fitting)  # what is drawn at random may leave one out
    settings(options, max_examples=2)(given(drawn=each_operation)(run))()
    any_of_them = st.lists(st.one_of(kinds), min_size=TOGETHER, max_size=TOGETHER)
    settings(options, max_examples=-(-REQUESTS // TOGETHER))(given(drawn=any_of_them)(run))()
    asked = {route.replace(":path}", "}") for route, _ in noted.requests}
    assert asked >= {operation.path for operation in operations} >= {"/v1/predict"}
    assert max(noted.batches) >= 3
    print(f"{served}: {sum(statuses.values())} requests, {dict(sorted(statuses.items()))}")
    assert min(statuses[200], statuses[422]) > REQUESTS // 20
