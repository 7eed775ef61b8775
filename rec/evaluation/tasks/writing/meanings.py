"""What the writing task's words mean, for people who meet them in a report."""

from __future__ import annotations

from rec.evaluation.tasks.writing.baselines import FREQUENT, OF_FEATURE, RANDOM

OVERLAP = {
    "rouge1": "overlap of single words with the true text",
    "rouge2": "overlap of pairs of words with the true text",
    "rouge_l_nmt": "longest common run of words with the true text, gaps allowed",
}
OF = {"f": "f-measure", "p": "as a share of what was written", "r": "as a share of the true text"}
LEVELS = {"corpus": "among all that were written", "sentence": "within a text, averaged"}
WORDS = {
    "bleu1": "share of the words written that stand in the true text, in percent; shorter texts cost",
    "bleu4": "share of runs of one to four words written that stand in the true text, in percent; shorter texts cost",
    "bleu1_smooth": "bleu1 by text, smoothed, in percent",
    "bleu4_smooth": "bleu4 by text, smoothed, in percent",
    "rouge_l_f1": "longest common run of words with the true text, gaps allowed, f-measure in percent",
    "usr": "share of different texts among all that were written; 1 where none repeats",
    "usn": "how many different texts were written",
    "fmr": "share of texts that name the feature they are about",
    "fcr": "share of all features that any text names",
    "div": "features that two texts share in the mean",
    FREQUENT: "the text that training has most often, for everybody",
    OF_FEATURE: "the text that training has most often of the same feature",
    RANDOM: "a text of training, drawn at random",
}


def of(name: str) -> str:
    """Return what a metric or a simple answer is, empty where nothing is said of it."""
    kind, _, end = name.rpartition("_")
    if kind in OVERLAP and end in OF:
        return f"{OVERLAP[kind]}, {OF[end]}, in percent"
    if kind.startswith("distinct") and end in LEVELS:
        return f"share of different runs of {kind.removeprefix('distinct')} words {LEVELS[end]}"
    return WORDS.get(name, "")
