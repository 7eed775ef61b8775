"""Vectors of texts of items: made by the encoder of `[data.text]`, or taken over from the data set that was there.

Beside the files that a data set tells of lie two that are no part of what it holds:

encoding.json           the encoder, and how many texts it encoded, how many were taken over, and in how many seconds
fitted-NAME.safetensors what TF-IDF has learned of the texts of the table NAME
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from rec.data.config import ENDPOINT, OFFLINE, WORK_KEYS, TextConfig
from rec.data.encoders import Hashing, Tfidf, TransformerEncoder
from rec.data.prepared import Prepared
from rec.data.runner import Actors, Runner
from rec.data.writing import MANIFEST, Draft
from rec.errors import ConfigError, DataError
from rec.filesystems import beside
from rec.json_text import json_text
from rec.progress import Progress
from rec.sections import counted
from rec.storage import Storage
from rec.strict import flat, is_among

ENCODING = "encoding.json"
TABLES = ("text", "text_concatenated")
Say = Callable[[str], None]
Encode = Callable[[Sequence[str]], np.ndarray]


def learned(texts: Sequence[str], width: int) -> tuple[Tfidf, np.ndarray]:
    """Return TF-IDF that was fitted on some texts, and their vectors."""
    with Progress(f"prepare: tfidf learns from {counted(len(texts), 'text')} (words, then their decomposition)"):
        return Tfidf.learned(texts, width)


@dataclass(frozen=True)
class Before:
    """The texts and vectors of a data set that was prepared before, by the same encoder."""

    data: Prepared
    names: tuple[str, ...]
    """The modalities."""

    @classmethod
    def open(cls, root: str, config: TextConfig, say: Say) -> Before | None:
        """Return what there is to take over; None where there is nothing, or another encoder made it."""
        if not Storage(root).exists(MANIFEST):
            return None
        data = Prepared.open(root)
        made = data.made_from().get("text")
        told = data.storage.read_json(ENCODING) if data.storage.exists(ENCODING) else {}
        if made is None or _keys(made) != _keys(config.model_dump(mode="json")):
            say(f"{root}: data.text was another one before: all texts are encoded anew")
            return None
        if told.get("identity") != identity(config):
            say(f"{root}: {config.encoder} is not what encoded the texts before: all are encoded anew")
            return None
        kept = all(data.storage.exists(_fitted(table)) for table in TABLES)
        if not set(config.modalities) <= set(data.items.column_names) or (config.encoder == "tfidf" and not kept):
            say(f"{root}: holds too little of how its texts were encoded: all are encoded anew")
            return None
        return cls(data, config.modalities)

    @cached_property
    def _texts_KI(self) -> list[list[str]]:
        items = self.data.items
        return [[text or "" for text in items[name].to_pylist()] for name in self.names]

    def vectors(self, table: str) -> dict[str, np.ndarray]:
        """Return by text the vector that a table has of it; of one that is not there by its modality's name."""
        array = self.data.array(table)
        texts_KI, absent = self._texts_KI, self.names
        if table == TABLES[1]:
            texts_KI, absent = [[" ".join(text for text in row if text) for row in zip(*texts_KI, strict=True)]], ("",)
        there, others = dict[str, np.ndarray](), dict[str, np.ndarray]()
        for place, texts in enumerate(texts_KI):
            for item, text in enumerate(texts, 1):
                found = there if text else others
                found.setdefault(text or absent[place], array[item, place])
        return others | there

    def fitted(self, table: str, width: int) -> Tfidf:
        """Return TF-IDF as it was fitted on the texts of a table."""
        from safetensors.numpy import load

        name = _fitted(table)
        try:
            arrays = load(self.data.storage.read(name))
            return Tfidf.restored(width, json.loads(arrays["words"].tobytes()), arrays)
        except (ValueError, KeyError, SafetensorError) as error:
            raise DataError(f"{self.data.storage.uri_of(name)}: is damaged ({error}); delete it to fit anew") from error


