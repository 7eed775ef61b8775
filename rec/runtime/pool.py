"""Pools of actors that take task after task: models that answer what is asked of them one after the other."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray import cloudpickle

from rec.data.modalities.config import WriterConfig
from rec.data.modalities.language_model import CUT, WHOLE, Answer, Conversation, TokenUsage
from rec.data.runner import Actors, Thread
from rec.errors import ConfigError, RecError

RESTARTS, TRIES = 3, 3
"""How often an actor is made anew after its node or process was lost, and a task given to it again."""


class ActorPool:
    """Actors that each make their function once."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], actors: Actors) -> None:
        self.size = actors.count
        resources: dict[str, Any] = {"num_cpus": actors.cpus, "num_gpus": actors.gpus or None}
        kind = ray.remote(_Worker).options(max_restarts=RESTARTS, max_task_retries=TRIES, **resources)
        packed = cloudpickle.dumps(make)
        self.actors = [kind.remote(packed) for _ in range(actors.count)]

    def submit(self, worker: int, task: Any) -> Future[Any]:
        """Let one actor do a task, after those that it was given before."""
        asked: Future[bytes] = self.actors[worker].call.remote(cloudpickle.dumps(task)).future()
        told: Future[Any] = Future()
        asked.add_done_callback(lambda found: _tell(found, told))
        return told

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)


def _tell(found: Future[Any], told: Future[Any]) -> None:
    """Hand a result over, or the error that is told of it."""
    if (lost := found.exception()) is not None:
        told.set_exception(lost)
        return
    result, error = found.result()
    if error:
        told.set_exception(pickle.loads(error))
    else:
        told.set_result(pickle.loads(result))


class _Worker:
    """One actor of a pool: its function is made with the first task, whose caller hears of what is wrong with it."""

    def __init__(self, make: bytes) -> None:
        self.make, self.function = make, None

    function: Any

    def call(self, task: bytes) -> tuple[bytes, bytes]:
        """Return the packed result, or the packed error where it is one of ours."""
        try:
            if self.function is None:
                self.function = pickle.loads(self.make)()
            return pickle.dumps(self.function(pickle.loads(task))), b""
        except RecError as error:
            return b"", pickle.dumps(error)


def vllm_pool(config: WriterConfig) -> Thread[Sequence[Conversation], list[Answer]]:
    """Return what answers conversations with vLLM, as jobs of Ray Data.

    Raises:
        ConfigError: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "data.modalities.writer.kind: 'vllm' needs the package vllm, which is not installed here; install "
            "'ray[llm]' on every node, or take kind \"local\" or an HTTP server"
        )
    return Thread(lambda: _Vllm(config))


class _Vllm:
    """A processor of Ray Data: its engines start with a job, so that it is worth asking much at a time."""

    def __init__(self, config: WriterConfig) -> None:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        self.config = config
        settings = vLLMEngineProcessorConfig(
            model_source=config.model, batch_size=config.batch_size, concurrency=config.actors
        )
        self.processor = build_processor(settings, preprocess=self._asked, postprocess=_answered)

    def _asked(self, row: dict[str, Any]) -> dict[str, Any]:
        sampling = {"max_tokens": self.config.max_tokens, "temperature": self.config.temperature}
        messages = [{"role": role, "content": content} for role, content in row["conversation"]]
        return {"messages": messages, "sampling_params": sampling | {"seed": self.config.seed}, "index": row["index"]}

    def __call__(self, conversations: Sequence[Conversation]) -> list[Answer]:
        """Return the answers, in order."""
        rows = [{"index": n, "conversation": [list(part) for part in one]} for n, one in enumerate(conversations)]
        found = {row["index"]: row for row in self.processor(ray.data.from_items(rows)).iter_rows()}
        return [self._answer(found[number]) for number in range(len(rows))]

    def _answer(self, row: dict[str, Any]) -> Answer:
        # The stage does not tell why an answer ended: one that takes all tokens was cut.
        cut = row["output"] >= self.config.max_tokens
        return Answer(row["text"], CUT if cut else WHOLE, TokenUsage(row["input"], row["output"]))


def _answered(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "index": row["index"], "text": row["generated_text"], "input": int(row["num_input_tokens"]),
        "output": int(row["num_generated_tokens"]),
    }  # fmt: skip
