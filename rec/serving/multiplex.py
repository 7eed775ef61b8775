"""Many artifacts behind one application, with those used last in memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from fastapi import FastAPI, Response

from rec.json_text import json_text
from rec.serving.border import failed

Scope = MutableMapping[str, Any]


class Multiplexer:
    """ASGI application that answers `/NAME/...` by the application of that name.

    At most `most` are in memory; the one that was not asked for longest makes room. An application is opened in a
    thread while others answer.
    """

    def __init__(self, open_app: Callable[[str], FastAPI], names: Sequence[str], most: int) -> None:
        self.open_app, self.names, self.most = open_app, tuple(names), most
        self.apps: OrderedDict[str, FastAPI] = OrderedDict()
        self.opening: dict[str, asyncio.Task[FastAPI]] = {}

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Scope]], send: Any) -> None:
        """Handle one connection's event stream."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        root = scope.get("root_path", "")
        name = scope["path"].removeprefix(root).lstrip("/").partition("/")[0]
        if name not in self.names:
            text = json_text({"detail": "expected /NAME/v1/...", "names": self.names, "loaded": list(self.apps)})
            await Response(text, 404, media_type="application/json")(scope, receive, send)
            return
        try:
            app = await self._app(name)
        except Exception as error:
            await failed(error, scope)(scope, receive, send)
            return
        await app({**scope, "root_path": f"{root}/{name}"}, receive, send)

    async def _app(self, name: str) -> FastAPI:
        """Return an application, opened once however many ask for it."""
        if name not in self.apps:
            if name not in self.opening:
                self.opening[name] = asyncio.create_task(asyncio.to_thread(self.open_app, name))
            try:
                app = await asyncio.shield(self.opening[name])
            finally:
                if name in self.opening and self.opening[name].done():
                    del self.opening[name]
            self.apps[name] = app
            while len(self.apps) > self.most:
                _, oldest = self.apps.popitem(last=False)
                oldest.state.close()
        self.apps.move_to_end(name)
        return self.apps[name]


async def _live(receive: Callable[[], Awaitable[Scope]], send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
