"""The page on serving lists what is served: every endpoint, and none that is not there."""

import re
from pathlib import Path
from typing import Any

from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.config import ServeConfig
from tests.end_to_end.serving.test_app import Noted

PAGE = Path(__file__).resolve().parents[3] / "docs" / "serving.md"


def test_the_page_lists_every_endpoint(artifact: Any) -> None:
    paths = create(Answerer(artifact), ServeConfig(), Noted(), None, "r1").openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    table = [line for line in PAGE.read_text().splitlines() if re.match(r" *\| `(GET|POST) /", line)]
    told = {words for line in table for words in re.findall(r"`((?:GET|POST) /[^`?]*)", line)}
    assert {words for words in told if "/v1/" in words} == served | {"POST /v1/explain"}
