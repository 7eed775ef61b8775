"""An artifact's tasks, ready to answer: the model on its device, the ways to ask, and the example that must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from rec.errors import ConfigError, RequestError
from rec.evaluation.rows import Rows
from rec.evaluation.service import Answer, Context, Lookup, Route, Service
from rec.moe.layer import Mixed, layers_of
from rec.sections import sentence
from rec.serving.artifact import Artifact, TaskParts
from rec.serving.config import ServeConfig
from rec.serving.predict import PredictRoute


class Answerer:
    """Answers requests from one artifact on one device; not for several threads at once.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"serve.gpus_per_replica: the model is to lie on {device!r}, but no GPU is visible here")
        self.artifact, self.device = artifact, torch.device(device)
        self.config = artifact.config
        self.system, self.module = artifact.system(self.device)
        self.contexts = {name: self._context(name, told) for name, told in artifact.manifest["tasks"].items()}
        tasks = {task.name: task for task in self.system.tasks if task.name in self.contexts}
        found = {name: tasks[name].service(context) for name, context in self.contexts.items()}
        self.services: dict[str, Service] = {name: service for name, service in found.items() if service is not None}
        self.entities = {name: artifact.members(name) for name in artifact.manifest["entities"]}
        self.rows = Rows(self.system.columns, artifact.members)
        for name, layer in layers_of(self.module):
            if not layer.replicated:
                layer.register_forward_hook(lambda _, __, mixed, name=name: self._note(name, mixed))

    def _context(self, task: str, told: Mapping[str, Any]) -> Context:
        return Context(
            name=self.config.system,
            system=self.system,
            module=self.module,
            device=self.device,
            parts=TaskParts(self.artifact, task),
            manifest=told,
            modalities=tuple(self.artifact.manifest["modalities"]),
        )

    @cached_property
    def example(self) -> dict[str, Any]:
        """The artifact's example: `path`, `request`, `answer`, and `row`, one of the test split."""
        return self.artifact.example()

    @property
    def notice(self) -> str:
        """What people must be told with every answer."""
        return str(self.system.notice)

    @property
    def notices(self) -> str:
        """What people must be told before all answers: the system's notice, and that data are generated."""
        told = [self.notice, self.artifact.manifest.get("warning", "")]
        return " ".join(sentence(text) if all(told) else text for text in told if text)

    def routes(self, limits: ServeConfig, row: Mapping[str, Any] | None = None) -> dict[str, Route[Any]]:
        """Return the ways to ask by their paths: those of each task, and rows for all of them.

        Args:
            limits: The deployment's.
            row: A row that shows what one looks like.
        """
        own = [route for service in self.services.values() for route in service.routes(limits)]
        if self.services:
            own.append(PredictRoute(self.services, self.rows, limits, row))
        return {route.path: route for route in own}

    @cached_property
    def _own_routes(self) -> dict[str, Route[Any]]:
        return self.routes(self.config.serve)

    def lookups(self) -> list[Lookup]:
        """Return what else can be looked up."""
        return [lookup for service in self.services.values() for lookup in service.lookups()]

    def member(self, entity: str, index: int) -> Answer:
        """Return what is known of a member of an entity: its id, title and picture, and `known`, what belongs to it."""
        members, context = self.entities[entity], next(iter(self.contexts.values()))
        found: Answer = {"id": members.id(index), **context.shown(members, index)}
        told = (service.known(entity, index) for service in self.services.values())
        known = next((part for part in told if part is not None), None)
        return found if known is None else {**found, "known": known}

    def work(self, route: Route[Any], asked: Sequence[Any]) -> list[Answer]:
        """Return the answers to what several requests ask, in one pass of the model."""
        with torch.inference_mode():
            return route.work(asked)

    def finished(self, answer: Answer) -> Answer:
        """Return an answer with what people must be told."""
        return {**answer, "notes": [*answer["notes"], self.notice]} if self.notice else answer

    def respond(self, path: str, request: Mapping[str, Any]) -> Answer:
        """Return the answer to one request, under the artifact's own limits.

        Raises:
            RequestError: there is no such path, or the request cannot be answered.
        """
        routes = self._own_routes
        if path not in routes:
            raise RequestError(f"{path}: is not asked here; there are {', '.join(routes) or 'none'}")
        route = routes[path]
        asked = route.parse(route.request.model_validate(dict(request)))
        return self.finished(route.joined(self.work(route, asked)))

    def shares(self) -> dict[str, torch.Tensor]:
        """Return each mixture layer's use of its experts in the batch that was answered last, (E,), on the device."""
        return {name: share_E for context in self.contexts.values() for name, share_E in context.shares.items()}

    def _note(self, name: str, mixed: Mixed) -> None:
        share_E = mixed.routing.dense().mean(0)
        for context in self.contexts.values():
            context.shares[name] = share_E
