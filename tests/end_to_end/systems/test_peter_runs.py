"""PETER from generated reviews to answers: what a request tells, what it is answered, and what evaluation says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from rec.data.prepare import prepare
from rec.data.prepared import open_prepared
from rec.data.runner import InProcess
from rec.data.stream import to_columns
from rec.evaluation.requests import columns_of
from rec.nn.decoding import Decoding
from rec.serving.answers import Answerer
from rec.serving.artifact import Artifact
from rec.serving.example import differs
from rec.serving.export import export
from rec.train.job import train_here
from tests.golden.runs import small


@pytest.mark.parametrize(("name", "told"), [("peter", False), ("peter-feature", True)])
def test_a_request_is_answered_as_offline_and_tells_the_feature_where_it_is_given(
    name: str, told: bool, tmp_path: Path
) -> None:
    config = small(name, tmp_path)
    prepare(config.data, InProcess(), lambda _: None)
    train_here(config, lambda _: None, lambda _: None)
    export(config, str(tmp_path / "artifact"), lambda _: None)
    answerer = Answerer(Artifact.open(str(tmp_path / "artifact")))
    assert differs(answerer) == ""
    data = open_prepared(config)
    rows = data.rows("test").slice(0, 6)
    system, module = answerer.system, answerer.module
    with torch.inference_mode():
        batch = system.collate(to_columns(rows))
        texts = system.write(module, batch, Decoding(max_tokens=system.config.words))
        ratings = system.ratings(module, batch).clamp(*system.scale()).tolist()
    users, items = data.users["id"].to_pylist(), data.items["id"].to_pylist()
    asked = [{"user": users[row["user"]], "item": items[row["item"]]} for row in rows.to_pylist()]
    labels = {column.name for column in columns_of(config) if column.label}
    assert labels == {"rating", "text", "opinion"} | (set() if told else {"feature"})
    if told:
        with pytest.raises(ValidationError, match="feature"):
            answerer.respond("predict", {"rows": asked})
        asked = [one | {"feature": row["feature"]} for one, row in zip(asked, rows.to_pylist(), strict=True)]
    answers = answerer.respond("predict", {"rows": asked})["answers"]
    assert [answer["text"] for answer in answers] == texts
    rated = answerer.respond("predict", {"rows": asked, "task": "rating"})["answers"]
    assert [answer["rating"] for answer in rated] == pytest.approx(ratings, abs=1e-5)
