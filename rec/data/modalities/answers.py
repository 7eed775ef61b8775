"""Answers on disk by what was asked, for any number of data sets, and for several commands at the same time.

SQLite with a write-ahead log, on a local disk: an answer is there once `put` returns, whatever kills the process, and
nothing that is there is ever changed. Lookups read a few pages each, so that memory does not grow with the answers.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

from rec.data.modalities.language_model import Answer, Usage
from rec.errors import ConfigError, DataError
from rec.json_text import json_text

FILE = "answers.sqlite"
FORMAT = 1
BUSY_S = 60.0
"""How long a command waits for another one that writes."""
TABLE = "CREATE TABLE IF NOT EXISTS answers (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, answer TEXT NOT NULL)"
"""Rows in the order in which they came, and an index of keys alone: a table ordered by key would be rewritten all over
as random keys come in."""


class Answers:
    """The answers of a folder."""

    def __init__(self, folder: str, key: str = "data.modalities.writer.cache") -> None:
        if "://" in folder:
            raise ConfigError(f"{key}: {folder!r} is no folder of a local disk")
        self.path = Path(folder).absolute() / FILE
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{self.path}: cannot be opened ({error}); delete it to ask everything anew") from error

    def _open(self) -> None:
        self.base = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        (found,) = self.base.execute("PRAGMA user_version").fetchone()
        if found not in (0, FORMAT):
            raise DataError(f"{self.path}: format {found}, expected {FORMAT}")
        self.base.execute("PRAGMA journal_mode=WAL")
        # No wait for the disk at every answer: a killed process loses nothing, a machine without power the last ones.
        self.base.execute("PRAGMA synchronous=NORMAL")
        if not found:
            self.base.execute(TABLE)
            self.base.execute(f"PRAGMA user_version={FORMAT}")

    def get(self, key: bytes) -> Answer | None:
        """Return the answer of a key, None where it was not asked."""
        row = self._do("SELECT answer FROM answers WHERE key=?", key)
        if row is None:
            return None
        told = json.loads(row[0])
        return Answer(told["text"], told["finish"], Usage(told["input"], told["output"]))

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer; one that is there already stays."""
        told = {
            "text": answer.text,
            "finish": answer.finish,
            "input": answer.usage.input,
            "output": answer.usage.output,
        }
        self._do("INSERT OR IGNORE INTO answers (key, answer) VALUES (?, ?)", key, json_text(told))

    def _do(self, words: str, *values: bytes | str) -> tuple[str, ...] | None:
        try:
            found: tuple[str, ...] | None = self.base.execute(words, values).fetchone()
        except sqlite3.Error as error:
            raise DataError(f"{self.path}: {error}") from error
        return found

    def __len__(self) -> int:
        (found,) = self.base.execute("SELECT COALESCE(MAX(id), 0) FROM answers").fetchone()
        return int(found)

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.base.close()
