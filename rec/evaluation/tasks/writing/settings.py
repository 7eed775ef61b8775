"""How texts are measured: what the config says of it, and what is told with every score."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rec.keys import EvaluateConfig
from rec.keys_texts import XREC_PROMPT, BertScoreConfig
from rec.systems.capabilities import Decoding, Writer

if TYPE_CHECKING:
    from rec.evaluation.tasks.writing.task import Writing

TRACK, SCORED, SIGNS = "track", "scored", "signs"
APART = (TRACK, SCORED, SIGNS)
"""Settings that runs must share to be ranked beside each other."""
LEAK_FREE = "leak-free"
PLAIN = Decoding()


def settle(keys: EvaluateConfig) -> dict[str, Any]:
    """Return what a config says, by field of the task, as plain values."""
    found: dict[str, Any] = {}
    if keys.words is not None:
        found["most_words"] = keys.words
    if keys.signs is not None:
        found["space_signs"] = keys.signs == "apart"
    if keys.bertscore.model:
        found["bertscore"] = keys.bertscore.model_dump(mode="json")
    if keys.judge.url:
        prompt = "XRec's prompt" if keys.judge.prompt == XREC_PROMPT else "a prompt of its own"
        found["judged_by"] = f"{keys.judge.model or 'a model without a name'}, {prompt}"
    return found


def settled(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the task that `settle` has told."""
    scorer = {"bertscore": BertScoreConfig.model_validate(told["bertscore"])} if "bertscore" in told else {}
    return {**told, **scorer}


def told(task: Writing, system: Writer[Any, Any]) -> dict[str, str]:
    """Return every setting by its name, in words."""
    found = {
        TRACK: track(system.truth_given()),
        SCORED: f"the first {task.most_words} words of both texts" if task.most_words else "all words",
        SIGNS: "set apart from words" if task.space_signs else "as written",
        "decoding": decoding_in_words(task.decoding),
    }
    if task.judged_by:
        found["gptscore"] = task.judged_by
    scorer = task.bertscore
    if scorer.model:
        rescaled = f"rescaled by {scorer.baseline.rpartition('/')[2]}" if scorer.baseline else "not rescaled"
        found["bertscore"] = f"{scorer.model.rstrip('/').rpartition('/')[2]}, layer {scorer.layer}, {rescaled}"
    return found


def track(truth: Collection[str]) -> str:
    """Return what a writer is told of the truth, in words: nothing of it is the track `leak-free`."""
    return f"given the true {' and the true '.join(sorted(truth))}" if truth else LEAK_FREE


def decoding_in_words(decoding: Decoding) -> str:
    """Return how tokens are drawn, in words: "the most probable token each time, at most 32 tokens"."""
    how = "the most probable token each time"
    if decoding.temperature:
        how = f"drawn with temperature {decoding.temperature:g}"
    elif decoding.beams > 1:
        how = "the best text of a beam search"
    own = ("max_tokens", "temperature")
    more = {f.name: getattr(decoding, f.name) for f in fields(decoding) if f.name not in own}
    differ = [f"{name} {value}" for name, value in more.items() if value != getattr(PLAIN, name)]
    return ", ".join([how, f"at most {decoding.max_tokens} tokens", *differ])
