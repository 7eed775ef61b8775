"""The judge over HTTP, asked of a server in this process that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.errors import ConfigError, EvaluationError
from rec.evaluation.tasks.writing import Writing
from rec.evaluation.tasks.writing import judge as judges
from rec.evaluation.tasks.writing.judge import Judge, judge
from rec.evaluation.tasks.writing_config import XREC_PROMPT, JudgeConfig
from tests.end_to_end.evaluation.tasks.writing.test_task import AboutItems, measured

TEXTS, REFERENCES = ["good sound", "bad strap", "good sound"], ["the sound is good", "a strap", "the sound is good"]


class Server(ThreadingHTTPServer):
    """Answers from a list, the last one again and again; notes what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, str]] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/chat/completions"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.headers.append(dict(self.headers))
            answers = self.server.answers
            status, text = answers.pop(0) if len(answers) > 1 else answers[0]
        told = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(told)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(judges, "FIRST_WAIT_S", 0.001)
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def config(server: Server, **keys: Any) -> JudgeConfig:
    return JudgeConfig(url=server.url, model="some-model", concurrency=1, **keys)


def test_each_question_is_asked_once_and_kept_on_disk(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, "80"), (200, " 35.5 ")]
    found = judge(TEXTS, REFERENCES, config(server), str(tmp_path))
    assert found.score_N.tolist() == [80, 35.5, 80]
    assert (found.asked, found.fault) == (2, "")
    again = judge(TEXTS[:2], REFERENCES[:2], config(server), str(tmp_path))
    assert again.score_N.tolist() == [80, 35.5]
    assert again.asked == 0
    assert len(server.asked) == 2
    server.answers = [(200, "1")]
    assert judge(TEXTS[:1], REFERENCES[:1], config(server, prompt="Other."), str(tmp_path)).score_N.tolist() == [1]


def test_the_request_is_that_of_the_paper(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, "5")]
    (tmp_path / "token").write_text("secret\n")
    judge(TEXTS[:1], REFERENCES[:1], config(server, token_file=str(tmp_path / "token")), str(tmp_path / "cache"))
    (body,) = server.asked
    assert body["model"] == "some-model"
    assert body["messages"][0] == {"role": "system", "content": XREC_PROMPT}
    assert XREC_PROMPT.startswith("Score the given explanation against the ground truth on a scale from 0 to 100")
    assert body["messages"][1]["role"] == "user"
    assert json.loads(body["messages"][1]["content"]) == {"prediction": TEXTS[0], "reference": REFERENCES[0]}
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    "before",
    [[(503, "")], [(429, ""), (500, "")], [(200, "as a model I cannot")], [(200, "101"), (200, "-1"), (200, "")]],
)
def test_what_fails_is_asked_again(server: Server, tmp_path: Path, before: list[tuple[int, str]]) -> None:
    server.answers = [*before, (200, "70/100.")]
    found = judge(TEXTS[:1], REFERENCES[:1], config(server, retries=3), str(tmp_path))
    assert found.score_N.tolist() == [70]
    assert found.asked == len(before) + 1


@pytest.mark.parametrize(("answer", "fault"), [((503, ""), "answered 503"), ((200, "fine"), "no number from 0 to 100")])
def test_what_goes_on_failing_has_no_score(server: Server, tmp_path: Path, answer: tuple[int, str], fault: str) -> None:
    server.answers = [answer]
    found = judge(TEXTS[:2], REFERENCES[:2], config(server, retries=2), str(tmp_path))
    assert np.isnan(found.score_N).all()
    assert found.asked == 6
    assert fault in found.fault


def test_nobody_is_asked_beyond_the_budget(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, "50")]
    texts = [f"text {n}" for n in range(9)]
    found = judge(texts, texts, config(server, budget=4), str(tmp_path))
    assert (found.asked, len(server.asked), int(np.isnan(found.score_N).sum())) == (4, 4, 5)
    assert "all 4 requests are made" in found.fault
    rest = judge(texts, texts, config(server, budget=9), str(tmp_path))
    assert rest.asked == 5
    assert rest.score_N.tolist() == [50] * 9


def test_threads_share_the_budget_and_the_cache(server: Server, tmp_path: Path) -> None:
    server.answers = [(503, ""), (200, "50")]
    texts = [f"text {n}" for n in range(40)]
    asked = JudgeConfig(url=server.url, concurrency=8, budget=30)
    found = judge(texts, texts, asked, str(tmp_path))
    scored = int((~np.isnan(found.score_N)).sum())
    assert (found.asked, len(server.asked), scored) == (30, 30, 29)
    assert len(json.loads((tmp_path / "scores.json").read_text())) == scored
    rest = judge(texts, texts, asked, str(tmp_path))
    assert (rest.asked, rest.score_N.tolist()) == (11, [50] * 40)


def test_a_refusal_ends_it_and_keeps_what_was_given(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, "50"), (401, "")]
    with pytest.raises(EvaluationError, match="answered 401"):
        judge(TEXTS[:2], REFERENCES[:2], config(server), str(tmp_path))
    assert len(server.asked) == 2
    server.answers = [(200, "60")]
    assert judge(TEXTS[:2], REFERENCES[:2], config(server), str(tmp_path)).score_N.tolist() == [50, 60]


def test_a_server_that_is_not_there_gives_no_scores(server: Server, tmp_path: Path) -> None:
    nowhere = JudgeConfig(url="http://127.0.0.1:9/v1", retries=1, timeout_s=1)
    found = judge(TEXTS[:1], REFERENCES[:1], nowhere, str(tmp_path))
    assert np.isnan(found.score_N).all()
    assert "does not answer" in found.fault


class Length(Judge):
    """A judge of one's own."""

    def score(self, text: str, reference: str) -> float:
        return float(len(text))


def test_a_judge_may_be_a_class_of_ones_own(tmp_path: Path) -> None:
    own = JudgeConfig(url="-", judge="tests.end_to_end.evaluation.tasks.writing.test_judge:Length")
    assert judge(TEXTS[:2], REFERENCES[:2], own, str(tmp_path)).score_N.tolist() == [10, 9]
    with pytest.raises(ConfigError, match=r"evaluate\.judge\.judge"):
        judge(TEXTS, REFERENCES, JudgeConfig(url="-", judge="tests.nowhere:Length"), str(tmp_path / "other"))


def test_a_measurement_tells_mean_spread_and_what_lacks(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, "40"), (200, "60"), (400, "")]
    keys = {"url": server.url, "budget": 2, "concurrency": 1}
    found = measured(AboutItems(), Writing(), (0, 1, 3), judge=JudgeConfig(**keys))
    found.folder = str(tmp_path)
    task = Writing()
    values = task.late_values(found)
    metrics = task.metrics(found.records, task.values(found.records) | values)
    assert metrics["gptscore"] == 50
    notes = task.enrich(found)
    assert "gptscore: 2 of 3 texts scored, standard deviation over texts 14.1" in notes
    assert any("all 2 requests are made" in note for note in notes)
    assert (tmp_path / "judge" / "scores.json").exists()
