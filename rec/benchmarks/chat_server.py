"""A server of chat completions and embeddings that behaves as it is told: slow, failing, limiting, answering badly.

`python -m rec.benchmarks.chat_server` prints its port. What is asked decides how it is answered, so that runs repeat.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from aiohttp import web

from rec.json_text import json_text

PLAIN: dict[str, Any] = {
    "names": ["plot"],  # of the modalities that it answers with
    "delay_s": 0.0,
    "fail": 0.0,  # share of requests that fail with `status`
    "status": 500,
    "reset": 0.0,  # share of requests whose connection is cut
    "garbage": 0.0,  # share of answers that are no chat completion
    "break_off": 0.0,  # share of streamed answers that break off
    "retry_after": "",
    "malformed": [],  # titles whose first answer is no JSON
    "hopeless": [],  # titles whose every answer is no JSON
    "cut": [],  # titles whose first answer is too long
    "invent": [],  # titles whose first answer says what nobody knows
    "refuse": [],  # titles that are refused with status 400
    "word_s": 0.0,  # between two parts of a streamed answer
    "hold_after": 0,  # answers after which no further one is given; 0 gives all
    "key": "",  # what Authorization must hold
    "width": 8,  # numbers of an embedding, where a request asks for no other
    "most_texts": 0,  # texts of a request of embeddings at most; more are refused with status 413; 0 takes all
    "base64": False,  # embeddings come in base64
}
"""How it behaves unless it is told otherwise; of shares, what fails is drawn by the question and how often it came."""

Answering = Callable[[web.Request, dict[str, Any], str], Awaitable[web.StreamResponse]]


class Server:
    """Answers as its keys say, and counts what it sees."""

    def __init__(self) -> None:
        self.keys = dict(PLAIN)
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.held = 0
        self.tries: Counter[str] = Counter()
        self.requests, self.begun, self.open, self.most_open = 0, 0, 0, 0
        self.area_s, self.at_s, self.first_s = 0.0, 0.0, 0.0
        self.cpu_s = time.process_time()
        self.times: list[float] = []
        self.bodies: list[dict[str, Any]] = []

    def told(self) -> dict[str, Any]:
        """Return what was seen: requests by title, and how many were open at a time."""
        span_s = max(self.at_s - self.first_s, 1e-9)
        return {
            "requests": self.requests,
            "asked": self.asked,
            "answered": self.answered,
            "held": self.held,
            "most_open": self.most_open,
            "open": self.open,
            "mean_open": self.area_s / span_s,
            "span_s": span_s,
            "cpu_s": time.process_time() - self.cpu_s,
            "times": self.times,
            "last": self.bodies[-3:],
        }

    def _step(self, change: int) -> None:
        now_s = time.monotonic()
        self.first_s = self.first_s or now_s
        self.area_s += self.open * (now_s - (self.at_s or now_s))
        self.at_s = now_s
        self.open += change
        self.most_open = max(self.most_open, self.open)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of a completion, or fail to."""
        return await self._counted(request, self._answer)

    async def embed(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of embeddings, or fail to."""
        return await self._counted(request, self._embeddings)

    async def _counted(self, request: web.Request, answer: Answering) -> web.StreamResponse:
        keys = self.keys
        raw = await request.read()
        body = json.loads(raw)
        self.requests += 1
        self.times.append(time.monotonic())
        self.bodies = [*self.bodies[-2:], body]
        self._step(+1)
        try:
            if keys["key"] and request.headers.get("Authorization") != f"Bearer {keys['key']}":
                return web.Response(status=401, text=f"wrong key {request.headers.get('Authorization')}")
            return await answer(request, body, hashlib.sha256(raw).hexdigest())
        finally:
            self._step(-1)

    async def _answer(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        keys, messages = self.keys, body["messages"]
        answered = self.answered  # what is answered after a reset is no part of what was asked since
        users = [message["content"] for message in messages if message["role"] == "user"]
        titled = [m[1] for text in users if (m := re.match(r"Title: (.*?)(?: \(|\n|$)", text))]
        title = titled[-1] if titled else users[-1]
        again = not users[-1].startswith("Title: ")
        self.asked[title] += 1
        chance, failed = self._failed(request, question)
        if failed is not None:
            return failed
        if title in keys["refuse"]:
            return web.Response(status=400, text="too long")
        if not await self._waited(request):
            return web.Response()
        if chance < keys["garbage"]:
            return web.Response(text='{"choices": []}', content_type="application/json")
        text, finish = self._text(title, again)
        usage = {"prompt_tokens": sum(len(m["content"]) for m in messages) // 4, "completion_tokens": len(text) // 4}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
            answered[title] += 1
            return web.json_response({"choices": [choice], "usage": usage})
        return await self._stream(request, title, text, finish, usage, chance < keys["break_off"])

    def _failed(self, request: web.Request, question: str) -> tuple[float, web.Response | None]:
        """Return the draw that decides how a request goes, and how it fails, None where it does not."""
        keys = self.keys
        self.tries[question] += 1
        chance = _share(question, self.tries[question])
        if chance < keys["reset"]:
            assert request.transport is not None
            request.transport.close()
            return chance, web.Response()
        if chance < keys["fail"]:
            headers = {"Retry-After": keys["retry_after"]} if keys["retry_after"] else {}
            return chance, web.Response(status=keys["status"], text="it fails", headers=headers)
        return chance, None

    async def _waited(self, request: web.Request) -> bool:
        """Wait as long as an answer is held back and takes; return whether whoever asked is still there."""
        self.begun += 1
        begun = self.begun
        self.held += 1
        while self.keys["hold_after"] and begun > self.keys["hold_after"] and request.transport is not None:
            await asyncio.sleep(0.02)
        self.held -= 1
        if request.transport is None:
            return False
        await asyncio.sleep(self.keys["delay_s"])
        return True

    async def _embeddings(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        keys = self.keys
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        self.asked.update(texts)
        chance, failed = self._failed(request, question)
        if failed is not None:
            return failed
        if set(texts) & {*keys["refuse"], ""} or (keys["most_texts"] and len(texts) > keys["most_texts"]):
            return web.Response(status=413, text="too long")
        if not await self._waited(request):
            return web.Response()
        count = len(texts) - (chance < keys["garbage"])
        width = body.get("dimensions", keys["width"])
        form = packed if keys["base64"] else plain
        data = [{"index": n, "embedding": form(embedding(texts[n], width))} for n in reversed(range(count))]
        self.answered.update(texts)
        tokens = sum(map(len, texts)) // 4
        return web.json_response({"data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    def _text(self, title: str, again: bool) -> tuple[str, str]:
        keys = self.keys
        if title in keys["hopeless"] or (title in keys["malformed"] and not again):
            return f"Sure! {title} is a film.", "stop"
        found = {name: f"{title} as {name}" for name in keys["names"]}
        if title in keys["invent"] and not again:
            found = dict.fromkeys(keys["names"], f"{title} by Zanzibar Quixote")
        text = json_text(found)
        return (text[: len(text) // 2], "length") if title in keys["cut"] and not again else (text, "stop")

    async def _stream(
        self, request: web.Request, title: str, text: str, finish: str, usage: dict[str, int], breaks: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(event: dict[str, Any]) -> None:
            await response.write(f"data: {json_text(event)}\n\n".encode())

        parts = [text[at : at + 8] for at in range(0, len(text), 8)]
        for part in parts[: len(parts) // 2] if breaks else parts:
            await send({"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]})
            await asyncio.sleep(self.keys["word_s"])
        if breaks:
            assert request.transport is not None
            request.transport.close()
            return response
        await send({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        await send({"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        self.answered[title] += 1
        return response

    async def behave(self, request: web.Request) -> web.Response:
        """Take other keys."""
        given = await request.json()
        if given.pop("reset_counts", True):
            self.reset()
            self.keys = PLAIN | given
        else:
            self.keys |= given
        return web.Response()

    async def tell(self, request: web.Request) -> web.Response:
        """Answer with what was seen."""
        return web.json_response(self.told())


def embedding(text: str, width: int) -> np.ndarray:
    """Return the vector of a text: a sum of one for each of its words, of length 1; (width,) float32."""
    words = [hashlib.shake_128(word.encode()).digest(width) for word in text.lower().split()]
    vector = sum((np.frombuffer(word, np.uint8) - 127.5 for word in words), np.zeros(width))
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)


def plain(vector: np.ndarray) -> Any:
    """Return a vector as the protocol has it in numbers."""
    return vector.tolist()


def packed(vector: np.ndarray) -> Any:
    """Return a vector as the protocol has it in base64."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _share(question: str, attempt: int) -> float:
    found = hashlib.blake2b(f"{question} {attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(found, "little") / 2**32


class Chat:
    """A server in a process of its own: tell it how to behave, and ask what it saw."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.url = f"{self.base}/v1/chat/completions"
        self.embeddings = f"{self.base}/v1/embeddings"

    def behave(self, **keys: Any) -> None:
        """Let it behave in another way, and forget what it saw."""
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{self.base}/behave", json_text(keys).encode(), headers))

    def let_go(self) -> None:
        """Wait until none waits for an answer that is held back: who asked is gone."""
        while self.told()["held"]:
            time.sleep(0.02)

    def told(self) -> dict[str, Any]:
        """Return what it saw."""
        with urllib.request.urlopen(f"{self.base}/told") as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found


@contextmanager
def serving() -> Iterator[Chat]:
    """Run a server inside."""
    command = [sys.executable, "-m", "rec.benchmarks.chat_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it is a pipe"
        try:
            yield Chat(int(process.stdout.readline()))
        finally:
            process.kill()


async def main(port: int, names: list[str]) -> None:
    """Serve until the process is ended; tell the port."""
    server = Server()
    server.keys["names"] = names
    app = web.Application(client_max_size=1 << 24)
    app.add_routes(
        [
            web.post("/v1/chat/completions", server.complete),
            web.post("/v1/embeddings", server.embed),
            web.post("/behave", server.behave),
            web.get("/told", server.tell),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a server of chat completions and embeddings to try things on")
    parser.add_argument("--port", type=int, default=0, help="(default: a free one, which is printed)")
    parser.add_argument("--names", default=",".join(PLAIN["names"]), metavar="A,B", help="modalities that it writes")
    found = parser.parse_args()
    asyncio.run(main(found.port, found.names.split(",")))
