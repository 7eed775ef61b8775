import shutil
import threading
import time

import pytest
from fastapi.testclient import TestClient

from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.serving.multiplex import Multiplexer
from tests.end_to_end.serving.test_app import Noted


@pytest.fixture
def opened() -> list[str]:
    return []


@pytest.fixture
def client(artifact: Artifact, tmp_path, opened):
    for name in "abc":
        shutil.copytree(artifact.path, tmp_path / name)

    def open_app(name: str):
        time.sleep(0.05)
        opened.append(name)
        return create(Answerer(Artifact.open(str(tmp_path / name))), ServeConfig(), Noted(), None, "r")

    with TestClient(Multiplexer(open_app, "abc", 2)) as found:
        yield found


def test_artifacts_are_opened_once_and_the_longest_unused_makes_room(client, opened) -> None:
    for name in "aabab":
        assert client.get(f"/{name}/v1/health").json()["artifact"] == name
    assert opened == ["a", "b"]
    assert client.get("/c/v1/health").json()["artifact"] == "c"  # takes the place of a
    assert client.get("/b/v1/health").json()["artifact"] == "b"
    assert opened == ["a", "b", "c"]
    assert client.get("/a/v1/health").json()["artifact"] == "a"
    assert opened == ["a", "b", "c", "a"]
    assert client.post("/a/v1/recommend", json={"user": "u1", "k": 3}).json()["source"] == "model"


def test_many_who_ask_at_once_open_one(client, opened) -> None:
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(client.get("/a/v1/health").status_code)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [200] * 6
    assert opened == ["a"]


def test_an_unknown_name_is_told_those_there_are(client, opened) -> None:
    answer = client.get("/d/v1/health")
    assert (answer.status_code, answer.json()["names"]) == (404, ["a", "b", "c"])
    assert opened == []
