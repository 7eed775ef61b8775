"""The sets task: which labels each example is given, beside those that hold, averaged by subject and by example.

Letters: B examples (visits), V labels, P (example, label) pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import nn

from rec.data.prepared import Prepared
from rec.evaluation.bootstrap import Summed
from rec.evaluation.records import Records, column, ragged, records_of, with_columns
from rec.evaluation.service import Context, Exporting, Service
from rec.evaluation.task import ALONE, Batches, Groups, Measured, Names, Task, TaskRanks, Values
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.sets import baselines, details, labels, meanings, sections, trade_off
from rec.evaluation.tasks.sets.metrics import (
    AVERAGED,
    DESCRIPTIVE,
    RARE,
    THRESHOLD,
    ddi_rate,
    higher_is_better,
    per_visit,
    predicted_sets,
    resampled_visits,
    summary,
)
from rec.evaluation.tasks.sets.service import SetsService
from rec.evaluation.tasks.sets.threshold import best_threshold
from rec.evaluation.tasks.values import MetricValue, notes
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
    threshold_from: str = "protocol"
    """What says so: the field's "protocol", the "config", or "validation"."""
    headline: str = "jaccard_patient"
    shown: tuple[str, ...] = ("jaccard_patient", "prauc_patient", "f1_patient", "ddi_rate")

    @property
    def directions(self) -> Mapping[str, bool]:
        """Every metric: overlaps by subject and by example, where higher is better, and the share of bad pairs."""
        return {**higher_is_better, **dict.fromkeys(RARE, True)}

    @property
    def descriptive(self) -> tuple[str, ...]:
        """Sizes of sets, and the share of bad pairs in the true ones."""
        return DESCRIPTIVE

    @property
    def evaluate_keys(self) -> tuple[str, ...]:
        """Where the threshold lies, and which labels are rare."""
        return ("threshold", "rare_share")

    @property
    def late(self) -> tuple[str, ...]:
        """Overlaps over rare labels: which those are follows from all of training."""
        return RARE

    @property
    def trade_off(self) -> tuple[str, str]:
        """Bad pairs beside overlap."""
        return ("ddi_rate", "jaccard_patient")

    @property
    def compared(self) -> tuple[str, ...]:
        """What is shown, and recall of rare labels: of those that are given, and of those that are ranked high."""
        return (*self.shown, RARE[0], RARE[-1])

    def meaning(self, name: str) -> str:
        """Return in a few words what a metric, a simple answer or a group is."""
        return meanings.of(name)

    def settle(
        self, system: SetPredictor[Any, Any], module: nn.Module, validation: Iterable[Any], keys: EvaluateConfig
    ) -> dict[str, Any]:
        """Return the threshold, where the config says one or leaves it to validation."""
        if keys.threshold is None:
            return {}
        if keys.threshold != "validation":
            return {"threshold": keys.threshold, "threshold_from": "config"}
        return {"threshold": best_threshold(system, module, validation), "threshold_from": "validation"}

    def settled(self, told: Mapping[str, Any]) -> Sets:
        """Return the task with this threshold."""
        return replace(self, **told)

    def records(
        self,
        system: SetPredictor[Any, Any],
        module: nn.Module,
        batch: Any,
        *,
        detail: EvaluateConfig | None = None,
        ranks: TaskRanks = ALONE,
    ) -> Records:
        """Return subject, true labels, given labels with their probabilities, and the metrics of each example."""
        score_BV = system.probabilities(module, batch).float().cpu().numpy()
        found = self.record(system, batch, score_BV, self.threshold, system.chosen(score_BV, self.threshold))
        columns: dict[str, Any] = {}
        if detail is not None:
            columns = trade_off.likely(score_BV, self.threshold)
            columns[labels.RANK] = labels.ranks(system.labels(batch).cpu().numpy(), score_BV)
        earlier_B = system.earlier(batch)
        if earlier_B is not None:
            columns["earlier"] = earlier_B
        return with_columns(found, columns)

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
            example_P, label_P = system.chosen(score_BV, self.threshold).nonzero()
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
        self,
        system: SetPredictor[Any, Any],
        batch: Any,
        score_BV: np.ndarray,
        threshold: float | np.ndarray,
        predicted_BV: np.ndarray | None = None,
    ) -> Records:
        """Return the records of a batch whose labels have these scores.

        Args:
            system: Tells the labels that hold.
            batch: Examples.
            score_BV: Scores.
            threshold: Labels of at least this score are given; it may be one per example, (B, 1).
            predicted_BV: The labels that are given, where something else chooses them.
        """
        true_BV = system.labels(batch).cpu().numpy()
        at_least_BV = predicted_sets(score_BV, threshold=threshold)
        predicted_BV = at_least_BV if predicted_BV is None else predicted_BV
        measured = per_visit(
            true_BV,
            score_BV,
            interaction_VV=system.interactions(),
            threshold=threshold,
            predicted_NV=predicted_BV,
        )
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
        """Return how many earlier examples the subject has, or else whether labels of the one before are known."""
        if "earlier" in records.column_names:
            return Groups(meanings.EARLIER, np.clip(column(records, "earlier"), 0, len(meanings.EARLIER) - 1))
        if "known" not in records.column_names:
            return super().groups(system, data, split, records, config)
        return Groups(("nothing known before", "labels known before"), (column(records, "known") > 0).astype(np.int64))

    def baselines(
        self, system: Any, data: Prepared, split: str, batches: Batches
    ) -> Mapping[str, Mapping[str, float | None]]:
        """Return what the labels that training has most often reach, and the labels of the example before."""
        return baselines.measure(self, system, split, batches)

    def enrich(self, measured: Measured) -> list[str]:
        """Add the field's rounds, single and rare labels, and what filters and thresholds change; tell what lacks."""
        told = _summary(measured.records, None)
        measured.numbers["threshold"] = {"value": self.threshold, "from": self.threshold_from}
        if len(measured.records):
            measured.numbers["rounds"] = _rounds(measured.records, told, measured.seed)
            details.add(measured, self.threshold)
        return notes(told)

    def sections(self, measured: Measured) -> list[Section]:
        """Return sizes of sets, the field's rounds, filters and thresholds, labels, examples in space and in words."""
        return sections.sections(measured)

    def entities(self, system: SetPredictor[Any, Any]) -> tuple[str, ...]:
        """Return the entity whose members are the labels."""
        return (system.entity,)

    def export(self, exporting: Exporting) -> dict[str, Any]:
        """Return the threshold, for people who ask what is served."""
        return {"threshold": self.threshold, "threshold_from": self.threshold_from}

    def service(self, context: Context) -> Service:
        """Return what answers requests."""
        return SetsService(context, self.threshold)


def _rounds(records: Records, told: Mapping[str, MetricValue], seed: int) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation of every metric over the field's rounds."""
    rng = generator(seed, "rounds")
    weight_RB = resampled_visits(column(records, "subject"), rng, rounds=ROUNDS, share=ROUND_SHARE)
    rounds = [_summary(records, weight_B) for weight_B in weight_RB if weight_B.any()]
    return {
        name: {"mean": float(np.mean(found)), "sd": float(np.std(found))}
        for name in told
        if (found := [value for one in rounds if (value := one[name].value) is not None])
    }


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
