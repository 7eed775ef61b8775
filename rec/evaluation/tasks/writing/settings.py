"""How texts are measured: what the config says of it, and what is told with every score."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from rec.errors import ConfigError
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.writing_config import XREC_PROMPT, BertScoreConfig, DecodingConfig
from rec.systems.capabilities import Decoding, Writer

if TYPE_CHECKING:
    from rec.evaluation.tasks.writing.task import Writing

TRACK, SCORED, SIGNS, DECODING = "track", "scored", "signs", "decoding"
APART = (TRACK, SCORED, SIGNS, DECODING)
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


def decoding_of(own: Decoding, keys: DecodingConfig, system: Writer[Any, Any]) -> Decoding:
    """Return how texts are written where a config asks for this.

    Raises:
        ConfigError: the system knows no such way, or it does not go with the task's own.
    """
    asked = {name: value for name in DecodingConfig.model_fields if (value := getattr(keys, name)) is not None}
    ways = {*system.ways, "max_tokens", *({"seed"} if "temperature" in system.ways else ())}
    if unknown := [name for name in asked if name not in ways]:
        known = ", ".join(name for name in DecodingConfig.model_fields if name in ways)
        name = type(system).__name__
        raise ConfigError(f"evaluate.decoding.{unknown[0]}: {name} writes no texts in this way; it knows {known}")
    try:
        return replace(own, **asked)
    except ValueError as error:
        raise ConfigError(f"evaluate.decoding: {error}, beside what the system's task asks for") from error


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
        DECODING: decoding_in_words(task.decoding),
        "length": f"at most {task.decoding.max_tokens} tokens",
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
    """Return how tokens are drawn, in words: "drawn with temperature 0.7, seed 3, top_p 0.9"."""
    how = "the most probable token each time"
    if decoding.temperature:
        how = f"drawn with temperature {decoding.temperature:g}"
    elif decoding.beams > 1:
        how = "the best text of a beam search"
    own = ("max_tokens", "temperature")
    more = {f.name: getattr(decoding, f.name) for f in fields(decoding) if f.name not in own}
    differ = [f"{name} {value}" for name, value in more.items() if value != getattr(PLAIN, name)]
    return ", ".join([how, *differ])
