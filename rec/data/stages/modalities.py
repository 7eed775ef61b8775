"""Texts of items by modality, written as `[data.modalities]` says, and kept with how each was made.

Items are read file by file and texts stay on disk, so that memory does not grow with the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rec.data.config import DataConfig
from rec.data.items import FiledItems, Items, facts_of, in_parts
from rec.data.modalities.config import ModalitiesConfig
from rec.data.modalities.index import index_of
from rec.data.modalities.items import Written
from rec.data.modalities.job import ModalityJob
from rec.data.modalities.passages import Passage
from rec.data.modalities.retrieval import Retriever
from rec.data.modalities.summary import Summary, told_of
from rec.data.modalities.tables import passages_table, template_table, written_table
from rec.data.modalities.template import Templates
from rec.data.runner import Runner
from rec.data.writing import WORK, Draft, write_table
from rec.errors import ConfigError
from rec.filesystems import beside
from rec.sections import counted
from rec.storage import Storage

ITEMS_PER_FILE = 8192
ITEMS = f"{WORK}/items"
"""Where the items lie while texts of them are written."""
Say = Callable[[str], None]


def filed(draft: Draft, items: pd.DataFrame, config: ModalitiesConfig) -> FiledItems:
    """Return the items in files that texts are written from, one for each file of texts."""
    return FiledItems.write(draft.root.below(ITEMS), in_parts(items, items_per_file(config)))


def items_per_file(config: ModalitiesConfig) -> int:
    """Return the items of a file: as many whole batches as make ITEMS_PER_FILE or more."""
    return -(-ITEMS_PER_FILE // config.batch) * config.batch


def write_modalities(
    draft: Draft, items: FiledItems, count_I: np.ndarray, config: DataConfig, runner: Runner, say: Say
) -> tuple[Texts, dict[str, Any]]:
    """Write how each text was made; return the texts, which stay on disk, and what is told of all of them.

    Files: `written/part-N.parquet`, a row per text, and `passages/part-N.parquet`, a row per passage that one of them
    was written from (in each file those that no file before it has). Templates write a file each of the items' files,
    wherever the runner lets them; a model is asked from here, and passages are found from here.
    """
    job = job_of(config, items, count_I, runner, say)
    write = _in_order if job.config.writer.asks or job.config.quotes else _by_template
    files, summary = write(draft, items, job)
    told = told_of(job, summary)
    _say(told, say)
    return Texts(draft.storage, job.names, files), told | {"files": files}


def _in_order(draft: Draft, _: FiledItems, job: ModalityJob) -> tuple[list[tuple[str, int]], Summary]:
    kept, summary = Kept(draft), Summary()
    with closing(job.write()) as every:
        for written in every:
            summary.add(written)
            kept.add(written)
    kept.flush()
    return kept.files, summary


def _by_template(draft: Draft, items: FiledItems, job: ModalityJob) -> tuple[list[tuple[str, int]], Summary]:
    write = TemplateFiles(items, draft.storage, job.names, job.fields, job.config)
    every = job.runner.map(write, items.files, "modalities: write files of texts of items")
    summary = Summary()
    for part in every:
        summary.merge(part)
    sizes = [len(job.names) * int(size) for size in np.diff(items.bounds)]
    files = [(_written(number), size) for number, size in enumerate(sizes)]
    draft.files += [name for name, _ in files]
    return files, summary


@dataclass(frozen=True, slots=True)
class TemplateFiles:
    """Writes texts by template, a file of them for each file of items, in whichever process is told to."""

    items: FiledItems
    target: Storage
    names: tuple[str, ...]
    fields: tuple[str, ...]
    config: ModalitiesConfig

    def __call__(self, number: int) -> Summary:
        """Write the texts of a file's items, and return what is told of them."""
        templates, frame = Templates(self.names, self.config.templates), self.items.read(number)
        texts: dict[str, list[str]] = {name: [] for name in self.names}
        for part in in_parts(frame, self.config.batch):
            for name, found in templates.columns(facts_of(part, self.fields)).items():
                texts[name] += found
        write_table(self.target, _written(number), template_table(texts, self.items.first(number)))
        return Summary.by_template(texts)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that were written, in files."""

    storage: Storage
    names: tuple[str, ...]
    files: list[tuple[str, int]]
    """Names and rows; those of an item are together, items in order."""

    def beside(self, items: pd.DataFrame) -> pd.DataFrame:
        """Return the items with a column per modality."""
        parts: dict[str, list[pa.Array]] = {name: [] for name in self.names}
        for file, _ in self.files:
            with self.storage.open(file) as stream:
                table = pq.read_table(stream, columns=["modality", "text"])
            for name, found in parts.items():
                found += table["text"].filter(pc.equal(table["modality"], name)).chunks
        columns = {name: pa.chunked_array(found, pa.string()) for name, found in parts.items()}
        return items.assign(**{name: column.to_pandas().set_axis(items.index) for name, column in columns.items()})


def _written(number: int) -> str:
    return f"written/part-{number:05d}.parquet"


def job_of(
    config: DataConfig, items: Items, count_I: np.ndarray, runner: Runner, say: Say, show: bool = True
) -> ModalityJob:
    """Return the job of writing those modalities of items that are none of their columns.

    Without `show`, the writer is not shown what was found of an item, by which its texts are judged all the same.

    Raises:
        ConfigError: there is none to write.
    """
    assert config.modalities is not None, "whoever calls has looked"
    assert config.text is not None, "checked with the config"
    names = [name for name in config.text.modalities if name not in items.columns]
    if not names:
        raise ConfigError(
            f"data.modalities: has no effect: all of data.text.modalities ({', '.join(config.text.modalities)}) are "
            "columns of the items"
        )
    for name in config.modalities.templates:
        if name not in names:
            raise ConfigError(f"data.modalities.templates.{name}: has no effect: {name!r} is a column of the items")
    keys, retrieve = config.modalities.knowledge, None
    if keys is not None:
        retrieve = Retriever(index_of(keys, beside(config.root, "knowledge"), runner, say), keys).retrieve
    return ModalityJob(
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
