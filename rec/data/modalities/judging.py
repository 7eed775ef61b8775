"""Judging of texts beside the event loop that asks for them: in a process of its own where they are many.

The loop keeps the places of a server filled, and every millisecond that it spends on words leaves some of them empty.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from rec.data.modalities.faithfulness import Checker, Faithfulness
from rec.data.modalities.flow import settle
from rec.errors import DataError

GATHERED_S = 0.02
"""Texts are gathered for so long, and then judged together."""
NICE = 5
"""Judging steps back behind the loop, which waits for none of it as long as there is something to ask."""


class _Asked(NamedTuple):
    """Texts of an item that wait to be judged."""

    texts: Sequence[str]
    sources: Sequence[str]
    found: asyncio.Future[list[Faithfulness]]


class SupportJudge:
    """Says how far sources support texts; open while it is a context manager, on one event loop."""

    def __init__(self, checker: Checker, *, apart: bool) -> None:
        """Prepare to judge.

        Args:
            checker: What compares texts with their sources.
            apart: Whether it does so in a process of its own, which takes about a second to start.
        """
        self.checker, self.apart = checker, apart

    async def __aenter__(self) -> Self:
        self.waiting: list[_Asked] = []
        self.working: asyncio.Task[None] | None = None
        if self.apart:
            self.process, self.thread = _Process(self.checker), ThreadPoolExecutor(1, thread_name_prefix="judge")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.apart:
            return
        if self.working is not None:
            self.working.cancel()
        self.process.close()
        self.thread.shutdown(wait=True, cancel_futures=True)

    async def judged(self, texts: Sequence[str], sources: Sequence[str]) -> list[Faithfulness]:
        """Return the faithfulness of an item's texts.

        Raises:
            DataError: the process that judges has ended.
        """
        if not self.apart:
            return self.checker.check(texts, sources)
        asked = _Asked(texts, sources, asyncio.get_running_loop().create_future())
        self.waiting.append(asked)
        if self.working is None or self.working.done():
            self.working = asyncio.ensure_future(self._work())
        return await asked.found

    async def _work(self) -> None:
        """Let all that waits be judged, and what comes meanwhile."""
        loop = asyncio.get_running_loop()
        while self.waiting:
            await asyncio.sleep(GATHERED_S)
            batch, self.waiting = self.waiting, []
            items = [(asked.texts, asked.sources) for asked in batch]
            await settle([asked.found for asked in batch], loop.run_in_executor(self.thread, self.process.check, items))


class _Process:
    """A process that checks texts; it ends with its standard input, so that none is left behind a killed command."""

    def __init__(self, checker: Checker) -> None:
        command = [sys.executable, "-m", __name__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            self._exchange(checker)
        except BaseException:
            self.close()
            raise

    def check(self, items: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[list[Faithfulness]]:
        """Return the faithfulness of each of some items' texts, given texts and sources."""
        found: list[list[Faithfulness]] = self._exchange(items)
        return found

    def _exchange(self, said: Any) -> Any:
        assert self.process.stdin is not None, "it is a pipe"
        assert self.process.stdout is not None, "it is a pipe"
        try:
            _send(self.process.stdin, said)
            answer = pickle.load(self.process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            status = self.process.wait()
            raise DataError(
                f"the process that judges texts ended with status {status}; answers so far are kept: the same command "
                "goes on"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def _send(stream: IO[bytes], said: Any) -> None:
    stream.write(pickle.dumps(said, pickle.HIGHEST_PROTOCOL))
    stream.flush()


def main() -> None:
    """Take a checker from the standard input, then lists of items until it ends; answer each on the standard output."""
    os.nice(NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    checker: Checker | None = None
    while True:
        try:
            said = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: Any = None
        try:
            if checker is None:
                checker = said
            else:
                answer = [checker.check(texts, sources) for texts, sources in said]
        except Exception as error:
            answer = error
        _send(answers, answer)


if __name__ == "__main__":
    main()
