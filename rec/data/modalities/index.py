"""The index of knowledge: passages in shards on disk, made once for the same files and keys."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from rec.data.encoders import Hashing, TextEncoder, Tfidf, TransformerEncoder, text_encoder_from
from rec.data.modalities.documents import DocumentPart, documents, knowledge_files, parts
from rec.data.modalities.knowledge_config import KnowledgeConfig
from rec.data.modalities.shard import Shard, ShardDraft, write_array
from rec.data.modalities.words import Words
from rec.data.runner import Actors, Runner
from rec.errors import ConfigError, DataError
from rec.sections import counted
from rec.storage import Storage, absolute

FORMAT = 1
MANIFEST = "knowledge.json"
SEARCHED = ("passages", "rows", "years_apart", "shard_passages")
"""Keys that change nothing in the index."""
FITTED_PASSAGES = 100_000
"""Passages that tfidf is fitted on at most, taken evenly from all shards."""
MAX_CHARACTERS = 20_000
ENCODED_AT_ONCE = 4096
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is whole."""

    root: str
    shards: tuple[str, ...]
    passages: int
    documents: int
    untitled: int
    """Passages that belong to no title."""

    def open(self) -> list[Shard]:
        """Return its shards, of which only what is looked at is read."""
        return [Shard(Storage(self.root).below(name)) for name in self.shards]

    def encoder(self, threads: int = 1) -> TextEncoder:
        """Return what made the vectors of the passages."""
        return text_encoder_from(np.load(io.BytesIO(Storage(self.root).read("encoder.npy"))), threads)


def index_of(config: KnowledgeConfig, root: str, runner: Runner, say: Say) -> Index:
    """Return the index of some files below `root`, made where it is not there.

    It is known by the bytes of its files and by the keys that change it, wherever the files lie and whenever they were
    written. Memory holds one shard per worker; of the files, what one part of about 10^5 rows needs.

    Raises:
        DataError: a file cannot be read, or no text is in any.
    """
    name = fingerprint(config, runner)
    storage = Storage(absolute(root)).below(name)
    if not storage.exists(MANIFEST):
        storage.delete("")
        _make(config, storage, runner, say)
    told = storage.read_json(MANIFEST)
    return Index(storage.uri_of(""), tuple(told["shards"]), told["passages"], told["documents"], told["untitled"])


def fingerprint(config: KnowledgeConfig, runner: Runner) -> str:
    """Return what tells an index from others: the hash of its files' bytes and of the keys that change it."""
    uris = knowledge_files(config)
    hashes = runner.map(_sha256, uris, "knowledge: look for changes")
    keys = config.model_dump_json(exclude={"paths", *SEARCHED})
    names = [uri.rsplit("/", 1)[-1] for uri in uris]
    told = repr((FORMAT, keys, list(zip(names, hashes, strict=True))))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _sha256(uri: str) -> str:
    folder, _, name = absolute(uri).rpartition("/")
    return Storage(folder or "/").sha256(name)


@dataclass(frozen=True, slots=True)
class _Made:
    name: str
    passages: int
    documents: int
    untitled: int
    repeated: int


def _make(config: KnowledgeConfig, storage: Storage, runner: Runner, say: Say) -> None:
    tasks = list(enumerate(parts(config)))
    files = {uri: number for number, uri in enumerate(knowledge_files(config))}
    write = partial(_write_shards, config, files, storage.uri_of(""))
    made = [one for found in runner.map(write, tasks, "knowledge: index words and titles") for one in found]
    if not made:
        raise DataError(f"{', '.join(config.paths)}: no text in any file, expected some in the columns of text")
    _write_encoder(config, storage, [one.name for one in made])
    vectors = partial(_Vectors, storage.uri_of(""), config.search == "ivf")
    runner.map_actors(vectors, [one.name for one in made], "knowledge: encode passages", Actors())
    told: dict[str, Any] = {"shards": [one.name for one in made]}
    told |= {key: sum(getattr(one, key) for one in made) for key in ("passages", "documents", "untitled", "repeated")}
    storage.write_json(MANIFEST, told)
    say(
        f"knowledge: {counted(told['passages'], 'passage')} of {counted(told['documents'], 'document')} in "
        f"{counted(len(made), 'shard')}; {told['repeated']:,} said nothing new, {told['untitled']:,} passages have no "
        "title"
    )


