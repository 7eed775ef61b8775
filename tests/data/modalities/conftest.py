"""A server of chat completions in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest


class Chat:
    """The server: tell it how to behave, and ask what it saw."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.url = f"{self.base}/v1/chat/completions"

    def behave(self, **keys: Any) -> None:
        body = json.dumps(keys).encode()
        urllib.request.urlopen(
            urllib.request.Request(f"{self.base}/behave", body, {"Content-Type": "application/json"})
        )

    def told(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.base}/told") as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found


@pytest.fixture(scope="session")
def chat_server() -> Iterator[Chat]:
    command = [sys.executable, "-m", "tests.data.modalities.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Chat(int(process.stdout.readline()))
        process.kill()


@pytest.fixture
def chat(chat_server: Chat) -> Chat:
    chat_server.behave()
    return chat_server
