"""What the sets task's words mean, for people who meet them in a report."""

from __future__ import annotations

from rec.evaluation.tasks.sets.baselines import COMMON, FREQUENT, REPEATED
from rec.evaluation.tasks.sets.metrics import RANKED

OVERLAP = {
    "jaccard": "labels both given and true, as a share of those given or true",
    "precision": "share of given labels that are true",
    "recall": "share of true labels that are given",
    "f1": "harmonic mean of precision and recall",
    "prauc": "area under the curve of precision over recall, from the probabilities of all labels",
}
EARLIER = ("no earlier example", "1 earlier example", "2 earlier examples", "3 or more earlier examples")
"""Groups by how many examples of the subject came before."""
SELDOM = (
    "of the labels alone that training has seldom (evaluate.rare_share); averaged over the examples of a subject that "
    "have any, then over subjects"
)
UNITS = {"visit": "averaged over examples", "patient": "averaged over the examples of a subject, then over subjects"}
WORDS = {
    "ddi_rate": "share of pairs of given labels that are known to interact badly",
    "true_ddi_rate": "share of pairs of true labels that are known to interact badly",
    "medications": "labels given per example",
    "true_medications": "true labels per example",
    FREQUENT: "the labels that training has most often, as many as an example has there in the mean",
    COMMON: "every label that at least half of training's examples have, scored by that share",
    "rare_recall_patient": f"share of true labels that are given, {SELDOM}",
    "rare_jaccard_patient": f"labels both given and true, as a share of those given or true, {SELDOM}",
    f"rare_recall@{RANKED}_patient": f"share of true labels among the {RANKED} most probable of all, {SELDOM}",
    REPEATED: "what the subject had at the example before",
}


def of(name: str) -> str:
    """Return what a metric or a simple answer is, empty where nothing is said of it."""
    kind, _, unit = name.rpartition("_")
    if kind in OVERLAP and unit in UNITS:
        return f"{OVERLAP[kind]}; {UNITS[unit]}"
    return WORDS.get(name, "")