def _write_shards(
    config: KnowledgeConfig, files: dict[str, int], root: str, task: tuple[int, DocumentPart]
) -> list[_Made]:
    """Write the documents of a part into shards of its own."""
    number, part = task
    words, made = Words(), list[_Made]()
    draft = ShardDraft(words)
    for document in documents(part, config):
        draft.add(document, files.get(document.file, -1), config.words, config.overlap)
        if len(draft.passages) >= config.shard_passages:
            made.append(_written(draft, root, f"shards/{number:06}-{len(made):04}"))
            draft = ShardDraft(words)
    if draft.passages:
        made.append(_written(draft, root, f"shards/{number:06}-{len(made):04}"))
    elif made and draft.repeated:
        made[-1] = replace(made[-1], repeated=made[-1].repeated + draft.repeated)
    return made


def _written(draft: ShardDraft, root: str, name: str) -> _Made:
    draft.write(Storage(root).below(name))
    lengths = np.diff(draft.first)
    untitled = int(lengths[np.array(draft.main, np.uint64) == 0].sum())
    return _Made(name, len(draft.passages), len(draft.main), untitled, draft.repeated)


def _write_encoder(config: KnowledgeConfig, storage: Storage, names: Sequence[str]) -> None:
    """Write what makes vectors; tfidf is fitted on an even sample of the passages."""
    encoder: Tfidf | Hashing | TransformerEncoder
    if config.encoder == "tfidf":
        each = max(1, FITTED_PASSAGES // len(names))
        sample: list[str] = []
        for name in names:
            texts = Shard(storage.below(name)).table["text"]
            rows = np.unique(np.linspace(0, len(texts) - 1, min(each, len(texts))).astype(np.int64))
            sample += texts.take(rows).to_pylist()
        encoder = Tfidf(sample, config.width)
    elif config.encoder == "hashing":
        encoder = Hashing(config.width)
    else:
        encoder = TransformerEncoder(config.encoder, "mean", 256)
    write_array(storage, "encoder", TextEncoder(encoder, MAX_CHARACTERS).to_table())


class _Vectors:
    """One actor that encodes shards."""

    def __init__(self, root: str, inverted: bool) -> None:
        self.storage, self.inverted = Storage(root), inverted
        self.encoder = text_encoder_from(np.load(io.BytesIO(self.storage.read("encoder.npy"))))

    def __call__(self, name: str) -> int:
        """Write the vectors of a shard, and its inverted lists where they are asked for; return how many."""
        storage = self.storage.below(name)
        texts = Shard(storage).table["text"]
        found = [
            self.encoder.encode(texts.slice(at, ENCODED_AT_ONCE).to_pylist()).astype(np.float16)
            for at in range(0, len(texts), ENCODED_AT_ONCE)
        ]
        vectors = np.concatenate(found)
        write_array(storage, "vector", vectors)
        if self.inverted:
            write_lists(storage, vectors)
        return len(vectors)


def write_lists(storage: Storage, vector_PC: np.ndarray) -> None:
    """Write faiss's inverted lists of the vectors of a shard.

    Raises:
        ConfigError: faiss is not installed.
    """
    faiss = faiss_of()
    count, width = vector_PC.shape
    lists = max(1, min(4 * int(count**0.5), count // 39))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    vectors = vector_PC.astype(np.float32)
    index.train(vectors[:: max(1, count // (64 * lists))])
    index.add(vectors)
    write_array(storage, "lists", faiss.serialize_index(index))


def faiss_of() -> Any:
    """Return the library faiss.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ConfigError('knowledge.search: "ivf" needs faiss; pip install faiss-cpu, or use exact') from error
    return faiss
