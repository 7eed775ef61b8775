"""The ranking task: every number from one record per example, the ranks of its relevant items.

Letters: B examples, I items with padding as item 0, K items of a list, P (example, relevant item) pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rec.data.prepared import Prepared
from rec.evaluation.records import Records, column, ragged, records_of
from rec.evaluation.service import Context, Exporting, Service
from rec.evaluation.task import ALONE, Batches, Groups, Measured, Names, Task, TaskRanks, Values
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.ranking import baselines, cold, grouping, meanings, sections
from rec.evaluation.tasks.ranking.blocks import Score, rank_in_blocks
from rec.evaluation.tasks.ranking.index import write_index
from rec.evaluation.tasks.ranking.known import write_known
from rec.evaluation.tasks.ranking.members import known_of, names_of
from rec.evaluation.tasks.ranking.ranks import best, coverage, hide, metric_names, of_ranks, ranked, ranks
from rec.evaluation.tasks.ranking.service import RankingService
from rec.moe.layer import is_spread
from rec.nn.pairs import counts
from rec.nn.sharded import is_sharded
from rec.sections import Section
from rec.systems.capabilities import Ranker, RankingExamples, States

TOP = 10
SCORES_AT_ONCE = 1 << 26
"""Scores that evaluation holds at a time, 256 MiB: with more items, fewer subjects are ranked at once."""
RANGE = 1 << 17
"""Items scored by one call."""


@dataclass(frozen=True)
class Ranking(Task):
    """Full ranking of a catalogue."""

    name: ClassVar[str] = "ranking"

    cuts: tuple[int, ...] = (10, 50, 100)
    """The values of K."""
    headline: str = "ndcg@10"
    shown: tuple[str, ...] = ("hit@10", "ndcg@10", "mrr", "hit@100")
    groups_by: Literal["popular_share", "known"] = "known"
    """Groups of subjects, where their table names none: by the popular share of what they saw (MSMRec, section 5.4), or
    by how much is known of them."""
    cold_count: int = 0
    """Items with at most so many training events are cold, where `evaluate.cold_count` says nothing else."""

    @property
    def evaluate_keys(self) -> tuple[str, ...]:
        """Return the key of cold items and, where they make the groups, that of popular ones."""
        return ("cold_count", "popular_share") if self.groups_by == "popular_share" else ("cold_count",)

    @property
    def directions(self) -> Mapping[str, bool]:
        """Every metric; higher is better."""
        return dict.fromkeys([*metric_names(self.cuts), f"coverage@{TOP}"], True)

    def meaning(self, name: str) -> str:
        """Return in a few words what a metric, a simple answer or a group is."""
        return meanings.of(name)

    def records(
        self,
        system: Ranker[Any, Any],
        module: nn.Module,
        batch: Any,
        *,
        detail: EvaluateConfig | None = None,
        ranks: TaskRanks = ALONE,
    ) -> Records:
        """Return subject, relevant items with their ranks, and the best items of each example."""
        examples = system.examples(batch)
        states, observed = system.observed(module, batch)
        found: dict[str, Any] = {"subject": examples.subject_B}
        if is_wide(system, module, examples):
            columns = self._ranked_in_blocks(system, module, states, examples, detail)
        else:
            columns = self._ranked_whole(system, module, states, examples, detail)
        found |= {name: torch.cat(parts) for name, parts in columns.items() if not name.startswith("each/")}
        owner_P = examples.target[0]
        found |= {n.removeprefix("each/"): (torch.cat(v), owner_P) for n, v in columns.items() if n.startswith("each/")}
        return records_of({**found, **observed}, len(examples.subject_B))

    def answers(
        self,
        system: Ranker[Any, Any],
        module: nn.Module,
        batch: Any,
        names: Names,
        *,
        most: int = 10,
        records: Records | None = None,
    ) -> dict[str, Any]:
        """Return `items`, raw ids, best first, and `scores`; what is known or forbidden is left out."""
        examples = system.examples(batch)
        if records is not None and holds_answers(examples, column(records, "top"), column(records, "catalogue"), most):
            item_BK, score_BK = (column(records, name)[:, :most] for name in ("top", "top_score"))
        else:
            states = system.states(module, batch)
            item_BK, score_BK = best_unknown(system, module, states, examples, most, self.num_items(system))
        row_P, place_P = np.nonzero(score_BK > -np.inf)
        raw_P = names.raw(system.entity, item_BK[row_P, place_P])
        return {"items": (raw_P, row_P), "scores": (score_BK[row_P, place_P], row_P)}

    def _ranked_whole(
        self, system: Any, module: nn.Module, states: States, examples: RankingExamples, detail: EvaluateConfig | None
    ) -> dict[str, list[Any]]:
        """Return columns in parts, made from the whole matrix of scores, some examples at a time."""
        columns: dict[str, list[Any]] = {}
        for part, score_BI in scored(system, module, states, examples, self.num_items(system)):
            for name, value in self._ranked(system, score_BI, part, detail).items():
                columns.setdefault(name, []).append(value)
        return columns

    def _ranked_in_blocks(
        self, system: Any, module: nn.Module, states: States, examples: RankingExamples, detail: EvaluateConfig | None
    ) -> dict[str, list[Any]]:
        """Return the same columns from one pass over the catalogue, and from the matrix where that does not do."""
        num_items, (row_P, item_P) = self.num_items(system), examples.target
        most = min(TOP, num_items - 1)
        cold_I = None if detail is None else torch.from_numpy(cold.is_cold(system, self._cold_count(detail)))
        made = rank_in_blocks(part_scores(system, module, states), examples, num_items, most, cold_I)
        found = {"each/target": item_P, "each/rank": made.rank_P, "ranked": made.ranked_B}
        found["catalogue"] = torch.full_like(made.ranked_B, num_items - 1)
        found["known"] = counts(examples.known[0], len(made.ranked_B))
        found |= {"top": made.top_BK, "top_score": made.top_score_BK}
        if cold_I is not None:
            cold_P = cold_I.to(item_P.device)[item_P]
            found |= {"each/rank_among_cold": made.cold_rank_P, "each/cold": cold_P}
            found["ranked_cold"] = made.cold_ranked_B
        for row in made.left_B.nonzero()[:, 0].tolist():
            inside = slice(row, row + 1)
            own = {n: v[inside] for n, v in states.items()}
            whole = self._ranked_whole(system, module, own, part_of(examples, inside), detail)
            for name, value in whole.items():
                found[name][row_P == row if name.startswith("each/") else inside] = value[0]
        return {name: [value] for name, value in found.items()}

    def _cold_count(self, detail: EvaluateConfig) -> int:
        return self.cold_count if detail.cold_count is None else detail.cold_count

    def _ranked(
        self, system: Any, score_BI: Tensor, examples: RankingExamples, detail: EvaluateConfig | None
    ) -> dict[str, Tensor]:
        hide(score_BI, examples.left_out, examples.target, examples.forbidden_BI)
        found = {"each/target": examples.target[1], "each/rank": ranks(score_BI, examples.target, examples.subject_B)}
        found["ranked"] = ranked(score_BI)
        found["catalogue"] = torch.full_like(found["ranked"], score_BI.shape[1] - 1)
        found["known"] = counts(examples.known[0], len(score_BI))
        found["top"], found["top_score"] = best(score_BI, examples.subject_B, min(TOP, score_BI.shape[1] - 1))
        if detail is not None:
            cold_I = torch.from_numpy(cold.is_cold(system, self._cold_count(detail)))
            found |= cold.ranked_among_cold(score_BI, examples, cold_I)
        return found

    @staticmethod
    def num_items(system: Any) -> int:
        """Return how many items are scored, padding included."""
        return len(system.event_count())

    def values(self, records: Records) -> Values:
        """Return every metric of each example, from its ranks."""
        rank_P, example_P = ragged(records, "rank")
        return of_ranks(rank_P, example_P, column(records, "ranked"), self.cuts)

    def metrics(self, records: Records, values: Values | None = None) -> dict[str, float | None]:
        """Return every metric over all examples, and the share of the catalogue that is shown to anybody."""
        found = super().metrics(records, values)
        top_BK = column(records, "top")
        items = int(column(records, "catalogue")[0]) if len(records) else 0
        return found | {f"coverage@{TOP}": coverage(top_BK, items) if items else None}

    def groups(self, system: Any, data: Prepared, split: str, records: Records, config: EvaluateConfig) -> Groups:
        """Return groups of subjects."""
        return grouping.groups(
            self.groups_by, system, data, column(records, "subject"), column(records, "known"), config
        )

    def baselines(
        self, system: Any, data: Prepared, split: str, batches: Batches
    ) -> Mapping[str, Mapping[str, float | None]]:
        """Return what simple rankings reach: popular items, random ones, similar users, the planted truth."""
        return baselines.measure(self, system, data, batches(split))

    @property
    def oracles(self) -> tuple[str, ...]:
        """Return the planted truth, which ranks by the preferences that made the data."""
        return (meanings.PLANTED,)

    def keys(self, system: Any, data: Prepared, records: Records) -> dict[str, Any]:
        """Return the subjects' raw ids."""
        if "id" not in names_of(data, system.subject):
            return {}
        return {"id": known_of(data, system.subject, "id", column(records, "subject"))}

    def enrich(self, measured: Measured) -> list[str]:
        """Add relevant items per subject, cold items and subjects, and examples for people."""
        rank_P, _ = ragged(measured.records, "rank")
        each = len(rank_P) / max(1, len(measured.records))
        measured.numbers["relevant per subject"] = each
        measured.numbers["cold"] = cold.measure(self, measured)
        notes = [f"{each:.2f} relevant items per subject in the mean"] if each != 1 else []
        return [*notes, "equal scores are put in an order drawn for each subject"]

    def sections(self, measured: Measured) -> list[Section]:
        """Return the tables of baselines, cold items, and some subjects with what they are shown."""
        return sections.sections(self, measured)

    def entities(self, system: Ranker[Any, Any]) -> tuple[str, ...]:
        """Return the entities that are ranked for, and ranked."""
        return system.subject, system.entity

    def export(self, exporting: Exporting) -> dict[str, Any]:
        """Write what is known of subjects, and the index where one is asked for."""
        told = write_known(exporting)
        return told if exporting.serve.index == "exact" else told | {"index": write_index(exporting)}

    def service(self, context: Context) -> Service:
        """Return what answers requests."""
        return RankingService(context)


