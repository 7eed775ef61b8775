"""The sets task: which labels each example is given, beside those that hold, averaged by subject and by example.

Letters: B examples (visits), V labels, P (example, label) pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import nn

from rec.data.prepared import Prepared
from rec.evaluation.bootstrap import Summed
from rec.evaluation.records import Records, column, ragged, records_of
from rec.evaluation.service import Context, Service
from rec.evaluation.task import ALONE, Batches, Groups, Measured, Names, Ranks, Task, Values
from rec.evaluation.tasks.sets import baselines, meanings, sections
from rec.evaluation.tasks.sets.metrics import (
    AVERAGED,
    DESCRIPTIVE,
    THRESHOLD,
    ddi_rate,
    higher_is_better,
    per_visit,
    predicted_sets,
    resampled_visits,
    summary,
)
from rec.evaluation.tasks.sets.service import SetsService
from rec.evaluation.tasks.values import MetricValue, notes
from rec.keys import EvaluateConfig
from rec.sections import Section
from rec.seeds import generator
from rec.systems.capabilities import SetPredictor

ROUNDS, ROUND_SHARE = 10, 0.8
"""The field's test protocol: so many rounds, each of such a share of the subjects, drawn with replacement."""


@dataclass(frozen=True)
class Sets(Task):
    """Prediction of sets of labels for the examples of subjects, such as medications for the visits of patients."""

    name: ClassVar[str] = "sets"

    threshold: float = THRESHOLD
    """Labels of at least this probability are predicted."""
    headline: str = "jaccard_patient"
    shown: tuple[str, ...] = ("jaccard_patient", "prauc_patient", "f1_patient", "ddi_rate")

    @property
    def directions(self) -> Mapping[str, bool]:
        """Every metric: overlaps by subject and by example, where higher is better, and the share of bad pairs."""
        return higher_is_better

    @property
    def descriptive(self) -> tuple[str, ...]:
        """Sizes of sets, and the share of bad pairs in the true ones."""
        return DESCRIPTIVE

    def meaning(self, name: str) -> str:
        """Return in a few words what a metric, a simple answer or a group is."""
        return meanings.of(name)

    def records(
        self,
        system: SetPredictor[Any, Any],
        module: nn.Module,
        batch: Any,
        *,
        detail: EvaluateConfig | None = None,
        ranks: Ranks = ALONE,
    ) -> Records:
        """Return subject, true labels, given labels with their probabilities, and the metrics of each example."""
        score_BV = system.probabilities(module, batch).float().cpu().numpy()
        return self.record(system, batch, score_BV, self.threshold)

    def answers(
        self,
        system: SetPredictor[Any, Any],
        module: nn.Module,
        batch: Any,
        names: Names,
        *,
        most: int = 10,
        records: Records | None = None,
    ) -> dict[str, Any]:
        """Return `labels`, raw ids, most probable first, and their `probabilities`."""
        if records is None:
            score_BV = system.probabilities(module, batch).float().cpu().numpy()
            example_P, label_P = predicted_sets(score_BV, threshold=self.threshold).nonzero()
            probability_P = score_BV[example_P, label_P]
        else:
            (label_P, example_P), (probability_P, _) = (ragged(records, name) for name in ("predicted", "probability"))
        order_P = np.lexsort((-probability_P, example_P))
        label_P, example_P, probability_P = label_P[order_P], example_P[order_P], probability_P[order_P]
        first_P = np.searchsorted(example_P, example_P)
        kept_P = np.arange(len(example_P)) - first_P < most
        raw_P = names.raw(system.entity, label_P[kept_P])
        return {"labels": (raw_P, example_P[kept_P]), "probabilities": (probability_P[kept_P], example_P[kept_P])}

    def record(
        self, system: SetPredictor[Any, Any], batch: Any, score_BV: np.ndarray, threshold: float | np.ndarray
    ) -> Records:
        """Return the records of a batch whose labels have these scores; a threshold may be one per example, (B, 1)."""
        true_BV = system.labels(batch).cpu().numpy()
        predicted_BV = predicted_sets(score_BV, threshold=threshold)
        measured = per_visit(true_BV, score_BV, interaction_VV=system.interactions(), threshold=threshold)
        previous_BV = system.previous(batch)
        columns: dict[str, Any] = {"subject": system.subjects(batch), "target": _pairs(true_BV)}
        columns |= {
            "predicted": _pairs(predicted_BV),
            "probability": (score_BV[predicted_BV], predicted_BV.nonzero()[0]),
        }
        if previous_BV is not None:
            columns["known"] = previous_BV.sum(1)
        return records_of({**columns, **measured}, len(true_BV))

    def values(self, records: Records) -> Values:
        """Return the overlaps of each example, which are averaged within subjects first."""
        return {f"{name}_patient": column(records, name) for name in AVERAGED}

    def unit(self, records: Records) -> np.ndarray:
        """Return the subject of each example."""
        return column(records, "subject")

    def sums(self, records: Records) -> Mapping[str, Summed]:
        """Return means over examples, mean sizes, and shares of bad pairs where interactions are known."""
        one_B = np.ones(len(records))
        means = {f"{name}_visit": name for name in AVERAGED} | {n: n for n in ("medications", "true_medications")}
        found = {
            name: Summed(part_BS=np.stack([column(records, source), one_B], 1), of_total=_mean)
            for name, source in means.items()
        }
        for prefix in ("", "true_") if "pairs" in records.column_names else ():
            counts = [column(records, f"{prefix}{name}") for name in ("interacting", "pairs")]
            found[f"{prefix}ddi_rate"] = Summed(part_BS=np.stack([*counts, one_B], 1), of_total=_rate)
        return found

    def metrics(self, records: Records, values: Values | None = None) -> dict[str, float | None]:
        """Return every metric; rates of bad pairs are None where interactions are not known."""
        return dict.fromkeys([*higher_is_better, *DESCRIPTIVE]) | super().metrics(records, values)

    def groups(self, system: Any, data: Prepared, split: str, records: Records, config: EvaluateConfig) -> Groups:
        """Return whether labels of the subject's example before are known, where batches tell."""
        if "known" not in records.column_names:
            return super().groups(system, data, split, records, config)
        return Groups(("nothing known before", "labels known before"), (column(records, "known") > 0).astype(np.int64))

    def baselines(
        self, system: Any, data: Prepared, split: str, batches: Batches
    ) -> Mapping[str, Mapping[str, float | None]]:
        """Return what the most frequent labels of training reach, and the labels of the example before."""
        return baselines.measure(self, system, split, batches)

    def enrich(self, measured: Measured) -> list[str]:
        """Add the field's rounds of resampled subjects; tell why a metric has no value."""
        records = measured.records
        told = _summary(records, None)
        rng = generator(measured.seed, "rounds")
        if len(records):
            weight_RB = resampled_visits(self.unit(records), rng, rounds=ROUNDS, share=ROUND_SHARE)
            rounds = [_summary(records, weight_B) for weight_B in weight_RB if weight_B.any()]
            measured.numbers["rounds"] = {
                name: {"mean": float(np.mean(found)), "sd": float(np.std(found))}
                for name in told
                if (found := [value for one in rounds if (value := one[name].value) is not None])
            }
        return notes(told)

    def sections(self, measured: Measured) -> list[Section]:
        """Return sizes of sets, the field's rounds, the labels that are given most, and some examples."""
        return sections.sections(measured)

    def entities(self, system: SetPredictor[Any, Any]) -> tuple[str, ...]:
        """Return the entity whose members are the labels."""
        return (system.entity,)

    def service(self, context: Context) -> Service:
        """Return what answers requests."""
        return SetsService(context, self.threshold)


def _summary(records: Records, weight_B: np.ndarray | None) -> dict[str, MetricValue]:
    names = [*AVERAGED, "medications", "true_medications", "interacting", "pairs", "true_interacting", "true_pairs"]
    kept = {name: column(records, name) for name in names if name in records.column_names}
    return summary(kept, column(records, "subject"), weight_B)


def _pairs(set_BV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    example_P, label_P = set_BV.nonzero()
    return label_P, example_P


def _mean(total_S: np.ndarray) -> float | None:
    return float(total_S[0] / total_S[1]) if total_S[1] else None


def _rate(total_S: np.ndarray) -> float | None:
    return ddi_rate(total_S[:2]).value if total_S[2] else None
