"""What the writing task's words mean, for people who meet them in a report."""

from __future__ import annotations

from rec.evaluation.tasks.writing import baselines as simple

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
    "nll": "negative log likelihood of the true text per token, in nats; only among models that cut texts alike",
    "factual": "share of the features and opinions that a text states which training reviews of its item state too",
    "hallucinated": "share of them that no training review of the item states",
    "factual_coverage": "share of what the item's training reviews state that the text states too",
    "factual_pairs": "share of a text's opinions about features that a training review of its item has",
    "stating": "share of texts that state anything",
    "bertscore_f": "likeness to the true text by the hidden states of a model, f-measure",
    "bertscore_p": "likeness of what was written to the true text by the hidden states of a model",
    "bertscore_r": "likeness of the true text to what was written by the hidden states of a model",
    "gptscore": "what a language model says of how well meanings agree with the true text, 0 to 100",
    simple.ITEM_TEMPLATE: "one sentence with the feature that the item's texts of training are most often about",
    simple.FIRST_OF_ITEM: "a copy of the first text about the item in training",
    simple.FREQUENT_OF_ITEM: "the text that the item has most often in training",
    simple.FREQUENT: "the text that training has most often, for everybody",
    simple.RANDOM: "a text of training, drawn at random",
    simple.TRUE_TEMPLATE: "one sentence with the feature that the true text is about, which it is told",
    simple.SAME_FEATURE: "a copy of the first text about the true feature, which it is told, the item's own first",
    simple.OF_FEATURE: "the text that training has most often of the true feature, which it is told",
}


def of(name: str) -> str:
    """Return what a metric or a simple answer is, empty where nothing is said of it."""
    kind, _, end = name.rpartition("_")
    if kind in OVERLAP and end in OF:
        return f"{OVERLAP[kind]}, {OF[end]}, in percent"
    if kind.startswith("distinct") and end in LEVELS:
        return f"share of different runs of {kind.removeprefix('distinct')} words {LEVELS[end]}"
    return WORDS.get(name, "")
