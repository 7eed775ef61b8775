"""The web application of one artifact: OpenAPI at /docs, a page to try it at /, answers below /v1."""

import hmac
import json
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import Field, ValidationError
from pydantic_core import to_json

from rec.errors import RequestError
from rec.keys import ServeConfig
from rec.serving.answers import Answer, Answerer, Wish
from rec.serving.batching import Batcher, Busy, Late
from rec.serving.requests import (
    ExplainAnswer,
    Message,
    PredictAnswer,
    RecommendAnswer,
    explain_request,
    predict_request,
    recommend_request,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
MAX_SUGGESTIONS = 20
ERRORS: dict[int | str, dict[str, Any]] = {
    408: {"description": "The deadline that the client set has passed"},
    401: {"description": "The bearer token is missing or wrong"},
    413: {"description": "The body is too large"},
    422: {"description": "The request is malformed; `detail` says where and what was expected"},
    503: {"description": "Too many requests wait; Retry-After says when to try again"},
    504: {"description": "The deadline of the service has passed"},
}


class Meters(Protocol):
    """Receives what is measured."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""

    def batch(self, size: int, seconds: float, waiting: int) -> None:
        """Count a pass of the model."""

    def shares(self, kind: str, name: str, shares: Sequence[float]) -> None:
        """Note how experts or modalities were used."""

    def close(self) -> None:
        """Hand over what is left and end."""


def create(answerer: Answerer, limits: ServeConfig, meters: Meters, token: str | None, replica: str) -> FastAPI:
    """Return the application of an artifact; `token` None asks for none."""
    service = Service(answerer, limits, meters, replica)
    app = FastAPI(
        title=f"rec: {answerer.artifact.name}",
        version=str(answerer.artifact.manifest["step"]),
        description="Recommendations, why they are made, and predictions from one trained model.",
    )
    guarded = APIRouter(prefix="/v1", responses=ERRORS)
    service.add_routes(guarded)

    @app.get(HEALTH)
    async def health() -> dict[str, Any]:
        """Say that this replica answers."""
        return service.health()

    text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(text)

    app.state.close = service.close
    app.include_router(guarded)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(ValidationError, _malformed)
    app.add_exception_handler(RequestError, lambda _, error: _problem(422, str(error)))
    app.add_exception_handler(Late, _late)
    app.add_exception_handler(Busy, _busy)
    if token is not None:
        app.openapi = lambda: _with_token(app)  # type: ignore[method-assign]
    app.add_middleware(Border, limit=limits.max_body_bytes, token=token, meters=meters)
    return app


class Service:
    """The routes of one replica and what they share."""

    def __init__(self, answerer: Answerer, limits: ServeConfig, meters: Meters, replica: str) -> None:
        self.answerer, self.limits, self.meters, self.replica = answerer, limits, meters, replica
        self.started_s = time.monotonic()
        self.batcher: Batcher[Wish, Any] = Batcher(
            self._recommend,
            max_batch_size=limits.max_batch_size,
            max_queued=limits.max_queued,
            latency_target_s=limits.latency_target_ms / 1000,
            observe=self._observe,
        )

    def add_routes(self, router: APIRouter) -> None:
        """Add every route that needs the token."""
        recommend_body = recommend_request(self.limits)
        explain_body = explain_request(self.limits)
        predict_body = predict_request(self.limits)

        @router.post("/recommend", response_model=RecommendAnswer, openapi_extra=_takes(recommend_body))
        async def recommend(request: Request) -> Response:
            """Return the best items for a known user, for a history, or among candidates."""
            return await self.recommend(recommend_body.model_validate_json(await request.body()), request)

        @router.post("/explain", response_model=ExplainAnswer, openapi_extra=_takes(explain_body))
        async def explain(request: Request) -> Response:
            """Return why a user would be shown an item: the parts of its score, modalities, experts, similar items."""
            return await self.explain(explain_body.model_validate_json(await request.body()), request)

        @router.post("/predict", response_model=PredictAnswer, openapi_extra=_takes(predict_body))
        async def predict(request: Request) -> Response:
            """Return the system's own answers to rows with its columns, for systems that predict sets or ratings."""
            body: Any = predict_body.model_validate_json(await request.body())
            answers = await self.batcher.alone(lambda: self.answerer.predict(body.rows), self._timeout_s(request))
            return _json({"notes": [], "answers": answers})

        @router.get("/model")
        async def model() -> dict[str, Any]:
            """Return what is served: system, sizes, columns, limits."""
            return self.model()

        @router.get("/items/{item}/image", response_class=Response, responses={404: {"description": "No picture"}})
        async def image(item: Annotated[str, Field(max_length=256)]) -> Response:
            """Return an item's picture."""
            found = self.answerer.picture(_clean(item))
            if found is None:
                raise HTTPException(404, "no picture of this item")
            kind = "image/png" if found.startswith(b"\x89PNG") else "image/jpeg"
            return Response(found, media_type=kind, headers={"Cache-Control": "max-age=3600"})

        @router.get("/users")
        async def users(prefix: Annotated[str, Query(max_length=256)] = "") -> list[str]:
            """Return some known users whose ids start with a prefix."""
            return self.answerer.user_ids.search(_clean(prefix), MAX_SUGGESTIONS)

    def close(self) -> None:
        """End the model's thread and the meters."""
        self.batcher.close()
        self.meters.close()

    async def recommend(self, body: Any, request: Request) -> Response:
        """Answer one request of `/v1/recommend`."""
        wish = self.answerer.wish(
            user=body.user,
            history=body.history,
            k=body.k,
            exclude=body.exclude,
            candidates=body.candidates,
            explain=body.explain,
            profile=None if body.profile is None else body.profile.model_dump(),
            avoid=body.avoid,
        )
        answer = await self.batcher.ask(wish, self._timeout_s(request))
        return _json(answer)

    async def explain(self, body: Any, request: Request) -> Response:
        """Answer one request of `/v1/explain`."""
        profile = None if body.profile is None else body.profile.model_dump()
        wish = self.answerer.wish(user=body.user, history=body.history, profile=profile, avoid=body.avoid)
        answer = await self.batcher.alone(lambda: self.answerer.explain(body.item, wish), self._timeout_s(request))
        return _json(answer)

    def health(self) -> dict[str, Any]:
        """Return that this replica answers, and which artifact."""
        artifact = self.answerer.artifact
        uptime_s = time.monotonic() - self.started_s
        return {
            "status": "ok",
            "artifact": artifact.name,
            "step": artifact.manifest["step"],
            "replica": self.replica,
            "uptime_s": round(uptime_s, 3),
        }

    def model(self) -> dict[str, Any]:
        """Return what is served."""
        manifest, config = self.answerer.artifact.manifest, self.answerer.config
        columns = [{"name": c.name, "dtype": c.dtype, "shape": list(c.shape)} for c in self.answerer.columns.values()]
        kept = ("system", "step", "counts", "modalities", "index")
        limits = config.serve.model_dump(include={"max_k", "max_history", "max_body_bytes", "deadline_ms"})
        return {
            "artifact": self.answerer.artifact.name,
            **{name: manifest.get(name) for name in kept},
            "ranks": self.answerer.ranks,
            "columns": columns,
            "limits": limits,
        }

    def _recommend(self, wishes: Sequence[Wish]) -> Sequence[Answer]:
        answers = self.answerer.recommend(wishes)
        for name, shares in self.answerer.shares().items():
            self.meters.shares("expert", name, shares)
        weights = [list(item["modalities"].values()) for a in answers for item in a["items"] if "modalities" in item]
        if weights:
            self.meters.shares("modality", "gate", [sum(w) / len(weights) for w in zip(*weights, strict=True)])
        return answers

    def _observe(self, size: int, seconds: float) -> None:
        self.meters.batch(size, seconds, len(self.batcher.queue))

    def _timeout_s(self, request: Request) -> float:
        asked = request.headers.get(DEADLINE)
        if asked is None:
            return self.limits.deadline_ms / 1000
        try:
            deadline_ms = float(asked)
        except ValueError:
            deadline_ms = math.nan
        if not deadline_ms > 0:
            raise RequestError(f"{DEADLINE}: expected a number of milliseconds above 0, got {asked[:40]!r}")
        return min(self.limits.deadline_ms, deadline_ms) / 1000


DEADLINE = "x-deadline-ms"
HEALTH = "/v1/health"


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
        started_s, status, taken = time.perf_counter(), 500, 0

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
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.meters.request(route, status, time.perf_counter() - started_s)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        given = headers.get(b"authorization", b"")
        guarded = self.expected is not None and path.startswith("/v1") and path != HEALTH
        if guarded and not hmac.compare_digest(given, self.expected or b""):
            return _problem(401, "expected `Authorization: Bearer TOKEN`", {"WWW-Authenticate": "Bearer"})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limit:
            return _problem(413, f"the body has {int(length)} bytes, at most {self.limit} are taken")
        return None


def _with_token(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document with the token that all requests but health carry."""
    document: dict[str, Any] = FastAPI.openapi(app)
    document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document | {"security": [{"token": []}]}


def _takes(body: type[Message]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a route's request.

    Bodies are read by the model itself, from bytes: through the framework's parameters it takes five times as long.
    """
    wait = {"type": "number", "exclusiveMinimum": 0, "description": "Milliseconds until a 408 instead"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body.model_json_schema()}}},
        "parameters": [{"name": DEADLINE, "in": "header", "required": False, "schema": wait}],
    }


def _json(answer: Answer) -> Response:
    return Response(to_json(answer), media_type="application/json")


def _problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    # Escaped to ASCII: what a client sent may hold half of a surrogate pair, which no UTF-8 can.
    return Response(json.dumps({"detail": text}).encode(), status, headers, "application/json")


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | ValidationError)
    at = ["body"] if isinstance(error, ValidationError) else []
    problems = [
        {"where": ".".join(map(str, [*at, *e["loc"]])), "expected": e["msg"], "type": e["type"]}
        for e in error.errors()[:10]
    ]
    return Response(json.dumps({"detail": problems}).encode(), 422, media_type="application/json")


async def _late(request: Request, error: Exception) -> Response:
    return _problem(408 if DEADLINE in request.headers else 504, str(error))


async def _busy(_: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    return _problem(503, str(error), {"Retry-After": str(error.retry_s)})


def _clean(text: str) -> str:
    return text.encode("utf-8", "ignore").decode()