def all_scores(system: Ranker[Any, Any], module: nn.Module, states: States, num_items: int) -> Tensor:
    """Return the scores of all items, (B, I), made range by range."""
    starts = range(0, num_items, RANGE)
    parts = [system.scores(module, states, slice(start, min(start + RANGE, num_items))) for start in starts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def scored(
    system: Ranker[Any, Any], module: nn.Module, states: States, examples: RankingExamples, num_items: int
) -> Iterator[tuple[RankingExamples, Tensor]]:
    """Yield consecutive examples with their scores of all items, at most `SCORES_AT_ONCE` of them at a time."""
    # Where experts or tables are spread over workers, every worker makes the same calls, however many rows it has.
    together = is_spread(module) or is_sharded(module)
    size = len(examples.subject_B) if together else max(1, SCORES_AT_ONCE // num_items)
    for start in range(0, len(examples.subject_B), size):
        inside = slice(start, start + size)
        score_BI = all_scores(system, module, {n: v[inside] for n, v in states.items()}, num_items)
        yield part_of(examples, inside), score_BI


def is_wide(system: Any, module: nn.Module, examples: RankingExamples) -> bool:
    """Return whether a batch is ranked block by block: where its matrix of scores is more than is held at a time."""
    if examples.forbidden_BI is not None or is_spread(module) or is_sharded(module):
        return False
    return len(examples.subject_B) * len(system.event_count()) > SCORES_AT_ONCE


def part_scores(system: Ranker[Any, Any], module: nn.Module, states: States) -> Score:
    """Return what scores a range of items for some of the examples, or for all."""

    def score(row_R: Tensor | None, items: slice) -> Tensor:
        own = states if row_R is None else {name: value[row_R] for name, value in states.items()}
        return system.scores(module, own, items)

    return score


def holds_answers(examples: RankingExamples, top_BK: np.ndarray, catalogue_B: np.ndarray, most: int) -> bool:
    """Return whether records' best items are answers: enough of them, and just what is known was left out."""
    if top_BK.shape[1] < min(most, int(catalogue_B.min(initial=most))):
        return False
    codes = [(row_P << 32) + item_P for row_P, item_P in (examples.known, examples.left_out, examples.target)]
    known, left_out, target = codes
    return torch.equal(known, left_out) and not bool(torch.isin(target, known).any())


def best_unknown(
    system: Ranker[Any, Any], module: nn.Module, states: States, examples: RankingExamples, most: int, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best items that are neither known nor forbidden, and their scores, (B, K) each; -inf at the end."""
    if not is_wide(system, module, examples):
        return _best_of_all(system, module, states, examples, most, num_items)
    nobody = examples.known[0][:0], examples.known[1][:0]
    asked = replace(examples, left_out=examples.known, target=nobody)
    made = rank_in_blocks(part_scores(system, module, states), asked, num_items, min(most, num_items - 1))
    items, scores = made.top_BK.cpu().numpy(), made.top_score_BK.cpu().numpy()
    for row in made.left_B.nonzero()[:, 0].tolist():
        inside = slice(row, row + 1)
        own = {name: value[inside] for name, value in states.items()}
        whole = _best_of_all(system, module, own, part_of(examples, inside), most, num_items)
        items[row], scores[row] = whole[0][0], whole[1][0]
    return items, scores


def _best_of_all(
    system: Ranker[Any, Any], module: nn.Module, states: States, examples: RankingExamples, most: int, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the same from the whole matrix of scores, some examples at a time."""
    items, scores = [], []
    for part, score_BI in scored(system, module, states, examples, num_items):
        nothing = part.known[0][:0], part.known[1][:0]
        hide(score_BI, part.known, nothing, part.forbidden_BI)
        item_BK, score_BK = best(score_BI, part.subject_B, min(most, num_items - 1))
        items.append(item_BK.cpu().numpy())
        scores.append(score_BK.float().cpu().numpy())
    return np.concatenate(items), np.concatenate(scores)


def part_of(examples: RankingExamples, inside: slice) -> RankingExamples:
    """Return some consecutive examples of a batch."""
    start, end, _ = inside.indices(len(examples.subject_B))
    if end - start == len(examples.subject_B):
        return examples

    def pairs(all_pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        row_P, item_P = all_pairs
        kept_P = (row_P >= start) & (row_P < end)
        return row_P[kept_P] - start, item_P[kept_P]

    forbidden_BI = examples.forbidden_BI
    return RankingExamples(
        subject_B=examples.subject_B[inside],
        target=pairs(examples.target),
        left_out=pairs(examples.left_out),
        known=pairs(examples.known),
        forbidden_BI=None if forbidden_BI is None else forbidden_BI[inside],
    )
