"""Whatever fits the OpenAPI document, or nearly does, gets an answer or an error of the client's, never one of ours."""

import contextlib
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from rec.keys import ServeConfig
from rec.serving.answers import Answerer
from rec.serving.app import create
from tests.serving.test_app import Noted

pytestmark = pytest.mark.slow

EXAMPLES = 20


@pytest.mark.parametrize("served", ["artifact", "food_artifact", "sets_artifact", "writer_artifact"])
def test_no_request_ends_in_an_error_of_the_server(served: str, request: pytest.FixtureRequest) -> None:
    noted = Noted()
    answerer = Answerer(request.getfixturevalue(served))
    app = create(answerer, ServeConfig(max_history=50), noted, None, "r")
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        fuzz(operation, GenerationMode.POSITIVE, answerer.example["row"])
        with contextlib.suppress(Unsatisfiable):  # a request without parameters can be wrong in no way
            fuzz(operation, GenerationMode.NEGATIVE, {})
    statuses = Counter(status for _, status in noted.requests)
    asked = {route.replace(":path}", "}") for route, _ in noted.requests}
    assert asked >= {operation.path for operation in operations} >= {"/v1/predict"}
    assert max(statuses) < 500
    assert statuses[200] > EXAMPLES // 2
    assert statuses[422] > EXAMPLES


def fuzz(operation, mode: GenerationMode, row: dict[str, Any]) -> None:
    """Ask what fits the document, or nearly does.

    Single ids in rows are those of `row`: what is drawn is never known, and a row about nobody is refused.
    """

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def run(case) -> None:
        for drawn in case.body.get("rows", ()) if row and isinstance(case.body, dict) else ():
            drawn.update({name: value for name, value in row.items() if isinstance(drawn.get(name), str | int)})
        answer = case.call()
        assert answer.status_code < 500, f"{case.method} {case.path} {case.body!r}: {answer.content!r}"
        if answer.status_code == 200:
            case.operation.validate_response(answer)

    run()
