"""What a report tells of HealthMoE: the worth of modalities and of pictures, and who relies on what."""

from __future__ import annotations

from typing import Any

import numpy as np

from rec.evaluation.records import column
from rec.evaluation.task import Measured
from rec.sections import Section, Text, interval
from rec.systems import attribution

METRIC = "ndcg@10"
IMAGE = "reliance/item image"


def enrich(measured: Measured) -> list[str]:
    """Add what each modality is worth; return it in words."""
    numbers = measured.numbers
    found: dict[str, Any] = {kind: attribution.ablations(measured, METRIC, kind) for kind in ("without", "spoiled")}
    numbers["ablations"] = found | {"groups": attribution.by_group(measured)}
    notes = []
    for kind, words in (("without", "where a modality is missing for all"), ("spoiled", "where pictures are spoiled")):
        told = [f"{name} {interval(**entry['loss'])}" for name, entry in found[kind].items()]
        notes += [f"{METRIC} that is lost {words}: {'; '.join(told)}"] if told else []
    truth = needs_image(measured)
    if truth:
        numbers["needs image"] = truth
        notes.append(f"who truly needs the picture is told {_areas(truth)}")
    return notes


def needs_image(measured: Measured) -> dict[str, float]:
    """Return how well it can be told who truly needs the picture, as areas under the ROC curve; empty if not planted.

    By ablation: how far a user's scores move without pictures. By routed share: a logistic regression from the user's
    shares of experts, fitted on four fifths of the users and judged on the fifth, in turns.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    records, users = measured.records, measured.data.users
    if "needs_image" not in users.column_names or IMAGE not in records.column_names:
        return {}
    truth = np.asarray(users["needs_image"].to_numpy()[column(records, "subject")])
    if truth.all() or not truth.any():
        return {}
    found = {"by ablation": float(roc_auc_score(truth, column(records, IMAGE)))}
    if "expert share" in records.column_names:
        share_UE, model = column(records, "expert share"), LogisticRegression(max_iter=1000)
        probability_U = cross_val_predict(model, share_UE, truth, cv=5, method="predict_proba")[:, 1]
        found["by routed share"] = float(roc_auc_score(truth, probability_U))
    return found


def sections(measured: Measured) -> list[Section]:
    """Return the tables of ablations and the bars of groups."""
    found = measured.numbers["ablations"]
    note = "The metric where a modality is missing for all, and what is lost, with its 95 % interval."
    parts = attribution.ablation_section("What each modality is worth", note, METRIC, found["without"])
    note = (
        "The metric with the same pictures after JPEG, blur, a crop, or swapped within their class, what is lost, and "
        "how many of the best 5 items stay."
    )
    parts += attribution.ablation_section("Spoiled pictures", note, METRIC, found["spoiled"])
    moved = "how far a user's scores move where it is missing, in standard deviations of those scores"
    parts += attribution.reliance_sections(measured, "share of each expert in the best 10 items", moved)
    if truth := measured.numbers.get("needs image"):
        text = (
            f"Some generated users truly need the picture to be served well. Who they are is told {_areas(truth)}. The "
            "area is the chance that a user who needs pictures comes before one who does not; 0.5 is guessing. By "
            "ablation: how far a user's scores move without pictures. By routed share: from the user's shares of "
            "experts."
        )
        parts.append(Section(title="Who needs pictures", parts=[Text(text=text)]))
    return parts


def _areas(truth: dict[str, float]) -> str:
    return " and ".join(f"{name} with an area under the ROC curve of {auc:.3f}" for name, auc in truth.items())
