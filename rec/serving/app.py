"""The web application of one artifact: OpenAPI at /docs, a page to try it at /, answers below /v1."""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import Field
from starlette.routing import Route as PlainRoute

from rec.data.ids import MAX_ID
from rec.data.members import media_type
from rec.errors import RequestError
from rec.evaluation.service import Answer, Lookup, Route
from rec.report.origin import data_name, shown_counts
from rec.sections import sentence
from rec.serving.answers import Answerer
from rec.serving.batching import Batcher
from rec.serving.border import DEADLINE, ERRORS, HEALTH, Border, Meters, Receive, Scope, add_handlers, encoded
from rec.serving.config import ServeConfig
from rec.serving.documents import add_documents, with_token
from rec.serving.schema import schema_of
from rec.serving.streaming import LONGEST_S, Pieces, documented, streamed

MAX_SUGGESTIONS = 20
Text = Annotated[str, Field(max_length=MAX_ID)]


def create(answerer: Answerer, limits: ServeConfig, meters: Meters, token: str | None, replica: str) -> FastAPI:
    """Return the application of an artifact; `token` None asks for none."""
    asked, told = Asked(answerer, limits, meters, replica), answerer.notices
    app = FastAPI(
        title=f"rec: {answerer.artifact.name}",
        version=str(answerer.artifact.manifest["step"]),
        description=" ".join(["Answers of one trained model.", *([f"Note: {sentence(told)}"] if told else [])]),
        docs_url=None,
        redoc_url=None,
    )
    guarded = APIRouter(prefix="/v1", responses=ERRORS)
    asked.add_routes(guarded)

    @app.get(HEALTH)
    async def health() -> dict[str, Any]:
        """Say that this replica answers."""
        return asked.health()

    text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(text)

    app.state.close = asked.close
    app.include_router(guarded)
    # Tried first: these read their bodies themselves, so that FastAPI has only to document them.
    app.router.routes[:0] = [_direct(asked, route) for route in asked.routes.values()]
    add_documents(app)
    add_handlers(app)
    if token is not None:
        app.openapi = lambda: with_token(app)  # type: ignore[method-assign]
    app.add_middleware(Border, limit=limits.max_body_bytes, token=token, meters=meters)
    return app


