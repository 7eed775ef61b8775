"""The bare HTTP client that the chat writer stands on: as many requests at a time as a server has places."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiohttp

from rec.json_text import json_text

LETTERS = 600
"""Of a question, about as many as the writer's."""


def ask(url: str, count: int, places: int) -> None:
    """Ask a server of chat completions so many questions, and read its answers."""
    asyncio.run(_ask(url, count, places))


async def _ask(url: str, count: int, places: int) -> None:
    left = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, limit_per_host=0)) as session:
        await asyncio.gather(*(_one_place(session, url, left) for _ in range(places)))


async def _one_place(session: aiohttp.ClientSession, url: str, left: Iterator[int]) -> None:
    for number in left:
        question = {"role": "user", "content": f"Title: Film {number}\n{'x' * LETTERS}"}
        data = json_text({"model": "m", "messages": [question]}).encode()
        async with session.post(url, data=data, headers={"Content-Type": "application/json"}) as response:
            await response.read()
