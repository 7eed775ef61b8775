"""Scores of texts by a judge that is asked over HTTP, kept on disk by what was asked.

Letters: N texts.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import re
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rec.errors import ConfigError, EvaluationError
from rec.evaluation.tasks.writing_config import JudgeConfig
from rec.json_text import json_text
from rec.storage import Storage, to_bytes
from rec.strict import check_whole, resolve

FILE = "scores.json"
LOWEST, HIGHEST = 0.0, 100.0
NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*100)?\s*\.?\s*")
"""An answer that is a score and nothing else."""
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses behind which the same request may succeed."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
KEPT_EVERY = 64
"""Answers after which all that was given is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTexts:
    """What a judge says of texts."""

    score_N: np.ndarray
    """0 to 100, NaN where none was given."""
    asked: int
    """Requests that were made."""
    fault: str = ""
    """Why some texts have none."""


class Judge(ABC):
    """Scores single texts; an outside module's class works like ours. Called from several threads."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config

    @abstractmethod
    def score(self, text: str, reference: str) -> float | None:
        """Return 0 to 100 from one request, None where the answer is no score.

        Raises:
            Unavailable: the request failed and may be made again.
            EvaluationError: it need not be made again.
        """


class Unavailable(Exception):
    """A request failed; `wait_s` is how long its server asks to be left alone."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class ChatJudge(Judge):
    """A server of chat completions: asked as XRec asks its judge unless the config has another prompt."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__(config)
        self.headers = {"Content-Type": "application/json"}
        if config.token_file:
            try:
                token = Path(config.token_file).read_text().strip()
            except OSError as error:
                raise ConfigError(f"evaluate.judge.token_file: cannot be read ({error.strerror})") from error
            self.headers["Authorization"] = f"Bearer {token}"

    def score(self, text: str, reference: str) -> float | None:
        """Return the number that the model answers with, None where it answers with anything else."""
        user = json_text({"prediction": text, "reference": reference})
        messages = [{"role": "system", "content": self.config.prompt}, {"role": "user", "content": user}]
        body = json_text({"model": self.config.model, "messages": messages, "temperature": 0})
        request = urllib.request.Request(self.config.url, body.encode(), self.headers)
        try:
            with urllib.request.urlopen(request, timeout=self.config.timeout_s) as answer:
                told = answer.read()
        except urllib.error.HTTPError as error:
            where = f"evaluate.judge: {self.config.url} answered {error.code}"
            if error.code not in AGAIN:
                raise EvaluationError(f"{where}: {error.read(300).decode(errors='replace')}") from error
            raise Unavailable(where, _seconds(error.headers.get("Retry-After"))) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"evaluate.judge: {self.config.url} does not answer ({error})") from error
        return _number(told)


def judge(texts: Sequence[str], references: Sequence[str], config: JudgeConfig, folder: str) -> JudgedTexts:
    """Return the score of each text, those that were given before from the cache.

    Args:
        texts: What was written.
        references: The true text of each.
        config: Whom to ask, and how often.
        folder: Of the cache.

    Raises:
        ConfigError: there is no such judge.
        EvaluationError: the server refuses to be asked.
    """
    asking = _Asking(config, Storage(folder))
    keys = [asking.key(*pair) for pair in zip(texts, references, strict=True)]
    first = {key: place for place, key in reversed(list(enumerate(keys))) if key not in asking.known}
    wanted = sorted(first.values())
    try:
        with ThreadPoolExecutor(config.concurrency) as pool:
            list(pool.map(lambda place: asking.ask(keys[place], texts[place], references[place]), wanted))
    finally:
        asking.keep()
    found = [asking.known.get(key) for key in keys]
    score_N = np.array([math.nan if score is None else score for score in found], np.float64)
    return JudgedTexts(score_N=score_N, asked=asking.asked, fault=asking.fault)


class _Asking:
    """One evaluation's requests: their budget, and what was answered."""

    def __init__(self, config: JudgeConfig, storage: Storage) -> None:
        cls = resolve(config.judge, "evaluate.judge.judge")
        check_whole(cls, config.judge, "evaluate.judge.judge")
        self.judge: Judge = cls(config)
        self.config, self.storage = config, storage
        self.known: dict[str, float] = storage.read_json(FILE) if storage.exists(FILE) else {}
        self.asked, self.unkept, self.fault, self.refused = 0, 0, "", False
        self.lock = threading.Lock()

    def key(self, text: str, reference: str) -> str:
        """Return what tells a question from others: judge, model, prompt, both texts."""
        config = self.config
        told = [config.judge, config.url, config.model, config.prompt, text, reference]
        return hashlib.sha256(json_text(told).encode()).hexdigest()

    def ask(self, key: str, text: str, reference: str) -> None:
        """Ask for one text until there is a score, or requests or the budget are at their end."""
        for attempt in range(self.config.retries + 1):
            if not self._may_ask():
                return
            wait_s, fault = 0.0, "evaluate.judge: an answer is no number from 0 to 100"
            try:
                score = self.judge.score(text, reference)
            except Unavailable as error:
                score, wait_s, fault = None, max(FIRST_WAIT_S * 2**attempt, error.wait_s), str(error)
            except EvaluationError:
                self.refused = True
                raise
            if score is not None and LOWEST <= score <= HIGHEST:
                self._know(key, score)
                return
            if attempt < self.config.retries:
                time.sleep(min(wait_s, LONGEST_WAIT_S))
        self.fault = fault

    def _may_ask(self) -> bool:
        with self.lock:
            if self.refused:
                return False
            if self.asked >= self.config.budget:
                self.fault = f"evaluate.judge.budget: all {self.config.budget:,} requests are made"
                return False
            self.asked += 1
            return True

    def _know(self, key: str, score: float) -> None:
        with self.lock:
            self.known[key] = score
            self.unkept += 1
            if self.unkept >= KEPT_EVERY:
                self._write()

    def keep(self) -> None:
        """Write all that was answered."""
        with self.lock:
            if self.unkept:
                self._write()

    def _write(self) -> None:
        self.storage.renew(FILE, to_bytes(self.known))
        self.unkept = 0


def _number(body: bytes) -> float | None:
    """Return the number that an answer consists of, None where it is anything else."""
    try:
        told: Any = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    found = NUMBER.fullmatch(told) if isinstance(told, str) else None
    return float(found[1]) if found else None


def _seconds(told: str | None) -> float:
    """Return the seconds of a header Retry-After; a date or nothing is 0."""
    return float(told) if told and told.strip().isdigit() else 0.0