class Asked:
    """The routes of one replica and what they share: one thread in which the model works, a queue for each route."""

    def __init__(self, answerer: Answerer, limits: ServeConfig, meters: Meters, replica: str) -> None:
        self.answerer, self.limits, self.meters, self.replica = answerer, limits, meters, replica
        self.started_s = time.monotonic()
        # The document is open to all: where a token is asked for it shows no one's row.
        self.routes = answerer.routes(limits, None if limits.token else answerer.example.get("row"))
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.batchers: dict[str, Batcher[Any, Answer]] = {path: self._batcher(r) for path, r in self.routes.items()}

    def _batcher(self, route: Route[Any]) -> Batcher[Any, Answer]:
        return Batcher(
            lambda asked: self._work(route, asked),
            max_batch_size=self.limits.max_batch_size,
            max_queued=self.limits.max_queued,
            latency_target_s=self.limits.latency_target_ms / 1000,
            observe=self._observe,
            thread=self.thread,
        )

    def add_routes(self, router: APIRouter) -> None:
        """Add every route that needs the token."""
        for route in self.routes.values():
            self._add_route(router, route)
        for lookup in self.answerer.lookups():
            _add_lookup(router, lookup)
        self._add_entities(router)

        @router.get("/model")
        async def model() -> dict[str, Any]:
            """Return what is served: tasks with the schemas of their requests and answers, entities, limits."""
            return self.model()

    def _add_route(self, router: APIRouter, route: Route[Any]) -> None:
        async def endpoint(request: Request) -> Response:
            return await self.ask(route, request)

        streams = "stream" in route.request.model_fields
        responses: dict[int | str, dict[str, Any]] = {200: {"content": documented()}} if streams else {}
        router.add_api_route(
            f"/{route.path}",
            endpoint,
            methods=["POST"],
            name=route.path,
            description=type(route).__doc__,
            response_model=route.answer,
            responses=responses,
            openapi_extra=_takes(route),
        )

    def _add_entities(self, router: APIRouter) -> None:
        Name = Annotated[str, Field(max_length=MAX_ID, json_schema_extra={"enum": list(self.answerer.entities)})]

        @router.get("/entities/{entity}")
        async def search(entity: Name, prefix: Annotated[str, Query(max_length=MAX_ID)] = "") -> list[dict[str, Any]]:
            """Return members whose ids start with a text or whose titles hold it: `id`, `title`."""
            members = self._entity(entity)
            found = await asyncio.to_thread(members.search, prefix, MAX_SUGGESTIONS)
            return [{"id": members.id(index), "title": members.title(index)} for index in found]

        @router.get("/media", response_class=Response, responses={404: {"description": "No picture"}})
        async def media(entity: Name, id: Text) -> Response:
            """Return a member's picture; the id may hold any character, as it is no part of the path."""
            found = self._entity(entity).picture(self._member(entity, id))
            if not isinstance(found, bytes):
                raise HTTPException(404, f"no picture of this {entity}")
            return _media(found)

        @router.get("/member", responses={404: {"description": "Not known"}})
        async def told(entity: Name, id: Text) -> dict[str, Any]:
            """Return what is known of a member: its id, title and picture, and `known`, what belongs to it."""
            return self.answerer.member(entity, self._member(entity, id))

        @router.get("/entities/{entity}/{member:path}", responses={404: {"description": "Not known"}})
        async def told_by_path(entity: Name, member: Text) -> dict[str, Any]:
            """Return the same as /v1/member, for ids that the path of an address can hold."""
            return self.answerer.member(entity, self._member(entity, member))

    def _entity(self, name: str) -> Any:
        if name not in self.answerer.entities:
            known = ", ".join(self.answerer.entities) or "none"
            raise HTTPException(404, f"no such entity; there are {known}")
        return self.answerer.entities[name]

    def _member(self, entity: str, name: str) -> int:
        index = int(self._entity(entity).find([name])[0])
        if index < 0:
            raise HTTPException(404, f"this {entity} is not known")
        return index

    def close(self) -> None:
        """End the model's thread and the meters."""
        self.thread.shutdown(wait=False)
        self.meters.close()

    async def ask(self, route: Route[Any], request: Request) -> Response:
        """Answer one request."""
        body = route.request.model_validate_json(await request.body())
        asked, timeout_s, batcher = route.parse(body), self._timeout_s(request), self.batchers[route.path]
        pieces = Pieces()
        if not route.listen(body, asked, pieces.heard):
            answer = route.joined(await batcher.ask_all(asked, timeout_s))
            return Response(encoded(self.answerer.finished(answer)), media_type="application/json")

        async def whole() -> Answer:
            return route.joined(await batcher.ask_all(asked, LONGEST_S))

        return await streamed(pieces, whole(), self.answerer.finished, timeout_s)

    def health(self) -> dict[str, Any]:
        """Return that this replica answers, and which artifact."""
        artifact = self.answerer.artifact
        uptime_s = time.monotonic() - self.started_s
        return {
            "status": "ok",
            "artifact": artifact.name,
            "step": artifact.manifest["step"],
            "replica": self.replica,
            "device": str(self.answerer.device),
            "uptime_s": round(uptime_s, 3),
        }

    def model(self) -> dict[str, Any]:
        """Return what is served."""
        answerer = self.answerer
        manifest, example = answerer.artifact.manifest, answerer.example
        data = manifest.get("data", {})
        columns = [
            {"name": c.name, "dtype": c.dtype, "shape": list(c.shape), "entity": c.entity, "optional": c.optional}
            for c in answerer.rows.asked
        ]
        routes = [
            {"path": r.path, "about": r.about, "request": schema_of(r.request), "answer": schema_of(r.answer)}
            for r in self.routes.values()
            if r.offered
        ]
        limits = self.limits.model_dump(include={"max_k", "max_history", "max_body_bytes", "max_tokens", "deadline_ms"})
        return {
            "artifact": answerer.artifact.name,
            **{name: manifest.get(name) for name in ("system", "step", "entities", "modalities")},
            "tasks": {name: manifest["tasks"][name] for name in answerer.services},
            "notice": answerer.notices,
            "data": {
                "name": data_name(answerer.config),
                "counts": shown_counts(data.get("counts", {})),
            },
            "licence": data.get("licence", ""),
            "columns": columns,
            "routes": routes,
            "example": {"path": example["path"].removeprefix("/v1/"), "request": example["request"]},
            "limits": limits,
        }

    def _work(self, route: Route[Any], asked: Sequence[Any]) -> Sequence[Answer]:
        answers = self.answerer.work(route, asked)
        for name, share_E in self.answerer.shares().items():
            self.meters.shares("expert", name, share_E)
        for name, shares in route.shares(answers).items():
            self.meters.shares("modality", name, shares)
        return answers

    def _observe(self, size: int, seconds: float) -> None:
        self.meters.batch(size, seconds, sum(len(batcher.queue) for batcher in self.batchers.values()))

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


