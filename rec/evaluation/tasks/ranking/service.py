"""How rankings are asked by request: the best items for a subject, why one of them, and rankings for plain rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from rec.errors import RequestError
from rec.evaluation.rows import RequestRow, Rows
from rec.evaluation.service import Answer, Context, Lookup, Message, Route, Service
from rec.evaluation.tasks.ranking.answers import recommend, recommend_batch
from rec.evaluation.tasks.ranking.index import FaissIndex, open_index
from rec.evaluation.tasks.ranking.known import KnownSubjects, Marks
from rec.evaluation.tasks.ranking.requests import (
    ExplainAnswer,
    Options,
    Ranked,
    RecommendAnswer,
    explain_request,
    options,
    recommend_request,
)
from rec.nn.retrieval import Ask
from rec.serving.config import ServeConfig
from rec.systems.capabilities import Explainer, Ranker
from rec.transfer import to_device

POPULARITY, MODEL = "popularity", "model"
NOBODY = "nothing is known of what the user has seen: the most popular items"
EMPTY = "no item is left: all others are seen, excluded, or contain what must be avoided"
ABSENT = "nothing is known here of: {}; what is not there has no share"
EXAMPLE_K, EXAMPLE_ITEMS, SUGGESTIONS = 10, 5, 20


@dataclass(slots=True, kw_only=True)
class Wish:
    """A request to rank, in indices."""

    subject: int
    """-1 where it is not known."""
    history: np.ndarray
    ask: Ask
    notes: list[str] = field(default_factory=list)
    as_known: bool = False
    """Whether the history is that of a known subject, as exported."""
    profile: Mapping[str, Any] | None = None
    """What the request tells of the subject: `text`, `attributes`, `avoid`."""
    item: int = 0
    """The item in question, where one is to be explained."""


class RankingService(Service):
    """Answers of a ranker."""

    row_answer = Ranked
    options = Options

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.ranker = cast(Ranker[Any, Any], self.system)
        self.marks = Marks.of(self.system)
        self.items = context.parts.members(self.ranker.entity)
        self.subjects = context.parts.members(self.ranker.subject)
        self.known_subjects = KnownSubjects(context)
        count = self.system.event_count().astype(np.float64)
        self.share = count / max(count.sum(), 1)
        self.popular = np.argsort(-count[1:], kind="stable") + 1
        self.index: FaissIndex | None = open_index(context)
        self.rows = Rows(self.system.columns, context.parts.members)

    def limited(self, limits: ServeConfig) -> type[Message]:
        """Return `options` under a deployment's limits."""
        return options(limits)

    def routes(self, limits: ServeConfig) -> list[Route[Any]]:
        """Return `/v1/recommend` and `/v1/explain`."""
        return [RecommendRoute(self, limits), ExplainRoute(self, limits)]

    def lookups(self) -> list[Lookup]:
        """Return known subjects by the start of their ids, and items' pictures."""
        return [
            Lookup(
                path="users",
                argument="prefix",
                summary="Return some known users whose ids start with a prefix.",
                find=lambda prefix: self.subjects.ids.search(prefix, SUGGESTIONS),
            ),
            Lookup(
                path="items/{item:path}/image", argument="item", summary="Return an item's picture.", find=self._picture
            ),
        ]

    def known(self, entity: str, index: int) -> list[Answer] | None:
        """Return the items of a known subject, the last first."""
        if entity != self.ranker.subject or not self.known_subjects.count:
            return None
        return [{"item": self.items.id(i), **self._shown(i)} for i in self.known_subjects.history(index)[::-1].tolist()]

    def example(self) -> tuple[str, Answer] | None:
        """Return a request for the first known subject, else for a history of popular items."""
        if self.marks.further:
            return None
        history = {"history": [self.items.id(int(index)) for index in self.popular[:EXAMPLE_ITEMS]]}
        who = {"user": self.subjects.id(self.subjects.first)} if self.known_subjects.count else history
        return "recommend", {**who, "k": EXAMPLE_K, "explain": True}

    def answer_rows(self, rows: Sequence[RequestRow]) -> list[Answer]:
        """Return the ranking for each row."""
        answers: list[Answer] = [{} for _ in rows]
        told = [place for place, row in enumerate(rows) if not self._is_nobody(row)]
        asks = [Ask(k=row.options.k, explain=row.options.explain) for row in rows]
        if told:
            batch = self.context.batch(self.rows.stacked([rows[place] for place in told]))
            own = [asks[place] for place in told]
            found = recommend_batch(self.system, self.module, batch, own)
            for place, prediction, ask in zip(told, found, own, strict=True):
                items = self._items(prediction, ask)
                answers[place] = {"items": items, "withheld": self._withheld(prediction)} | _told(ask, items)
        for answer, ask in zip(answers, asks, strict=True):
            if not answer:
                answer |= {"items": self._popular(ask), "withheld": [], "notes": [NOBODY]}
        return answers

    def _is_nobody(self, row: RequestRow) -> bool:
        """Return whether a row tells of nobody whom the model could know, which its system lets a request do."""
        subject, known = self.marks.subject, self.marks.known
        if self.ranker.knows_subjects or known is None or not known.optional:
            return False
        return not len(row.values[known.name]) and (subject is None or row.values[subject.name] < self.subjects.first)

    def wish(self, body: Any, ask: Callable[[list[str]], Ask]) -> Wish:
        """Return a request in indices; what is not known is left out with a note, but for what is to be avoided.

        Raises:
            RequestError: the request tells of nobody, or what it tells cannot be used.
        """
        if self.marks.further:
            raise RequestError(f"{self.context.name} also reads {', '.join(self.marks.further)}; ask /v1/predict")
        if body.user is None and body.history is None and body.profile is None:
            raise RequestError("expected `user`, `history` or `profile`")
        described = body.profile is not None or bool(body.avoid)
        if described and not self.ranker.knows_subjects:
            raise RequestError(f"{self.context.name} reads neither `profile` nor `avoid`")
        notes: list[str] = []
        number = -1 if body.user is None else int(self.subjects.find([body.user])[0])
        if number < 0 and body.user is not None:
            notes.append(f"{self.ranker.subject} {body.user!r} is not known")
        given = body.history is not None
        seen = self.found(body.history, "history", notes) if given else self.known_subjects.history(number)
        asked = ask(notes)
        if not len(seen) and not self.ranker.knows_subjects:
            notes.append(NOBODY)
        told = None if body.profile is None else body.profile.model_dump()
        wish = Wish(
            subject=number,
            history=seen,
            ask=asked,
            notes=notes,
            as_known=not given and 0 <= number < self.known_subjects.count and not described,
            profile={**(told or {}), "avoid": list(body.avoid)} if described else None,
        )
        if described:  # what one request tells wrongly is told before it is answered with others
            self.batch([wish])
        return wish

    def found(self, names: Sequence[str], what: str, notes: list[str]) -> np.ndarray:
        """Return the indices of the items that are known; a note tells of others."""
        found = self.items.find(names)
        known = found[found > 0]
        if len(known) < len(names):
            first = names[int(np.flatnonzero(found < 1)[0])]
            notes.append(f"{len(names) - len(known)} of {len(names)} in {what} are not known items, such as {first!r}")
        return known

    def batch(self, wishes: Sequence[Wish]) -> Any:
        """Return the batch of some requests."""
        columns = dict(self.marks.rows(np.array([w.subject for w in wishes]), [w.history for w in wishes]))
        if any(wish.profile is not None for wish in wishes):
            columns["profile"] = [wish.profile for wish in wishes]
        return self.context.batch(columns)

    def recommend(self, wishes: Sequence[Wish]) -> list[Answer]:
        """Return the answers to several requests."""
        answers: list[Answer] = [{} for _ in wishes]
        told = [index for index, wish in enumerate(wishes) if len(wish.history) or self.ranker.knows_subjects]
        if told:
            found = self._predict([wishes[index] for index in told])
            for index, prediction in zip(told, found, strict=True):
                items = self._items(prediction, wishes[index].ask)
                answers[index] = {"items": items, "withheld": self._withheld(prediction), "source": MODEL}
        for answer, wish in zip(answers, wishes, strict=True):
            if not answer:
                answer |= {"items": self._popular(wish.ask), "source": POPULARITY}
            answer["notes"] = [*wish.notes, *_told(wish.ask, answer["items"]).get("notes", ())]
        return answers

    def explain(self, wish: Wish) -> Answer:
        """Return why a subject would be shown an item.

        Raises:
            RequestError: everything of the subject is unknown, or the system does not explain.
        """
        if not len(wish.history) and not self.ranker.knows_subjects:
            raise RequestError("nothing is known of what the user has seen, so there is nothing to explain")
        if not isinstance(self.system, Explainer):
            raise RequestError(f"{self.context.name} does not explain single items")
        self.context.shares.clear()
        found = self.system.explain(self.module, self.batch([wish]), [wish.item])[0]
        names = found.get("names") or (["id", *self.context.modalities] if len(found["parts"]) > 1 else ["id"])
        answer: Answer = {"notes": wish.notes, "item": self.items.id(wish.item), **self._shown(wish.item)}
        answer |= {"score": found["score"]}
        answer |= {"parts": dict(zip(_names(names, len(found["parts"])), found["parts"], strict=True))}
        if "modalities" in found:
            answer["modalities"] = self._weights(found["modalities"])
            absent = [name for name, weight in answer["modalities"].items() if weight is None]
            answer["parts"] |= dict.fromkeys(name for name in absent if name in answer["parts"])
            answer["notes"] = [*wish.notes, *([ABSENT.format(", ".join(absent))] if absent else [])]
        answer["experts"] = {name: share_E.tolist() for name, share_E in self.context.shares.items()}
        answer["similar"] = self._similar(wish.item, wish.history)
        return answer

    def _predict(self, wishes: Sequence[Wish]) -> list[Answer]:
        """Return the rankings of subjects of whom something is known; how each is found depends on itself alone."""
        self.context.shares.clear()
        if self.index is None:
            return self._exact(wishes)
        answers: list[Answer] = [{} for _ in wishes]
        near = [wish.ask.candidates is None and not wish.ask.explain for wish in wishes]
        for is_near, rank in ((True, self._near), (False, self._exact)):
            places = [place for place in range(len(wishes)) if near[place] == is_near]
            if places:
                for place, answer in zip(places, rank([wishes[place] for place in places]), strict=True):
                    answers[place] = answer
        return answers

    def _exact(self, wishes: Sequence[Wish]) -> list[Answer]:
        asks = [wish.ask for wish in wishes]
        return recommend(self.system, self.module, self._states(wishes), self._seen(wishes), asks, len(self.items))

    def _near(self, wishes: Sequence[Wish]) -> list[Answer]:
        assert self.index is not None
        states = self.ranker.states(self.module, self.batch(wishes))
        if self.ranker.forbidden(states) is not None:  # the index knows nothing of what must not be shown
            return self._exact(wishes)
        return self.index.predict(self.system, self.module, states, [wish.ask for wish in wishes], self._seen(wishes))

    def _seen(self, wishes: Sequence[Wish]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is left out as (subject, item) pairs, on the host."""
        row = np.repeat(np.arange(len(wishes)), [len(wish.history) for wish in wishes])
        item = np.concatenate([wish.history for wish in wishes])
        return torch.from_numpy(row), torch.from_numpy(item)

    def _states(self, wishes: Sequence[Wish]) -> dict[str, torch.Tensor]:
        """Return the states of subjects: of known ones as exported, of others from what the requests tell."""
        tables = self.known_subjects.states
        if not tables:
            return self.ranker.states(self.module, self.batch(wishes))
        told = [row for row, wish in enumerate(wishes) if not wish.as_known]
        fresh = self.ranker.states(self.module, self.batch([wishes[row] for row in told])) if told else {}
        if len(told) == len(wishes):
            return {name: fresh[name] for name in tables}
        subjects = [wish.subject if wish.as_known else -1 for wish in wishes]
        known = to_device(subjects, torch.int64, self.context.device)
        states = {name: table[known.clamp(min=0)] for name, table in tables.items()}
        told_T = to_device(told, torch.int64, self.context.device)
        for name, value in fresh.items():
            states[name][told_T] = value
        return states

    def _items(self, prediction: Answer, ask: Ask) -> list[Answer]:
        shown = [self._scored(i, s) for i, s in zip(prediction["items"], prediction["scores"], strict=True)]
        if ask.explain and "modalities" in prediction:
            for entry, weights in zip(shown, prediction["modalities"], strict=True):
                entry["modalities"] = self._weights(weights)
            for entry, shares in zip(shown, prediction.get("experts", ()), strict=False):
                entry["experts"] = shares
        return shown

    def _withheld(self, prediction: Answer) -> list[Answer]:
        """Return what would have been among the best items and is not shown, with the reason."""
        return [
            {"item": self.items.id(entry["item"]), **self._shown(entry["item"]), "contains": entry["contains"]}
            for entry in prediction.get("withheld", ())
        ]

    def _popular(self, ask: Ask) -> list[Answer]:
        """Return the most popular items that an ask allows."""
        out, allowed = set(ask.exclude), None if ask.candidates is None else set(ask.candidates)
        order = self.popular[: ask.k + len(out)].tolist()
        if allowed is not None:
            order = sorted(allowed, key=lambda index: -self.share[index])
        kept = [index for index in order if index not in out][: ask.k]
        return [self._scored(index, float(self.share[index])) for index in kept]

    def _shown(self, index: int) -> Answer:
        return self.context.shown(self.items, index)

    def _scored(self, index: int, score: float) -> Answer:
        return {"item": self.items.id(index), **self._shown(index), "score": score}

    def _picture(self, item: str) -> bytes | None:
        index = int(self.items.find([item])[0])
        found = None if index < 1 else self.items.picture(index)
        return found if isinstance(found, bytes) else None

    def _similar(self, index: int, history: np.ndarray) -> list[Answer]:
        """Return the three items of a history that are nearest to an item."""
        item_ID = self.ranker.item_vectors(self.module)
        unique = np.unique(history[history != index])
        if item_ID is None or not len(unique):
            return []
        history_ND = item_ID[torch.from_numpy(unique).to(item_ID.device)]
        cosine = torch.nn.functional.cosine_similarity(history_ND, item_ID[index][None])
        best = cosine.topk(min(3, len(unique)))
        return [
            self._scored(int(unique[i]), v) for v, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _weights(self, weights: Sequence[float | None]) -> dict[str, float | None]:
        return dict(zip(_names(self.context.modalities, len(weights)), weights, strict=True))


class RecommendRoute(Route[Wish]):
    """Return the best items for a known user, for a history, or among candidates."""

    path, answer = "recommend", RecommendAnswer

    def __init__(self, service: RankingService, limits: ServeConfig) -> None:
        ranker = service.ranker
        self.service = service
        self.request = recommend_request(limits, ranker.subject, ranker.entity, ranker.knows_subjects)

    def parse(self, body: Any) -> list[Wish]:
        """Return the request in indices."""

        def ask(notes: list[str]) -> Ask:
            named = body.candidates
            allowed = None if named is None else tuple(self.service.found(named, "candidates", notes).tolist())
            exclude = tuple(self.service.found(body.exclude, "exclude", notes).tolist())
            return Ask(body.k, exclude, allowed, body.explain)

        return [self.service.wish(body, ask)]

    def work(self, asked: Sequence[Wish]) -> list[Answer]:
        """Return the rankings."""
        return self.service.recommend(asked)

    def shares(self, answers: Sequence[Answer]) -> dict[str, list[float]]:
        """Return the mean weights of modalities behind the items of answers that tell them."""
        weights = [list(item["modalities"].values()) for a in answers for item in a["items"] if "modalities" in item]
        if not weights:
            return {}
        return {"gate": [sum(value or 0.0 for value in each) / len(weights) for each in zip(*weights, strict=True)]}


class ExplainRoute(Route[Wish]):
    """Return why a user would be shown an item: the parts of its score, modalities, experts, similar items."""

    path, answer, about = "explain", ExplainAnswer, "item"

    def __init__(self, service: RankingService, limits: ServeConfig) -> None:
        self.service, ranker = service, service.ranker
        self.offered = isinstance(service.system, Explainer)
        self.request = explain_request(limits, ranker.subject, ranker.entity, ranker.knows_subjects)

    def parse(self, body: Any) -> list[Wish]:
        """Return the request in indices.

        Raises:
            RequestError: the item is not known.
        """
        index = int(self.service.items.find([body.item])[0])
        if index < 1:
            raise RequestError(f"{self.service.ranker.entity} {body.item!r} is not known")
        wish = self.service.wish(body, lambda notes: Ask())
        wish.item = index
        return [wish]

    def work(self, asked: Sequence[Wish]) -> list[Answer]:
        """Return the explanations, one pass for each: experts' shares are told of one request alone."""
        return [self.service.explain(wish) for wish in asked]


def _told(ask: Ask, items: Sequence[Answer]) -> Answer:
    """Return a note where nothing is left, unless no candidate was known, of which another note tells."""
    return {} if items or ask.candidates == () else {"notes": [EMPTY]}


def _names(names: Sequence[str], count: int) -> list[str]:
    return list(names) if len(names) == count else [f"text {number}" for number in range(count)]
