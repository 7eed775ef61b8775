"""Answers of rankers: the best items for subjects in known states, what is withheld and why, details where asked.

Letters: B subjects, I items with padding as item 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rec import transfer
from rec.nn.retrieval import Ask, all_as_lists, as_lists, top_items
from rec.systems.capabilities import Pairs, Ranker, States

Answer = dict[str, Any]


def recommend(
    system: Ranker[Any, Any], module: nn.Module, states: States, seen: Pairs, asks: Sequence[Ask], num_items: int
) -> list[Answer]:
    """Return `items` (indices, best first), `scores` and `withheld` for each subject.

    Args:
        system: The ranker.
        module: Its model, in eval mode.
        states: As `system.states` gives them.
        seen: (subject, item) pairs to leave out, where an ask names no candidates.
        asks: What each subject asks.
        num_items: I, padding included.
    """
    forbidden_BI = system.forbidden(states)
    if forbidden_BI is None or (transfer.host_knows(forbidden_BI) and not bool(forbidden_BI.any())):
        best = top_items(lambda items: system.scores(module, states, items), num_items, asks, seen)
        answers: list[Answer] = [{"items": i, "scores": s} for i, s in as_lists(*best, asks)]
        if forbidden_BI is not None:
            answers = [{**answer, "withheld": []} for answer in answers]
    else:
        answers = _but_forbidden(system, module, states, seen, asks, num_items, forbidden_BI)
    for row, ask in enumerate(asks):
        if ask.explain and answers[row]["items"]:
            answers[row] |= system.details(module, states, row, answers[row]["items"])
    return answers


def _but_forbidden(
    system: Ranker[Any, Any],
    module: nn.Module,
    states: States,
    seen: Pairs,
    asks: Sequence[Ask],
    num_items: int,
    forbidden_BI: Tensor,
) -> list[Answer]:
    """Return answers without what is forbidden, and which of the best items were. The host waits once."""
    score_BI = system.scores(module, states, slice(0, num_items))

    def best(score: Tensor) -> tuple[Tensor, Tensor]:
        return top_items(lambda items: score[:, items].clone(), num_items, asks, seen)

    found = best(score_BI.masked_fill(forbidden_BI, -torch.inf)), best(score_BI)
    out_BK = forbidden_BI.gather(1, found[1][0])
    (kept, wanted), (out_BK, *own) = all_as_lists(found, asks, [out_BK, *states.values()])
    known, answers = dict(zip(states, own, strict=True)), []
    rows = zip(kept, wanted, out_BK.tolist(), strict=True)
    for row, ((items, scores), (all_items, _), out) in enumerate(rows):
        withheld = [
            {"item": item, "contains": system.reasons(known, row, item)}
            for item, is_out in zip(all_items, out, strict=False)
            if is_out
        ]
        answers.append({"items": items, "scores": scores, "withheld": withheld})
    return answers


def recommend_batch(system: Any, module: nn.Module, batch: Any, asks: Sequence[Ask] | None = None) -> list[Answer]:
    """Return the answers for the examples of a batch; None asks for ten items each, with details."""
    asks = asks or [Ask(k=10, explain=True)] * len(batch)
    known = system.examples(batch).known
    return recommend(system, module, system.states(module, batch), known, asks, len(system.event_count()))
