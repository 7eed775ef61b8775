"""The best passages of each item: of its title and year first, then by words and vectors.

Letters: B items, Q pairs of an item and a passage.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rec.data.modalities.index import Index, faiss_of
from rec.data.modalities.knowledge_config import KnowledgeConfig
from rec.data.modalities.passages import Facts, Match, Passage, Retrieved
from rec.data.modalities.questions import Questions
from rec.data.modalities.shard import Shard
from rec.data.modalities.titles import YEAR_AT_END, TitleHashes, names_of, spoken
from rec.data.modalities.words import Words

DOUBT, FIRST = 0.75, math.log(2.0)
"""Of several rows of one title and year that is taken whose log(BM25 + DOUBT * that of a word that one passage has) is
highest, FIRST added for the first row, as catalogues have the best known thing of a title first. Chosen on MovieLens
1M, where a second catalogue or a plot tells which row is right: with plots 96 %, 93 % without FIRST, 94 % by it
alone."""
RANK_OFFSET = 60
"""Of reciprocal rank fusion: a passage scores 1 / (RANK_OFFSET + rank) for each ranking (Cormack et al., 2009)."""
CANDIDATES = 50
"""Passages without a title that each ranking of a shard proposes."""
CELLS = 1 << 25
"""Similarities in memory at once (float32)."""
LISTS_PROBED = 32


@dataclass(slots=True)
class _Document:
    """A document that may be of an item."""

    shard: int
    number: int
    file: int
    match: Match
    rank: tuple[int, int]
    """Lower is likelier: whether the title is the item's own, how far the year is."""
    rows: list[int] = field(default_factory=list)


_Scored = tuple[_Document, int, float, float]
"""A passage (row) of a document, its BM25 and its cosine."""
_Wanted = tuple[int, float, Match, int, int]
"""Item, score, match, shard and row."""


