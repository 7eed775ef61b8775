"""Answers that are told piece by piece, as server-sent events.

data: {"row": 0, "text": "..."}      the next piece of a row's text
event: answer, data: {...}           the whole answer, as without streaming; the last event
event: error, data: {"detail": ...}  what went wrong on the way; the last event
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse

from rec.errors import RequestError
from rec.evaluation.service import Answer
from rec.json_text import json_text
from rec.serving.batching import Late
from rec.serving.border import encoded, noted

LONGEST_S = 3600.0
"""Time that a text may take; each piece has the request's deadline."""


class Pieces:
    """Pieces of text on their way from the model's thread to a client."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self.gone = False
        """Whether nobody listens any more."""
        self.told = False

    def heard(self, number: int, piece: str) -> bool:
        """Take a piece, in any thread; return whether somebody listens."""
        if piece and not self.gone:
            self.told = True
            self.loop.call_soon_threadsafe(self.queue.put_nowait, (number, piece))
        return not self.gone


async def streamed(
    pieces: Pieces, answer: Awaitable[Answer], finished: Callable[[Answer], Answer], timeout_s: float
) -> Response:
    """Return the response that tells pieces as they come and then the whole answer.

    Raises:
        Late: no piece came in time; a later piece that does not is told as an event.
        RequestError, Busy: nothing was written.
    """
    task = asyncio.ensure_future(answer)
    try:
        first = await _next(pieces, task, timeout_s)
    except BaseException:
        pieces.gone = True
        task.cancel()
        raise

    async def events() -> AsyncIterator[bytes]:
        try:
            found = first
            while found is not None:
                yield _event({"row": found[0], "text": found[1]})
                found = await _next(pieces, task, timeout_s)
            yield _event(finished(task.result()), "answer")
        except (Late, RequestError) as error:
            yield _event({"detail": str(error)}, "error")
        except Exception as error:
            number = noted(error, "a streamed answer")
            text = f"an unexpected error; the log of the service tells its cause under {number}"
            yield _event({"detail": text, "id": number}, "error")
        finally:
            pieces.gone = True
            task.cancel()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _next(pieces: Pieces, task: asyncio.Future[Any], timeout_s: float) -> tuple[int, str] | None:
    """Return the next piece, None once the answer is there."""
    if not pieces.queue.empty():
        return pieces.queue.get_nowait()
    if task.done():
        task.result()
        return None
    getting = asyncio.ensure_future(pieces.queue.get())
    try:
        done, _ = await asyncio.wait({getting, task}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if getting in done:
            return getting.result()
    finally:
        getting.cancel()
    if not done:
        raise Late(f"nothing was written within {timeout_s * 1000:.0f} ms")
    return await _next(pieces, task, timeout_s)


def _event(content: Any, kind: str = "") -> bytes:
    head = f"event: {kind}\n" if kind else ""
    return head.encode() + b"data: " + encoded(content) + b"\n\n"


def documented() -> dict[str, Any]:
    """Return what the OpenAPI document says of a streamed answer."""
    example = 'data: {"row": 0, "text": "a "}\n\nevent: answer\ndata: ' + json_text({"notes": [], "answers": []})
    text = {"type": "string"}
    event = {"type": "object", "properties": {"event": text, "data": text}}
    return {"text/event-stream": {"schema": event, "example": example}}