class Direct:
    """Answers a route's requests without FastAPI's handling of arguments, which takes as long as ours."""

    def __init__(self, asked: Asked, route: Route[Any]) -> None:
        self.asked, self.route = asked, route

    async def __call__(self, scope: Scope, receive: Receive, send: Any) -> None:
        """Answer one request."""
        scope["route"] = self
        response = await self.asked.ask(self.route, Request(scope, receive))
        await response(scope, receive, send)

    @property
    def path(self) -> str:
        """The address, by which requests are counted."""
        return f"/v1/{self.route.path}"


def _direct(asked: Asked, route: Route[Any]) -> PlainRoute:
    found = Direct(asked, route)
    return PlainRoute(found.path, found, methods=["POST"], include_in_schema=False)


def _add_lookup(router: APIRouter, lookup: Lookup) -> None:
    in_path = f"{{{lookup.argument}" in lookup.path

    async def endpoint(request: Request) -> Response:
        values = request.path_params if in_path else request.query_params
        asked = str(values.get(lookup.argument, ""))
        if len(asked) > MAX_ID:
            raise RequestError(f"{lookup.argument}: {len(asked):,} characters, expected at most {MAX_ID}")
        found = lookup.find(asked)
        if found is None:
            raise HTTPException(404, "not known")
        return _media(found) if isinstance(found, bytes) else Response(encoded(found), media_type="application/json")

    where = {"in": "path", "required": True} if in_path else {"in": "query", "required": False}
    parameter = {"name": lookup.argument, **where, "schema": {"type": "string", "maxLength": MAX_ID}}
    router.add_api_route(
        f"/{lookup.path}",
        endpoint,
        name=lookup.path,
        description=lookup.summary,
        response_class=Response,
        responses={404: {"description": "Not known"}},
        openapi_extra={"parameters": [parameter]},
    )


def _media(content: bytes) -> Response:
    return Response(
        content, media_type=media_type(content) or "application/octet-stream", headers={"Cache-Control": "max-age=3600"}
    )


def _takes(route: Route[Any]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a route's request.

    Bodies are read by the model itself, from bytes: through the framework's parameters it takes five times as long.
    """
    wait = {"type": "number", "exclusiveMinimum": 0, "description": "Milliseconds until a 408 instead"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(route.request)}}},
        "parameters": [{"name": DEADLINE, "in": "header", "required": False, "schema": wait}],
    }
