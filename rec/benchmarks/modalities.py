"""Writing of modalities: its speed beside the bare functions, and how well a server of chat completions is used."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rec.benchmarks.chat_client import ask
from rec.benchmarks.chat_server import Chat, serving
from rec.benchmarks.memory import PeakMemory
from rec.benchmarks.parts import chosen
from rec.benchmarks.row import Row
from rec.benchmarks.timing import cpu_s
from rec.benchmarks.work import Say
from rec.data.config import MODALITIES, DataConfig
from rec.data.encoders import Tfidf
from rec.data.items import FiledItems, HeldItems, facts_of
from rec.data.modalities.answers import Answers
from rec.data.modalities.config import ModalitiesConfig
from rec.data.modalities.job import ModalityJob
from rec.data.modalities.writers import ModelWriter
from rec.data.runner import InProcess
from rec.data.sources.metadata import FIELDS
from rec.data.stages.item_texts import write_item_texts
from rec.data.stages.modalities import filed, items_per_file, write_modalities
from rec.data.stages.text_vectors import TextVectors
from rec.data.texts import write_texts
from rec.data.writing import Draft
from rec.errors import DataError
from rec.seeds import generator
from rec.train.memory import give_back

ITEMS, ASKED, FEW, MANY = 100_000, 4000, 10_000, 1_000_000
WARM, BATCH, WIDTH = 1000, 2048, 128
PLACES, LATENCY_S = 64, 0.05
NAMES = ("narrative", "visual", "audio")
GENRES = ("Drama", "Comedy, Romance", "Action, Thriller", "Musical", "Documentary")
PATIENCE_S = 120.0
WATCHED_S = 0.02
"""Memory is looked at so often: the texts of few items are written in a second."""


def measure(folder: str, only: Sequence[str], say: Say, asked: int = ASKED) -> list[Row]:
    """Return the rows of some parts, or of all; a server is asked about so many items.

    Raises:
        RequestError: there is no such part.
    """
    parts = chosen("modalities", list(PARTS), only)
    found: list[Row] = []
    with serving() as chat:
        for name in parts:
            say(f"modalities: {name}")
            place = f"{folder}/{name}"
            Path(place).mkdir()
            found += PARTS[name](chat, place, asked)
    return found


def films(start: int, count: int) -> pd.DataFrame:
    """Return made-up films: a plot of words whose frequencies fall as those of a language."""
    rng = generator(start, "benchmark films")
    words = np.array([f"word{number}" for number in range(30_000)])
    drawn = words[np.minimum(rng.zipf(1.3, (count, 24)), len(words)) - 1]
    numbers = np.arange(start, start + count)
    return pd.DataFrame(
        {
            "id": [f"f{n}" for n in numbers],
            "title": [f"Film {n}" for n in numbers],
            "year": [str(1950 + n % 70) for n in numbers],
            "genres": [GENRES[n % len(GENRES)] for n in numbers],
            "directors": [f"Director {n % 4000}" for n in numbers],
            "plot": [f"{' '.join(row[:12])} said {row[12]}. {' '.join(row[13:])} in a town." for row in drawn],
        }
    )


def template(_: Chat, folder: str, __: int) -> list[Row]:
    """Return the processor's time of templates and TF-IDF, beside that of the bare functions for the same items."""
    config = DataConfig.model_validate(
        {"root": f"{folder}/data", "text": {"width": WIDTH}, "modalities": {"batch": BATCH}}
    )
    assert config.text is not None, "it is set above"
    assert config.modalities is not None, "it is set above"
    text, keys = config.text, config.modalities

    def ours(items: pd.DataFrame) -> None:
        draft = Draft(config.root)
        files = filed(draft, items, keys)
        texts, _ = write_modalities(draft, files, np.ones(len(items)), config, InProcess(), _quiet)
        vectors = TextVectors(text, config.root, InProcess(), _quiet, draft)
        write_item_texts(draft, texts.beside(items), text, vectors, _quiet)

    def bare(items: pd.DataFrame) -> None:
        facts = facts_of(items, FIELDS)
        rows = [write_texts(film, MODALITIES) for film in facts]
        for texts in ([one or "none" for row in rows for one in row], [" ".join(row) for row in rows]):
            Tfidf.learned(texts, WIDTH)

    few, many = films(0, WARM), films(0, ITEMS)
    ours(few)
    bare(few)
    name = f"{ITEMS:,} items by template and TF-IDF, CPU seconds, limit: the bare functions"
    return [Row(name, cpu_s(partial(ours, many)), "s", limit=cpu_s(partial(bare, many)), goal=1 / 0.8)]


def memory(_: Chat, folder: str, __: int, sizes: tuple[int, int] = (FEW, MANY)) -> list[Row]:
    """Return the highest memory of the stage that writes texts by template, of many items beside few."""
    _of_stage(f"{folder}/warm", WARM)
    few, many = (_of_stage(f"{folder}/stage-{count}", count) for count in sizes)
    name = f"memory while templates write texts of {sizes[1]:,} items, limit: {sizes[0]:,}"
    return [
        Row(name, many / 2**20, "MiB", limit=few / 2**20, goal=1.1),
        Row("the same, per further item", (many - few) / (sizes[1] - sizes[0]), "bytes"),
    ]


