"""What every request passes first, and how what goes wrong is told to clients."""

from __future__ import annotations

import hmac
import logging
import reprlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from torch import Tensor

from rec.errors import RequestError
from rec.json_text import is_finite, json_text
from rec.serving.batching import Busy, Late

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
LOG = logging.getLogger(__name__)
DEADLINE = "x-deadline-ms"
HEALTH = "/v1/health"
LONGEST_SHOWN = 80
"""Characters of a wrong text that an answer repeats."""
ERRORS: dict[int | str, dict[str, Any]] = {
    408: {"description": "The deadline that the client set has passed"},
    401: {"description": "The bearer token is missing or wrong"},
    413: {"description": "The body is too large"},
    422: {"description": "The request is malformed; `detail` says where and what was expected"},
    500: {"description": "An unexpected error of this request alone; `id` finds its cause in the replica's log"},
    503: {"description": "Too many requests wait; Retry-After says when to try again"},
    504: {"description": "The deadline of the service has passed"},
}


Shares = Sequence[float] | Tensor


class Meters(Protocol):
    """Receives what is measured."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""

    def batch(self, size: int, seconds: float, waiting: int) -> None:
        """Count a pass of the model."""

    def shares(self, kind: str, name: str, shares: Shares) -> None:
        """Note how experts or modalities were used; what lies on a device is read when it is handed over, not now."""

    def close(self) -> None:
        """Hand over what is left and end."""


class Border:
    """Checks the token and the size of bodies before anything else looks at a request, and counts every request."""

    def __init__(self, app: Any, limit: int, token: str | None, meters: Meters) -> None:
        self.app, self.limit, self.meters = app, limit, meters
        self.expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Any) -> None:
        """Handle one connection's event stream."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_s, status, taken = time.perf_counter(), 0, 0

        async def receive_less() -> Scope:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limit:
                raise HTTPException(413, f"the body has more than {self.limit} bytes")
            return message

        async def send_noted(message: Scope) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self.app(scope, receive_less, send_noted)
            else:
                await refusal(scope, receive, send_noted)
        except Exception as error:
            if status:  # half of an answer is out: only the end of the connection can tell that there is no more
                raise
            await failed(error, scope)(scope, receive, send_noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.meters.request(route, status or 500, time.perf_counter() - started_s)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        given = headers.get(b"authorization", b"")
        guarded = self.expected is not None and path.startswith("/v1") and path != HEALTH
        if guarded and not hmac.compare_digest(given, self.expected or b""):
            return problem(401, "expected `Authorization: Bearer TOKEN`", {"WWW-Authenticate": "Bearer"})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limit:
            return problem(413, f"the body has {int(length)} bytes, at most {self.limit} are taken")
        return None


def add_handlers(app: FastAPI) -> None:
    """Have what goes wrong told with its own status."""
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(ValidationError, _malformed)
    app.add_exception_handler(RequestError, lambda _, error: problem(422, str(error)))
    app.add_exception_handler(Late, _late)
    app.add_exception_handler(Busy, _busy)


def encoded(content: Any) -> bytes:
    """Return content as JSON.

    Raises:
        RequestError: it holds a number that JSON cannot.
    """
    found = to_json(content, inf_nan_mode="constants")
    if (b"NaN" in found or b"Infinity" in found) and not is_finite(content):  # a text may hold these words
        raise RequestError("the model's answer is no finite number; are the request's numbers too large?")
    return found


def failed(error: BaseException, scope: Scope) -> Response:
    """Return the answer to a request that met an error of ours, whose cause is logged under the answer's `id`."""
    number = noted(error, f"{scope.get('method', scope['type'])} {scope['path']}")
    text = f"an unexpected error; the log of the service tells its cause under {number}"
    return Response(json_text({"detail": text, "id": number}), 500, media_type="application/json")


def noted(error: BaseException, what: str) -> str:
    """Log an error of ours with its traceback and return the id that finds it."""
    number = uuid.uuid4().hex[:12]
    LOG.error("%s: %s failed: %r", number, what, error, exc_info=error)
    return number


def problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer to a request that went wrong."""
    # Escaped to ASCII: what a client sent may hold half of a surrogate pair, which no UTF-8 can.
    return Response(json_text({"detail": text}).encode(), status, headers, "application/json")


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | ValidationError)
    at = ["body"] if isinstance(error, ValidationError) else []
    problems = [
        {"where": ".".join(map(str, [*at, *e["loc"]])), "expected": e["msg"], "type": e["type"], **_found(e)}
        for e in error.errors()[:10]
    ]
    return Response(json_text({"detail": problems}).encode(), 422, media_type="application/json")


def _found(error: Mapping[str, Any]) -> dict[str, str]:
    """Return what stood in the place of what was expected, where anything did."""
    if error["type"] in ("missing", "json_invalid"):
        return {}
    value = error["input"]
    if not isinstance(value, str):
        return {"found": reprlib.repr(value)}
    return {"found": repr(value) if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]!r}..."}


async def _late(request: Request, error: Exception) -> Response:
    return problem(408 if DEADLINE in request.headers else 504, str(error))


async def _busy(_: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    return problem(503, str(error), {"Retry-After": str(error.retry_s)})
