"""Every key of a writer that asks a server is read, or refused where it has no effect."""

from __future__ import annotations

from pathlib import Path

from rec.benchmarks.chat_server import Chat
from rec.config import RunConfig, from_table
from rec.data.catalogue import Catalogue
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from tests.end_to_end.test_keys import MSMREC, check_unread, reads
from tests.support.films import film_tables


def test_a_key_of_a_writer_is_read_or_refused(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=["narrative", "pace"])
    writer = {"kind": "chat", "url": chat.url, "model": "m", "input_price": 1.0}
    data = film_tables(tmp_path) | {"root": f"{tmp_path}/data", "modalities": {"writer": writer}}
    folders = iter(range(1000))

    def run(config: RunConfig) -> None:
        there = config.data.model_copy(update={"root": str(tmp_path / str(next(folders)))})
        prepare(there, InProcess(), lambda _: None)
        Catalogue.read(there, InProcess(), lambda _: None).write()

    config = from_table({"system": MSMREC, "out": "o", "data": data})
    with reads() as found:
        run(config)
    assert {("WriterConfig", "budget_tokens"), ("SelectConfig", "share"), ("PromptConfig", "about")} <= found
    check_unread(config, found, ("data",), run)
