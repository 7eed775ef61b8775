"""Texts of items by modality, written as `[data.modalities]` says, and kept with how each was made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd

from rec.data.modalities.index import index_of
from rec.data.modalities.items import Written
from rec.data.modalities.job import Job
from rec.data.modalities.passages import Passage
from rec.data.modalities.retrieval import Retriever
from rec.data.modalities.summary import Summary, told_of
from rec.data.modalities.tables import passages_table, written_table
from rec.data.runner import Runner
from rec.data.writing import Draft
from rec.errors import ConfigError
from rec.filesystems import beside
from rec.keys_data import DataConfig
from rec.sections import counted

ITEMS_PER_FILE = 8192
Say = Callable[[str], None]


def write_modalities(
    draft: Draft, items: pd.DataFrame, count_I: np.ndarray, config: DataConfig, runner: Runner, say: Say
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Write how each text was made; return the items with a column per text, and what is told of all of them.

    Files: `written/part-N.parquet`, a row per text, and `passages/part-N.parquet`, a row per passage that one of them
    was written from (in each file those that no file before it has).
    """
    job = job_of(config, items, count_I, runner, say)
    texts: dict[str, list[str]] = {name: [] for name in job.names}
    kept, summary = Kept(draft), Summary()
    with closing(job.write()) as every:
        for written in every:
            summary.add(written)
            kept.add(written)
            for one in written:
                for name, text in one.texts.items():
                    texts[name].append(text)
    kept.flush()
    told = told_of(job, summary)
    _say(told, say)
    return items.assign(**texts), told | {"files": kept.files}


def job_of(
    config: DataConfig, items: pd.DataFrame, count_I: np.ndarray, runner: Runner, say: Say, show: bool = True
) -> Job:
    """Return the job of writing those modalities of items that are none of their columns.

    Without `show`, the writer is not shown what was found of an item, by which its texts are judged all the same.

    Raises:
        ConfigError: there is none to write.
    """
    assert config.modalities is not None, "whoever calls has looked"
    assert config.text is not None, "checked with the config"
    names = [name for name in config.text.modalities if name not in items]
    if not names:
        raise ConfigError(
            f"data.modalities: has no effect: all of data.text.modalities ({', '.join(config.text.modalities)}) are "
            "columns of the items"
        )
    keys, retrieve = config.modalities.knowledge, None
    if keys is not None:
        retrieve = Retriever(index_of(keys, beside(config.root, "knowledge"), runner, say), keys).retrieve
    return Job(
        config.modalities, items, count_I, names, root=config.root, runner=runner, say=say, retrieve=retrieve, show=show
    )


class Kept:
    """Writes what was written, file by file."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.held, self.seen = draft, list[Written](), set[str]()
        self.files: list[tuple[str, int]] = []

    def add(self, written: list[Written]) -> None:
        """Keep some more items."""
        self.held += written
        if len(self.held) >= ITEMS_PER_FILE:
            self.flush()

    def flush(self) -> None:
        """Write those that are held."""
        if not self.held:
            return
        passages: dict[str, Passage] = {}
        for one in self.held:
            passages |= {found.passage.id: found.passage for found in one.item.retrieved}
        new = [passage for name, passage in passages.items() if name not in self.seen]
        self.seen |= passages.keys()
        part = f"part-{len(self.files):05d}"
        tables = {f"written/{part}": written_table(self.held)}
        if new:
            tables[f"passages/{part}"] = passages_table(new)
        written, *_ = self.draft.tables(tables)
        self.files.append(written)
        self.held = []


def _say(told: dict[str, Any], say: Say) -> None:
    """Say who wrote how many texts, and what was wrong."""
    writers: dict[str, int] = {}
    for of in told["modalities"].values():
        for name, count in of["writers"].items():
            writers[name] = writers.get(name, 0) + count
    by = ", ".join(f"{count:,} by {name}" for name, count in sorted(writers.items()))
    say(f"modalities: {counted(told['items'], 'item')}: texts {by or 'none'}")
    if "requests" in told:
        requests = told["requests"]
        say(
            f"modalities: {counted(requests['made'], 'request')}, {requests['retried']:,} of them repeated, "
            f"{requests['from cache']:,} answers were there; {requests['input tokens']:,} tokens of prompts, "
            f"{requests['output tokens']:,} of answers, {requests['money']:.4g} spent; {told['repaired']:,} answers "
            f"repaired, {told['reflected']:,} reflected on"
        )
    for fault, count in told["faults"].items():
        say(f"modalities: {counted(count, 'item')} written by template: {fault}")
