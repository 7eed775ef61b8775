"""From requests to rows, and from what a system predicts to answers: the same `collate` and `predict` as offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import torch

from rec.batch import Column, Columns
from rec.errors import RequestError
from rec.evaluation.tasks.ranking.answers import recommend, recommend_batch
from rec.moe.layer import Mixed, layers_of
from rec.nn.retrieval import Ask
from rec.serving.artifact import METADATA, Artifact
from rec.serving.ids import Ids
from rec.serving.index import Index, open_index
from rec.systems.capabilities import Explainer, Ranker

Answer = dict[str, Any]
CACHED = 100_000
"""Items whose names and titles are kept at hand."""
POPULARITY, MODEL = "popularity", "model"


@dataclass(slots=True)
class Wish:
    """A request to rank, in indices."""

    user: int
    """-1 where the user is not known."""
    history: np.ndarray
    ask: Ask
    notes: list[str] = field(default_factory=list)
    as_known: bool = False
    """Whether the history is that of a known user, as exported."""
    profile: Mapping[str, Any] | None = None
    """What the request tells of the user: `text`, `attributes`, `avoid`."""


class Answerer:
    """Answers requests from one artifact; not for several threads at once."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.config = artifact.config
        self.system: Any
        self.system, self.module = artifact.system()
        self.item_ids = Ids.open(str(artifact.path / "items"))
        metadata = artifact.items()
        self.titles, self.pictures = (
            metadata[name].combine_chunks() if name in metadata.column_names else None for name in METADATA
        )
        kind = None if self.pictures is None else self.pictures.type
        self.stored = kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
        known = artifact.manifest["counts"]["users"]
        self.user_ids = Ids.open(str(artifact.path / "users")) if known else Ids.of([])
        if known:
            self.offset, self.history = artifact.array("users/offset"), artifact.array("users/history")
        self.states = {
            name: torch.from_numpy(artifact.array(f"users/state/{name}")) for name in artifact.manifest["states"]
        }
        self.columns = {column.name: column for column in self.system.columns}
        self.modalities = list(artifact.manifest["modalities"])
        self.num_items = len(self.item_ids)
        count = np.asarray(self.system.static["item_count"], dtype=np.float64)
        self.share = count / max(count.sum(), 1)
        self.popular = np.argsort(-count[1:], kind="stable") + 1
        self.cached: dict[int, Answer] = {}
        self.index: Index | None = open_index(artifact, self.system)
        self.routed: dict[str, torch.Tensor] = {}
        for name, layer in layers_of(self.module):
            layer.register_forward_hook(lambda _, __, mixed, name=name: self._note(name, mixed))

    @property
    def knows_subjects(self) -> bool:
        """Whether subjects are told apart by more than their histories."""
        return isinstance(self.system, Ranker) and self.system.knows_subjects

    @property
    def ranks(self) -> bool:
        """Whether the system ranks a catalogue for users."""
        return isinstance(self.system, Ranker)

    def wish(
        self,
        *,
        user: str | None,
        history: Sequence[str] | None,
        k: int = 10,
        exclude: Sequence[str] = (),
        candidates: Sequence[str] | None = None,
        explain: bool = False,
        profile: Mapping[str, Any] | None = None,
        avoid: Sequence[str] = (),
    ) -> Wish:
        """Return a request in indices; what is not known is left out with a note, but for what is to be avoided.

        Raises:
            RequestError: the system ranks nothing, the request tells of nobody, or what it tells cannot be used.
        """
        if not self.ranks:
            raise RequestError(f"{self.config.system} ranks no catalogue; ask /v1/predict")
        if user is None and history is None and profile is None:
            raise RequestError("expected `user`, `history` or `profile`")
        described = profile is not None or bool(avoid)
        if described and not self.knows_subjects:
            raise RequestError(f"{self.config.system} reads neither `profile` nor `avoid`")
        notes: list[str] = []
        number = -1 if user is None else int(self.user_ids.find([user])[0])
        if number < 0 and user is not None:
            notes.append(f"user {user!r} is not known")
        if history is not None:
            seen = self._known(history, "history", notes)
        elif number >= 0:
            seen = np.asarray(self.history[self.offset[number] : self.offset[number + 1]], dtype=np.int64)
        else:
            seen = np.empty(0, dtype=np.int64)
        allowed = None if candidates is None else tuple(self._known(candidates, "candidates", notes).tolist())
        ask = Ask(k, tuple(self._known(exclude, "exclude", notes).tolist()), allowed, explain)
        if not len(seen) and not self.knows_subjects:
            notes.append("nothing is known of what the user has seen: the most popular items")
        told = {**(profile or {}), "avoid": list(avoid)} if described else None
        wish = Wish(number, seen, ask, notes, history is None and number >= 0 and not described, told)
        if described:  # what one request tells wrongly must not fail those it is answered with
            self.system.collate(self.rows([wish]))
        return wish

    def recommend(self, wishes: Sequence[Wish]) -> list[Answer]:
        """Return the answers to a batch of requests."""
        answers: list[Answer] = [{} for _ in wishes]
        always = self.knows_subjects
        told = [index for index, wish in enumerate(wishes) if len(wish.history) or always]
        if told:
            with torch.inference_mode():
                found = self._predict([wishes[index] for index in told])
            for index, prediction in zip(told, found, strict=True):
                wish = wishes[index]
                answers[index] = {"notes": self._notes(wish), "items": self._items(prediction, wish.ask)}
                answers[index] |= {"withheld": self._withheld(prediction), "source": MODEL}
        for index, wish in enumerate(wishes):
            if not answers[index]:
                answers[index] = {"notes": wish.notes, "items": self._popular(wish.ask), "source": POPULARITY}
        return answers

    def explain(self, item: str, wish: Wish) -> Answer:
        """Return why a user would be shown an item.

        Raises:
            RequestError: the item or everything of the user is not known, or the system does not explain.
        """
        index = int(self.item_ids.find([item])[0])
        if index < 1:
            raise RequestError(f"item {item!r} is not known")
        if not len(wish.history) and not self.knows_subjects:
            raise RequestError("nothing is known of what the user has seen, so there is nothing to explain")
        explains = isinstance(self.system, Explainer)
        if not explains:
            raise RequestError(f"{self.config.system} does not explain single items")
        with torch.inference_mode():
            self.routed.clear()
            found = self.system.explain(self.module, self.system.collate(self.rows([wish])), [index])[0]
        names = found.get("names") or (["id", *self.modalities] if len(found["parts"]) > 1 else ["id"])
        answer: Answer = {"notes": self._notes(wish), **self._shown(index, found["score"])}
        answer |= {"item": item, "parts": dict(zip(_names(names, len(found["parts"])), found["parts"], strict=True))}
        if "modalities" in found:
            answer["modalities"] = self._weights(found["modalities"])
        answer["experts"] = {name: share_E.tolist() for name, share_E in self.routed.items()}
        answer["similar"] = self._similar(index, wish.history)
        return answer

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Return the system's own answers to rows with its columns.

        Raises:
            RequestError: a column is missing, unknown, or holds what the system cannot take.
        """
        columns = {
            name: [_value(row, column, n) for n, row in enumerate(rows)] for name, column in self.columns.items()
        }
        for number, row in enumerate(rows):
            if unknown := sorted(row.keys() - self.columns.keys()):
                raise RequestError(f"row {number}: unknown column {unknown[0]!r}; known: {', '.join(self.columns)}")
        try:
            with torch.inference_mode():
                return recommend_batch(self.system, self.module, self.system.collate(columns))
        except (IndexError, ValueError) as error:
            raise RequestError(f"a value is out of range: {error}") from error

    def shares(self) -> dict[str, list[float]]:
        """Return each mixture layer's use of its experts in the batch that was answered last."""
        return {name: share_E.tolist() for name, share_E in self.routed.items()}

    def rows(self, wishes: Sequence[Wish]) -> Columns:
        """Return requests as rows of the system's columns."""
        columns: dict[str, Any] = {
            "user": np.array([wish.user for wish in wishes]),
            "history": [wish.history for wish in wishes],
            "target": np.zeros(len(wishes), np.int64),
        }
        if any(wish.profile is not None for wish in wishes):
            columns["profile"] = [wish.profile for wish in wishes]
        if missing := self.columns.keys() - columns.keys():
            raise RequestError(f"{self.config.system} also reads {', '.join(sorted(missing))}; ask /v1/predict")
        return columns

    def _predict(self, wishes: Sequence[Wish]) -> list[Answer]:
        self.routed.clear()
        asks = [wish.ask for wish in wishes]
        if self.index is not None and all(ask.candidates is None and not ask.explain for ask in asks):
            batch, histories = self.system.collate(self.rows(wishes)), [wish.history for wish in wishes]
            return self.index.predict(self.system, self.module, batch, asks, histories)
        row = np.repeat(np.arange(len(wishes)), [len(wish.history) for wish in wishes])
        seen = torch.from_numpy(row), torch.from_numpy(np.concatenate([wish.history for wish in wishes]))
        return recommend(self.system, self.module, self._states(wishes), seen, asks, self.num_items)

    def _states(self, wishes: Sequence[Wish]) -> dict[str, torch.Tensor]:
        """Return the states of users: of known ones as exported, of others from their histories."""
        if not self.states:
            return self.system.states(self.module, self.system.collate(self.rows(wishes)))
        known = torch.tensor([wish.user if wish.as_known else -1 for wish in wishes])
        told = (known < 0).nonzero()[:, 0].tolist()
        if not told:
            return {name: table[known] for name, table in self.states.items()}
        fresh = self.system.states(self.module, self.system.collate(self.rows([wishes[i] for i in told])))
        states = {name: table[known.clamp(min=0)] for name, table in self.states.items()}
        for name, value in fresh.items():
            states[name][told] = value
        return states

    def _known(self, names: Sequence[str], what: str, notes: list[str]) -> np.ndarray:
        found = self.item_ids.find(names)
        known = found[found > 0]
        if len(known) < len(names):
            first = names[int(np.flatnonzero(found < 1)[0])]
            notes.append(f"{len(names) - len(known)} of {len(names)} in {what} are not known items, such as {first!r}")
        return known

    def _items(self, prediction: Answer, ask: Ask) -> list[Answer]:
        shown = [self._shown(i, s) for i, s in zip(prediction["items"], prediction["scores"], strict=True)]
        if ask.explain and "modalities" in prediction:
            for entry, weights in zip(shown, prediction["modalities"], strict=True):
                entry["modalities"] = self._weights(weights)
            for entry, shares in zip(shown, prediction.get("experts", ()), strict=False):
                entry["experts"] = shares
        return shown

    def _withheld(self, prediction: Answer) -> list[Answer]:
        """Return what would have been among the best items and is not shown, with the reason."""
        return [
            {**self._looked_up(entry["item"]), "contains": entry["contains"]}
            for entry in prediction.get("withheld", ())
        ]

    def _notes(self, wish: Wish) -> list[str]:
        return [*wish.notes, self.system.notice] if self.system.notice else wish.notes

    def _popular(self, ask: Ask) -> list[Answer]:
        """Return the most popular items that an ask allows."""
        out, allowed = set(ask.exclude), None if ask.candidates is None else set(ask.candidates)
        order = self.popular[: ask.k + len(out)].tolist()
        if allowed is not None:
            order = sorted(allowed, key=lambda index: -self.share[index])
        kept = [index for index in order if index not in out][: ask.k]
        return [self._shown(index, float(self.share[index])) for index in kept]

    def _shown(self, index: int, score: float) -> Answer:
        entry = self.cached.get(index)
        if entry is None:
            if len(self.cached) >= CACHED:
                self.cached.clear()
            entry = self.cached[index] = self._looked_up(index)
        return {**entry, "score": score}

    def _looked_up(self, index: int) -> Answer:
        name = self.item_ids.name(index)
        entry: Answer = {"item": name}
        if self.titles is not None:
            entry["title"] = self.titles[index].as_py()
        if self.pictures is not None and (picture := self.pictures[index]).is_valid:
            entry["image"] = f"v1/items/{quote(name, safe='')}/image" if self.stored else picture.as_py()
        return entry

    def picture(self, item: str) -> bytes | None:
        """Return the bytes of an item's picture, None where there are none."""
        index = int(self.item_ids.find([item])[0])
        found = None if self.pictures is None or index < 1 else self.pictures[index].as_py()
        return found if isinstance(found, bytes) else None

    def _similar(self, index: int, history: np.ndarray) -> list[Answer]:
        """Return the three items of a history that are nearest to an item."""
        item_ID = self.system.item_vectors(self.module)
        if item_ID is None:
            return []
        unique = np.unique(history[history != index])
        if not len(unique):
            return []
        cosine = torch.nn.functional.cosine_similarity(item_ID[torch.from_numpy(unique)], item_ID[index][None])
        best = cosine.topk(min(3, len(unique)))
        return [self._shown(int(unique[i]), float(v)) for v, i in zip(best.values, best.indices, strict=True)]

    def _weights(self, weights: Sequence[float]) -> dict[str, float]:
        return dict(zip(_names(self.modalities, len(weights)), weights, strict=True))

    def _note(self, name: str, mixed: Mixed) -> None:
        self.routed[name] = mixed.routing.dense().mean(0)


def _names(names: Sequence[str], count: int) -> list[str]:
    return list(names) if len(names) == count else [f"text {number}" for number in range(count)]


def _value(row: Mapping[str, Any], column: Column, number: int) -> Any:
    """Return a row's value of a column as the system reads it."""
    if column.name not in row:
        if column.name == "target":
            return np.zeros((), column.dtype)
        raise RequestError(f"row {number}: column {column.name!r} is missing")
    try:
        value = np.asarray(row[column.name])
        if value.dtype.kind not in "iufb" and not (value.dtype.kind == "U" and column.dtype == "str"):
            raise ValueError(f"holds {value.dtype}")
        if value.ndim != len(column.shape):
            raise ValueError(f"has {value.ndim} axes, expected {len(column.shape)}")
        if np.issubdtype(np.dtype(column.dtype), np.integer) and value.dtype.kind == "f" and value.size:
            raise ValueError("holds fractions, expected whole numbers")
        return value.astype(column.dtype, casting="same_kind" if value.dtype.kind != "f" else "unsafe")
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(f"row {number}: column {column.name!r}: {error}") from error
