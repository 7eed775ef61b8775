"""Answers on disk by what was asked, for any number of data sets, and for several commands at the same time.

SQLite with a write-ahead log, on a local disk: an answer is there once `put` returns, or `flush` for those that are
held, whatever kills the process, and nothing that is there is ever changed. Lookups read a few pages each, so that
memory does not grow with the answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
from pathlib import Path

from rec.data.modalities.language_model import Answer, TokenUsage
from rec.errors import ConfigError, DataError
from rec.json_text import json_text

FILE = "answers.sqlite"
LOCK = "answers.lock"
FORMAT = 1
BUSY_S = 60.0
"""How long a command waits for another one that writes."""
LOG_PAGES = 16_384
"""Pages of the log, 64 MiB, behind which they go into the table: thousands of answers wait for the disk once."""
TABLE = "CREATE TABLE IF NOT EXISTS answers (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, answer TEXT NOT NULL)"
"""Rows in the order in which they came, and an index of keys alone: a table ordered by key would be rewritten all over
as random keys come in."""


class Answers:
    """The answers of a folder."""

    def __init__(self, folder: str, key: str = "data.modalities.writer.cache") -> None:
        if "://" in folder:
            raise ConfigError(f"{key}: {folder!r} is no folder of a local disk")
        self.path = Path(folder).absolute() / FILE
        self.held: dict[bytes, Answer] = {}
        """Answers that wait for the next `flush`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{self.path}: cannot be opened ({error}); delete it to ask everything anew") from error

    def _open(self) -> None:
        """Open the file, one command after the other: SQLite waits for nobody where two change a new one's journal."""
        with self.path.with_name(LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._opened()

    def _opened(self) -> None:
        self.base = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        (found,) = self.base.execute("PRAGMA user_version").fetchone()
        if found not in (0, FORMAT):
            raise DataError(f"{self.path}: format {found}, expected {FORMAT}")
        self.base.execute("PRAGMA journal_mode=WAL")
        # No wait for the disk at every answer: a killed process loses nothing, a machine without power the last ones.
        self.base.execute("PRAGMA synchronous=NORMAL")
        self.base.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
        if not found:
            self.base.execute(TABLE)
            self.base.execute(f"PRAGMA user_version={FORMAT}")

    def get(self, key: bytes) -> Answer | None:
        """Return the answer of a key, None where it was not asked."""
        if (held := self.held.get(key)) is not None:
            return held
        try:
            row = self.base.execute("SELECT answer FROM answers WHERE key=?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise DataError(f"{self.path}: {error}") from error
        if row is None:
            return None
        told = json.loads(row[0])
        return Answer(told["text"], told["finish"], TokenUsage(told["input"], told["output"]))

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer; one that is there already stays."""
        self.hold(key, answer)
        self.flush()

    def hold(self, key: bytes, answer: Answer) -> None:
        """Keep an answer with others at the next `flush`, which takes little longer than one of them alone."""
        self.held.setdefault(key, answer)

    def flush(self) -> None:
        """Keep the answers that are held, all or none; those that are there already stay."""
        if not self.held:
            return
        rows = [(key, _text(answer)) for key, answer in self.held.items()]
        try:
            self.base.execute("BEGIN IMMEDIATE")
            self.base.executemany("INSERT OR IGNORE INTO answers (key, answer) VALUES (?, ?)", rows)
            self.base.execute("COMMIT")
        except sqlite3.Error as error:
            if self.base.in_transaction:
                self.base.execute("ROLLBACK")
            raise DataError(f"{self.path}: {error}") from error
        self.held.clear()

    def __len__(self) -> int:
        (found,) = self.base.execute("SELECT COALESCE(MAX(id), 0) FROM answers").fetchone()
        return int(found)

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.base.close()


def _text(answer: Answer) -> str:
    usage = answer.usage
    return json_text({"text": answer.text, "finish": answer.finish, "input": usage.input, "output": usage.output})