class TextVectors:
    """Encodes texts as `[data.text]` says, and counts what that took."""

    def __init__(
        self, config: TextConfig, root: str, runner: Runner, say: Say, draft: Draft, before: Before | None = None
    ) -> None:
        self.config, self.root, self.runner, self.say = config, root, runner, say
        self.draft, self.before = draft, before
        self.noted = set[str]()
        self.texts = self.encoded = 0
        self.seconds = 0.0

    def tables(self, texts: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
        """Return the vectors of texts by table, (len(texts), M) float32; write how they were made beside the data set.

        What the data set before has of a text is taken over as it is; TF-IDF stays as it was fitted, and is applied to
        texts that are new.
        """
        start_s = time.monotonic()
        found = self._taken_over(texts, self.before) if self.before else self._made(texts)
        self.seconds += time.monotonic() - start_s
        self._tell(found)
        return found

    def _made(self, texts: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
        """Return the vectors of all texts, encoded now."""
        self.texts = self.encoded = sum(map(len, texts.values()))
        if self.config.encoder != "tfidf":
            return self._each(texts)
        found = {}
        for name, some in texts.items():
            tfidf, found[name] = learned(some, self.config.width)
            self._keep(name, tfidf)
        return found

    def _taken_over(self, texts: Mapping[str, Sequence[str]], before: Before) -> dict[str, np.ndarray]:
        """Return the vectors of all texts, of which only new ones are encoded."""
        kept = {name: before.vectors(name) for name in texts}
        new = {name: [t for t in dict.fromkeys(some) if t and t not in kept[name]] for name, some in texts.items()}
        self.texts, self.encoded = (sum(map(len, part.values())) for part in (texts, new))
        taken = sum(len(kept[name].keys() & set(some)) for name, some in texts.items())
        self.say(f"items: {counted(self.encoded, 'text')} to encode, vectors of {taken:,} are taken over as they were")
        if self.config.encoder == "tfidf":
            self.say(f"items: tfidf stays as it was fitted before; delete {self.root} to fit it on all texts")
            made = {}
            for name, some in new.items():
                tfidf = before.fitted(name, self.config.width)
                made[name] = tfidf.encode(some)
                self._keep(name, tfidf)
        else:
            made = self._each(new)
        found = {}
        for name, every in texts.items():
            by_text = kept[name] | dict(zip(new[name], made[name], strict=True))
            nothing = np.zeros_like(next(iter(by_text.values()), np.zeros(1, np.float32)))
            found[name] = np.stack([by_text.get(text, nothing) for text in every])
        return found

    def knowledge(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts of items and users, of one space that is fitted on these alone."""
        if self.config.encoder == "tfidf":
            tfidf, vectors = learned(texts, self.config.width)
            if tfidf.note:
                self.say(f"users and items: {tfidf.note}")
            return vectors
        return self._encode(texts)

    def _keep(self, name: str, tfidf: Tfidf) -> None:
        """Write what TF-IDF has learned, for texts that come later."""
        from safetensors.numpy import save

        if tfidf.note and tfidf.note not in self.noted:
            self.noted.add(tfidf.note)
            self.say(f"items: {tfidf.note}")
        words, arrays = tfidf.state()
        if arrays:
            arrays["basis"] = arrays["basis"].astype(np.float32)
        arrays["words"] = np.frombuffer(json_text(words).encode(), np.uint8)
        self.draft.storage.write(_fitted(name), save(arrays))

    def _each(self, texts: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
        """Return the vectors of all tables' texts; a server is asked for all in one go."""
        if self.config.encoder != ENDPOINT:
            return {name: self._encode(part) for name, part in texts.items()}
        every = self._encode([text for some in texts.values() for text in some])
        ends = np.cumsum([len(some) for some in texts.values()])
        return dict(zip(texts, np.split(every, ends[:-1]), strict=True))

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        if self.config.encoder == ENDPOINT:
            return np.asarray(self._endpoint.encode(texts))
        size = self.config.batch_size
        batches = [list(texts[at : at + size]) for at in range(0, len(texts), size)]
        make = partial(_encoder, self.config)
        parts = self.runner.map_actors(make, batches, "prepare: encode", Actors(self.config.actors))
        return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)

    @cached_property
    def _endpoint(self) -> Any:
        try:
            from rec.data.modalities.embeddings import EndpointEncoder
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"data.text.encoder: {ENDPOINT!r} needs the package {error.name}; install rec[chat]"
            ) from error
        keys = self.config.endpoint
        return EndpointEncoder(
            keys, batch_size=self.config.batch_size, cache=keys.cache or beside(self.root, "answers")
        )

    def _tell(self, found: Mapping[str, np.ndarray]) -> None:
        """Write what encoding took."""
        told: dict[str, Any] = {
            "encoder": self.config.encoder, "identity": identity(self.config), "texts": self.texts,
            "encoded": self.encoded, "width": max(array.shape[1] for array in found.values()),
            "seconds": self.seconds,
        }  # fmt: skip
        if self.config.encoder == ENDPOINT:
            asked = self._endpoint
            told |= {"requests": asked.told.requests, "tokens": asked.told.usage.total, "from cache": asked.kept}
            self.say(
                f"items: {counted(asked.told.requests, 'request')} of vectors, {asked.told.retries:,} of them "
                f"repeated; {asked.told.usage.total:,} tokens; {asked.kept:,} vectors were there"
            )
        self.draft.storage.write_json(ENCODING, told)


def identity(config: TextConfig) -> str:
    """Return what tells an encoder from others: its name, and the hash of its files where it is a folder."""
    folder = Path(config.encoder)
    if config.encoder in (*OFFLINE, ENDPOINT) or not folder.is_dir():
        return config.endpoint.model if config.encoder == ENDPOINT else config.encoder
    digest, storage = hashlib.sha256(), Storage(config.encoder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name} {storage.sha256(name)}\0".encode())
    return f"{config.encoder} {digest.hexdigest()[:16]}"


def _encoder(config: TextConfig) -> Encode:
    if config.encoder == "hashing":
        return Hashing(config.width).encode
    return TransformerEncoder(config.encoder, config.pooling, config.max_tokens).encode


def _fitted(table: str) -> str:
    return f"fitted-{table}.safetensors"


def _keys(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `[data.text]` that change what is made."""
    return {key: value for key, value in flat(dict(text)).items() if not is_among(f"text.{key}", WORK_KEYS)}
