"""A server of chat completions in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rec.benchmarks.chat_server import Chat, serving


@pytest.fixture(scope="session")
def chat_server() -> Iterator[Chat]:
    with serving() as found:
        yield found


@pytest.fixture
def chat(chat_server: Chat) -> Chat:
    chat_server.behave()
    return chat_server
