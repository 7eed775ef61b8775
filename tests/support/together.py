"""Clients that ask one application at the same time, without a network."""

import asyncio
import json
from typing import Any

import httpx2
import requests

from tests.end_to_end.serving.test_tasks import events

HOST = "http://testserver"


def post(path: str, body: Any) -> requests.PreparedRequest:
    """Return a request with a body as JSON, or what JSON writers make of it."""
    return requests.Request("POST", f"{HOST}/v1/{path}", data=json.dumps(body).encode()).prepare()


class Clients:
    """Clients that ask one application at the same time."""

    def __init__(self, app: Any) -> None:
        self.loop = asyncio.new_event_loop()
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport)

    def ask(self, *asked: requests.PreparedRequest) -> list[Any]:
        """Return the answers to requests that are sent at once."""
        return self.loop.run_until_complete(self._ask(asked))

    async def _ask(self, asked: Any) -> list[Any]:
        return await asyncio.gather(*(self._one(one) for one in asked))

    async def _one(self, one: requests.PreparedRequest) -> Any:
        headers = [(name.lower().encode(), value.encode("latin-1") if isinstance(value, str) else value)
                   for name, value in one.headers.items()]  # fmt: skip
        return await self.client.request(one.method, one.url, headers=headers, content=one.body)


def told(answer: Any) -> Any:
    """Return what a good answer says."""
    assert answer.status_code == 200, answer.text
    streamed = answer.headers["content-type"].startswith("text/event-stream")
    return [list(event) for event in events(answer)] if streamed else answer.json()