def _of_stage(root: str, count: int) -> int:
    """Return the highest memory, in bytes, while a data set's texts are written by template."""
    config = DataConfig.model_validate({"root": root, "text": {"width": WIDTH}, "modalities": {"batch": BATCH}})
    assert config.modalities is not None, "it is set above"
    draft, size = Draft(root), items_per_file(config.modalities)
    give_back()
    with PeakMemory(WATCHED_S) as watched:
        frames = (films(start, min(size, count - start)) for start in range(0, count, size))
        items = FiledItems.write(draft.root.below("items"), frames)
        write_modalities(draft, items, np.ones(count), config, InProcess(), _quiet)
    return watched.peak_bytes


def busy(chat: Chat, folder: str, asked: int) -> list[Row]:
    """Return how many of a server's places stay empty, how long an item takes, and what the bare client reaches.

    Of five times as many items as elsewhere: first and last requests, when places stay empty, weigh little then.
    """
    asked *= 5
    told, spent_s = list[dict[str, Any]](), list[float]()
    job = _job(chat, folder, asked, concurrency=PLACES)
    for action in (lambda: ask(chat.url, asked, PLACES), lambda: _write(job)):
        chat.behave(names=NAMES, delay_s=LATENCY_S)
        spent_s.append(cpu_s(action))
        told.append(chat.told())
    bare, ours = told
    of = f"{PLACES} places of a server that answers after {LATENCY_S * 1000:g} ms"
    fastest_ms, ms = LATENCY_S / PLACES * 1000, 1000 / asked
    client = "CPU time of the client per item, limit: the bare client"
    return [
        Row(f"empty share of {of}", 1 - ours["mean_open"] / PLACES, "", goal=0.1),
        Row("the same of the bare client", 1 - bare["mean_open"] / PLACES, ""),
        Row(f"time per item with {of}", ours["span_s"] * ms, "ms", limit=fastest_ms, goal=1 / 0.9, physical=True),
        Row("the same of the bare client", bare["span_s"] * ms, "ms", limit=fastest_ms, physical=True),
        Row(client, spent_s[1] * ms, "ms", limit=spent_s[0] * ms),
        Row("CPU time of the server per request", ours["cpu_s"] * ms, "ms"),
    ]


def failing(chat: Chat, folder: str, asked: int) -> list[Row]:
    """Return the requests per item where every fifth fails."""
    chat.behave(names=NAMES, fail=0.2)
    faults = [one for one in _write(_job(chat, folder, asked, concurrency=PLACES)) if one]
    requests = chat.told()["requests"] / asked
    return [
        Row("requests per item of a server that fails 20 % of them", requests, "", goal=1.3),
        Row("items that were not written", len(faults), "items", goal=0),
    ]


def budget(chat: Chat, folder: str, asked: int) -> list[Row]:
    """Return the share of items that half of the cost writes."""
    chat.behave(names=NAMES)
    whole = _job(chat, f"{folder}/whole", asked)
    _write(whole)
    used = _model(whole).model.told.usage.total
    half = _job(chat, f"{folder}/half", asked, budget_tokens=used // 2)
    with contextlib.suppress(DataError):
        _write(half)
    spent = _model(half).model.told.usage.total
    return [
        Row("share of items that half of the tokens leave unwritten", 1 - _model(half).whole / asked, "", goal=0.51),
        Row("tokens that were spent, limit: the budget", spent, "tokens", limit=used // 2, goal=1.0),
    ]


def killed(chat: Chat, folder: str, asked: int) -> list[Row]:
    """Return the items that are answered twice where the first command is killed at half."""
    chat.behave(names=NAMES, hold_after=asked // 2)
    command = [sys.executable, "-m", "rec.benchmarks.modalities", chat.url, folder, str(asked)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with Answers(f"{folder}/answers") as answers:
            end_s = time.monotonic() + PATIENCE_S
            while len(answers) < asked // 2 and time.monotonic() < end_s:
                time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    chat.let_go()
    chat.behave(names=NAMES, hold_after=0, reset_counts=False)
    _write(_job(chat, folder, asked))
    answered: Mapping[str, int] = chat.told()["answered"]
    return [
        Row(
            "items that are answered twice after a kill at half", sum(n > 1 for n in answered.values()), "items", goal=0
        ),
        Row("items without an answer", asked - len(answered), "items", goal=0),
    ]


def _job(chat: Chat | str, folder: str, count: int, **writer: Any) -> ModalityJob:
    url = chat if isinstance(chat, str) else chat.url
    keys = {"kind": "chat", "url": url, "model": "m", "cache": f"{folder}/answers", "max_tokens": 128} | writer
    config = ModalitiesConfig.model_validate({"writer": keys, "prompt": {"examples": []}})
    return ModalityJob(
        config, HeldItems(films(0, count)), np.ones(count), NAMES, root=f"{folder}/data", runner=InProcess(), say=_quiet
    )


def _write(job: ModalityJob) -> list[str]:
    """Write all items, and return what was wrong with each."""
    return [one.fault for some in job.write() for one in some]


def _model(job: ModalityJob) -> ModelWriter:
    assert isinstance(job.writer, ModelWriter), "a server is asked"
    return job.writer


def _quiet(_: str) -> None:
    return None


PARTS: Mapping[str, Callable[[Chat, str, int], list[Row]]] = {
    "template": template,
    "memory": memory,
    "busy": busy,
    "failing": failing,
    "budget": budget,
    "killed": killed,
}

if __name__ == "__main__":
    _write(_job(sys.argv[1], sys.argv[2], int(sys.argv[3])))
