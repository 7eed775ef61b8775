"""Texts written with and without what was found of items, side by side: whether retrieval makes them more faithful."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rec.data.encoders import Hashing
from rec.data.modalities.drift import drift
from rec.data.modalities.items import Written
from rec.data.modalities.job import ModalityJob
from rec.data.modalities.summary import Summary, told_of
from rec.data.modalities.thresholds import choose_thresholds
from rec.data.modalities.writers import ModelWriter
from rec.errors import ConfigError, DataError
from rec.sections import counted
from rec.seeds import generator

WITH, WITHOUT = "with retrieval", "without"
WIDTH = 512
"""Places that words are hashed to where texts are compared."""


def compared(make: Callable[[bool], ModalityJob], items: int) -> dict[str, Any]:
    """Return how texts with and without retrieval differ, of selected items, at most `items` of them.

    Both are judged by the same sources: metadata and passages, whether or not the writer was shown these.

    Raises:
        ConfigError: there is nothing to compare.
        DataError: the model wrote nothing that could be compared.
    """
    jobs = {WITH: make(True), WITHOUT: make(False)}
    keys = jobs[WITH].config
    if not keys.writer.asks or keys.knowledge is None:
        raise ConfigError("data.modalities: to compare needs data.modalities.knowledge and a writer that asks a model")
    places = jobs[WITH].sample(items)
    texts = {name: [one for some in job.write(places) for one in some] for name, job in jobs.items()}
    for side, written in texts.items():
        if not any(jobs[side].config.writer.kind in one.writers.values() for one in written):
            fault = next((one.fault for one in written if one.fault), "")
            raise DataError(f"{side}, the model wrote of none of {counted(len(written), 'item')}: {fault}")
    sides = {name: told_of(jobs[name], _summary(written)) for name, written in texts.items()}
    names = jobs[WITH].names
    found = {"items": len(places), "sides": sides, "drift": {name: _drift(texts, name) for name in names}}
    return found | {"thresholds": thresholds(jobs[WITH], texts[WITH])}


def thresholds(job: ModalityJob, written: Sequence[Written]) -> dict[str, Any]:
    """Return by modality the score below which texts of a model are taken for invented, chosen by planted inventions.

    Of modalities for which the config sets one, or of which too little is written to choose by, there is none.
    """
    some = [one for one in written if one.faithfulness]
    if not some or not isinstance(job.writer, ModelWriter):
        return {}
    keys = job.config.faithfulness
    texts = [list(one.texts.values()) for one in some]
    sources = [one.item.sources for one in some]
    groups = [one.item.facts["genres"] for one in some]
    chance = generator(0, "planted inventions")
    found = choose_thresholds(job.checker, texts, sources, keys.false_alarms, chance, groups)
    chosen = zip(job.names, found, strict=True)
    return {name: asdict(one) for name, one in chosen if one is not None and keys.least(name) is None}


def _summary(written: list[Written]) -> Summary:
    found = Summary()
    found.add(written)
    return found


def _drift(texts: dict[str, list[Written]], name: str) -> dict[str, Any]:
    before, after = ([one.texts[name] for one in texts[side]] for side in (WITHOUT, WITH))
    scores = tuple(
        [judged.score if (judged := one.faithfulness.get(name)) else float("nan") for one in texts[side]]
        for side in (WITHOUT, WITH)
    )
    known = not any(np.isnan(part).any() for part in scores)
    return asdict(drift(before, after, Hashing(WIDTH).encode, (scores[0], scores[1]) if known else None))