class Retriever:
    """What finds passages in an index; one per process."""

    def __init__(self, index: Index, config: KnowledgeConfig, threads: int = 1) -> None:
        self.config, self.index = config, index
        self.shards = index.open()
        self.words = Words()
        self.encoder = index.encoder(threads)
        self.lists: dict[int, Any] = {}

    def retrieve(self, items: Sequence[Facts]) -> list[list[Retrieved]]:
        """Return each item's best passages, best first; none where nothing is known of it.

        A passage with a title belongs to items of that title, in the years' limits, and to no others; one without
        belongs to those whose titles it names.
        """
        names = [names_of(item.get("title", ""), item.get("year", "")) for item in items]
        titled = self._of_titles(names)
        asked = [n for n, found in enumerate(titled) if sum(len(d.rows) for d in found) > 1]
        questions = Questions(self.words, self.encoder, items)
        found: list[list[Retrieved]] = [[] for _ in items]
        self._rank(titled, asked, questions, found)
        if self.index.untitled:
            self._of_words(items, questions, found)
        return found

    def _of_titles(self, names: Sequence[TitleHashes]) -> list[list[_Document]]:
        """Return the documents of each item's title, the likeliest by title and year alone."""
        found: list[list[_Document]] = [[] for _ in names]
        pairs = [(name, n) for n, one in enumerate(names) for name in one.all]
        if not pairs:
            return found
        hash_N = np.array([name for name, _ in pairs], np.uint64)
        for number, shard in enumerate(self.shards):
            low, high = (np.searchsorted(shard.name, hash_N, side) for side in ("left", "right"))
            for at in np.flatnonzero(high > low):
                n = pairs[at][1]
                for document in shard.name_document[low[at] : high[at]].tolist():
                    if (one := self._candidate(names[n], number, document)) is not None:
                        found[n].append(one)
        return [self._likeliest(one) for one in found]

    def _candidate(self, names: TitleHashes, number: int, document: int) -> _Document | None:
        """Return a document of one of an item's titles, None where its year tells that it is of another thing."""
        shard = self.shards[number]
        year, same = int(shard.year[document]), int(shard.main[document]) == names.main
        apart = abs(year - names.year) if year and names.year else -1
        if apart > self.config.years_apart:
            return None
        match: Match = "title" if apart < 0 else "title and year"
        rows = list(range(int(shard.document[document]), int(shard.document[document + 1])))
        rank = (0 if same else 1, self.config.years_apart + 1 if apart < 0 else apart)
        return _Document(number, document, int(shard.file[document]), match, rank, rows)

    def _likeliest(self, documents: list[_Document]) -> list[_Document]:
        """Return each document once, and of those that differ in how near title and year are the nearest."""
        if not documents:
            return []
        best = min(document.rank for document in documents)
        once = {(document.shard, document.number): document for document in documents if document.rank == best}
        found = list(once.values())
        if found[0].match == "title":
            years = {int(self.shards[document.shard].year[document.number]) for document in found}
            if len(years - {0}) > 1:
                for document in found:
                    document.match = "ambiguous title"
        return found

    def _rank(
        self,
        titled: Sequence[list[_Document]],
        asked: Sequence[int],
        questions: Questions,
        found: list[list[Retrieved]],
    ) -> None:
        """Add the best passages of titled documents."""
        pairs = [(n, document, row) for n in asked for document in titled[n] for row in document.rows]
        word_Q, cosine_Q = self._scores([(n, document.shard, row) for n, document, row in pairs], questions)
        scores: dict[int, list[_Scored]] = defaultdict(list)
        for (n, document, row), word, cosine in zip(pairs, word_Q.tolist(), cosine_Q.tolist(), strict=True):
            scores[n].append((document, row, word, cosine))
        wanted: list[_Wanted] = []
        for n, documents in enumerate(titled):
            rows = scores.get(n) or [(document, row, 0.0, 0.0) for document in documents for row in document.rows]
            if self.config.rows == "one":
                rows = _one_of_each_file(rows, DOUBT * math.log1p((self.index.passages - 0.5) / 1.5))
            fused = _fused([word for _, _, word, _ in rows], [cosine for _, _, _, cosine in rows])
            best = sorted(range(len(rows)), key=lambda i: -fused[i])
            wanted += [(n, fused[i], rows[i][0].match, rows[i][0].shard, rows[i][1]) for i in best]
        self._take(wanted, found)

    def _take(self, wanted: Sequence[_Wanted], found: list[list[Retrieved]]) -> None:
        """Add passages, each once, until an item has as many as it may."""
        most, kept = self.config.passages, list[_Wanted]()
        room: dict[int, int] = {}
        for one in wanted:
            room[one[0]] = room.get(one[0], 2 * most) - 1
            if room[one[0]] >= 0:  # some may turn out to be the same
                kept.append(one)
        by_shard: dict[int, list[int]] = defaultdict(list)
        for place, (_, _, _, shard, _) in enumerate(kept):
            by_shard[shard].append(place)
        passage: dict[int, Passage] = {}
        for shard, places in by_shard.items():
            texts = self.shards[shard].passages([kept[place][4] for place in places])
            passage.update(zip(places, texts, strict=True))
        for place, (n, score, match, _, _) in enumerate(kept):
            there = {(one.passage.id, one.passage.text) for one in found[n]}
            if len(found[n]) < most and (passage[place].id, passage[place].text) not in there:
                found[n].append(Retrieved(passage[place], score, match))

    def _scores(self, pairs: Sequence[tuple[int, int, int]], questions: Questions) -> tuple[np.ndarray, np.ndarray]:
        """Return BM25 and cosine of pairs of an item and a passage (shard and row), (Q,) each."""
        word_Q, cosine_Q = np.zeros(len(pairs)), np.zeros(len(pairs))
        if not pairs:
            return word_Q, cosine_Q
        item_Q, shard_Q, row_Q = np.array(pairs).T
        for number in np.unique(shard_Q):
            at, shard = np.flatnonzero(shard_Q == number), self.shards[number]
            items, place = np.unique(item_Q[at], return_inverse=True)
            asked = questions.words(items.tolist(), shard)
            word_Q[at] = np.asarray(shard.by_passage[row_Q[at]].multiply(asked[place]).sum(1))[:, 0]
            vectors = questions.vectors(items.tolist())[place]
            cosine_Q[at] = np.einsum("qc,qc->q", np.asarray(shard.vector[row_Q[at]], np.float32), vectors)
        return word_Q, cosine_Q

    def _of_words(self, items: Sequence[Facts], questions: Questions, found: list[list[Retrieved]]) -> None:
        """Add passages without a title that name an item's."""
        for number, shard in enumerate(self.shards):
            if not shard.untitled.any():
                continue
            some = [
                n
                for n, item in enumerate(items)
                if spoken(item.get("title", "")) and len(found[n]) < self.config.passages
            ]
            near = self._nearest(number, questions.vectors(some))
            wanted = []
            for place, n in enumerate(some):
                word_P = self._by_words(shard, [*questions.title(n), *questions.hashes(n)])
                rows = np.union1d(word_P, near[place])
                rows = rows[shard.untitled[rows]]
                texts = shard.table["text"].take(rows).to_pylist()
                rows = rows[[_names(text, items[n]) for text in texts]] if len(rows) else rows
                if not len(rows):
                    continue
                word, cosine = self._scores([(n, number, row) for row in rows.tolist()], questions)
                fused = _fused(word.tolist(), cosine.tolist())
                order = sorted(range(len(rows)), key=lambda i: -fused[i])
                wanted += [(n, fused[i], "words", number, int(rows[i])) for i in order]
            self._take(wanted, found)

    def _by_words(self, shard: Shard, hashes: Sequence[int]) -> np.ndarray:
        """Return the passages without a title that share most words with a question, at most CANDIDATES."""
        place = shard.places(np.array(hashes, np.uint64))
        place = place[place >= 0]
        if not len(place):
            return np.zeros(0, np.int64)
        score_P = shard.searcher.get_scores_from_ids(place, weight_mask=shard.untitled)
        return _best(score_P, CANDIDATES)

    def _nearest(self, number: int, vector_BC: np.ndarray) -> list[np.ndarray]:
        """Return the passages without a title nearest to each question, at most CANDIDATES."""
        shard = self.shards[number]
        if self.config.search == "ivf":
            faiss = faiss_of()
            if number not in self.lists:
                self.lists[number] = faiss.deserialize_index(np.array(shard.lists))
                self.lists[number].nprobe = LISTS_PROBED
            return [row[row >= 0] for row in self.lists[number].search(vector_BC, CANDIDATES)[1]]
        vectors, found = np.asarray(shard.vector, np.float32), []
        step = max(1, CELLS // len(vectors))
        for at in range(0, len(vector_BC), step):
            cosine_BP = vector_BC[at : at + step] @ vectors.T
            cosine_BP[:, ~shard.untitled] = 0
            found += [_best(row, CANDIDATES) for row in cosine_BP]
        return found


def _one_of_each_file(rows: list[_Scored], doubt: float) -> list[_Scored]:
    """Return the passages of one document per file: of several, the likeliest."""
    evidence: dict[tuple[int, int], float] = {}
    of_file: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for document, _, word, _ in rows:
        key = document.shard, document.number
        if key not in evidence:
            of_file[document.file].append(key)
        evidence[key] = max(evidence.get(key, 0.0), word)
    taken = set()
    for keys in of_file.values():
        first = min(keys)
        taken.add(max(sorted(keys), key=lambda key: math.log(doubt + evidence[key]) + FIRST * (key == first)))
    return [one for one in rows if (one[0].shard, one[0].number) in taken]


def _fused(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Return the reciprocal rank fusion of two rankings; what scores 0 or less in one has no rank there.

    Equal scores share their best rank.
    """
    fused = [0.0] * len(first)
    for scores in (first, second):
        above = {score: n for n, score in reversed(list(enumerate(sorted(scores, reverse=True))))}
        for i, score in enumerate(scores):
            if score > 0:
                fused[i] += 1 / (RANK_OFFSET + 1 + above[score])
    return fused


def _best(score_P: np.ndarray, most: int) -> np.ndarray:
    """Return the places of the highest scores above 0."""
    some = np.argpartition(-score_P, most - 1)[:most] if len(score_P) > most else np.arange(len(score_P))
    return some[score_P[some] > 0]


def _names(text: str, item: Facts) -> bool:
    """Return whether a text names an item, and no year behind the title tells that it means another."""
    title, names = spoken(item.get("title", "")), names_of(item.get("title", ""), item.get("year", ""))
    found = False
    for match in re.finditer(rf"(?<!\w){re.escape(title)}(?!\w)", text):
        year = YEAR_AT_END.match(text[match.end() : match.end() + 7].strip() + " ")
        if year and names.year and int(year[1]) != names.year:
            continue
        found = True
    return found
