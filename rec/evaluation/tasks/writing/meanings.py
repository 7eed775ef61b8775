"""What the writing task's words mean, for people who meet them in a report."""

from __future__ import annotations

from rec.evaluation.tasks.writing.baselines import FREQUENT, OF_FEATURE, RANDOM

WORDS = {
    "bleu1": "share of the words written that stand in the true text, in percent; shorter texts cost",
    "bleu4": "the same of runs of one to four words, in percent",
    "bleu1_smooth": "bleu1 by text, smoothed, in percent",
    "bleu4_smooth": "bleu4 by text, smoothed, in percent",
    "rouge1_f": "overlap of single words with the true text, f-measure in percent",
    "rouge2_f": "overlap of pairs of words with the true text, f-measure in percent",
    "rouge_l_f1": "longest common run of words, gaps allowed, f-measure in percent",
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
    return WORDS.get(name, "")
