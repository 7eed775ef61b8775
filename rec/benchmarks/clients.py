"""Clients of several proxies that go to another one where theirs does not answer, with the time of every request."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

CONNECT_S, ANSWER_S = 2.0, 10.0
"""Longest waits of a client: to be connected, and for an answer."""
Kept = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class RequestAttempts:
    """One request, with all its attempts."""

    start_s: float
    seconds: float
    home: int
    """The proxy of its client at the beginning."""
    way: int
    """The proxy that answered, -1 where none did."""
    question: int
    """Which of the bodies was sent."""
    body: bytes


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that met no answer, or a bad one."""

    begun_s: float
    way: int
    """The proxy that was asked."""
    cause: str
    """The status, or the kind of exception."""


@dataclass(slots=True)
class ClientTimes:
    """What clients saw, times by the monotonic clock."""

    answers: list[RequestAttempts] = field(default_factory=list)
    unanswered: list[FailedAttempt] = field(default_factory=list)
    reopened: int = 0
    """Kept connections that a proxy had closed, as it may: opened anew, as browsers and HTTP libraries do."""

    def failed(self, home: int | None = None) -> int:
        """Return how many requests no proxy answered, of all clients or of those of one proxy."""
        return sum(a.way < 0 and home in (None, a.home) for a in self.answers)

    def quantile_s(self, share: float, first_s: float, last_s: float) -> float:
        """Return a quantile of the times of requests that began in a stretch of time, NaN where none did."""
        times = [a.seconds for a in self.answers if first_s <= a.start_s < last_s]
        return float(np.quantile(times, share)) if times else float("nan")


class Clients(threading.Thread):
    """Clients that ask in turn, each after a random pause; each begins with one of the proxies."""

    def __init__(self, urls: Sequence[str], bodies: Path, clients: int, per_s: float) -> None:
        """Prepare so many clients, who together ask so often per second."""
        super().__init__(daemon=True, name="clients")
        self.urls = [urlsplit(url) for url in urls]
        self.bodies = bodies.read_bytes().splitlines()
        self.clients, self.pause_s, self.ended, self.seen = clients, clients / per_s, threading.Event(), ClientTimes()

    def ask_per_s(self, per_s: float) -> None:
        """Ask so often from now on."""
        self.pause_s = self.clients / per_s

    def run(self) -> None:
        """Ask until ended."""
        asyncio.run(self._all())

    def end(self) -> ClientTimes:
        """End when every client has its last answer, and return what they saw."""
        self.ended.set()
        self.join()
        return self.seen

    async def _all(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        pauses, way = random.Random(number), number % len(self.urls)
        home, kept = way, None
        while not self.ended.is_set():
            await asyncio.sleep(pauses.expovariate(1 / self.pause_s))
            question, start_s, answer = pauses.randrange(len(self.bodies)), time.monotonic(), b""
            for _ in self.urls:
                begun_s = time.monotonic()
                cause, answer, kept = await self._ask(self.urls[way], self.bodies[question], kept)
                if not cause:
                    break
                self.seen.unanswered.append(FailedAttempt(begun_s, way, cause))
                way = (way + 1) % len(self.urls)
            took_s, answered_by = time.monotonic() - start_s, way if answer else -1
            self.seen.answers.append(RequestAttempts(start_s, took_s, home, answered_by, question, answer))
        if kept:
            kept[1].close()

    async def _ask(self, url: Any, body: bytes, kept: Kept | None) -> tuple[str, bytes, Kept | None]:
        """Return why an attempt failed, empty where it did not, its answer, and the connection if it can be kept."""
        while True:
            used = kept is not None
            try:
                if kept is None:
                    kept = await asyncio.wait_for(asyncio.open_connection(url.hostname, url.port), CONNECT_S)
                status, answer = await asyncio.wait_for(_exchange(kept, url, body), ANSWER_S)
                if status == "200":
                    return "", answer, kept
                used, cause = False, status
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                used, cause = used and not getattr(error, "partial", b""), type(error).__name__
            except (OSError, ValueError, TimeoutError) as error:
                used, cause = False, type(error).__name__
            if kept is not None:
                kept[1].close()
            kept = None
            if not used:
                return cause, b"", None
            self.seen.reopened += 1


async def _exchange(kept: Kept, url: Any, body: bytes) -> tuple[str, bytes]:
    """Send one request and return the status and the body of its answer."""
    reader, writer = kept
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    told = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(told.split("content-length:")[1].split("\r\n")[0])
    return told.split()[1], await reader.readexactly(length)


@contextlib.contextmanager
def asking(urls: Sequence[str], bodies: Path, clients: int, per_s: float) -> Iterator[Clients]:
    """Have clients ask while what is inside goes on."""
    found = Clients(urls, bodies, clients, per_s)
    found.start()
    try:
        yield found
    finally:
        found.end()
