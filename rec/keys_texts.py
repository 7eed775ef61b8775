"""The keys of `[evaluate.bertscore]` and `[evaluate.judge]`: scores of texts by models."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rec.strict import Needs, Strict, alike

XREC_PROMPT = (
    "Score the given explanation against the ground truth on a scale from 0 to 100, focusing on the alignment of "
    "meanings rather than the formatting. Provide your score as a number and do not provide any other text."
)
"""What XRec (EMNLP 2024) tells its judge."""


class BertScoreConfig(Strict):
    """BERTScore of texts, by a transformers model that is at hand."""

    NEEDS: ClassVar[Needs] = alike(("layer", "baseline", "batch_size"), {"model": {"not": [""]}})

    model: str = ""
    """Name or path of a transformers encoder, such as "roberta-large"; "" measures none."""
    layer: int = Field(17, ge=0)
    """Whose hidden states are compared; 0 is that of the embeddings. 17 is the published choice for roberta-large, 9
    for bert-base-uncased."""
    baseline: str = ""
    """Rescales by the published baseline of the model: its .tsv file (LAYER,P,R,F), as the package bert-score has them;
    "" does not rescale."""
    batch_size: int = Field(64, ge=1)


class JudgeConfig(Strict):
    """Scores of texts by a language model that is asked over HTTP."""

    NEEDS: ClassVar[Needs] = alike(
        ("model", "judge", "prompt", "token_file", "budget", "timeout_s", "retries", "concurrency", "cache"),
        {"url": {"not": [""]}},
    )

    url: str = ""
    """Address that takes chat completions, such as "http://localhost:8000/v1/chat/completions"; "" asks nobody."""
    model: str = ""
    """What the server calls the model."""
    judge: str = "rec.evaluation.tasks.writing.judge:ChatJudge"
    """Import path of a class below `Judge`."""
    prompt: str = XREC_PROMPT
    """The system's message; the user's is JSON of `prediction` and `reference`."""
    token_file: str = ""
    """File that holds what is sent as `Authorization: Bearer`; "" sends none."""
    budget: int = Field(1000, ge=0)
    """Most requests of an evaluation, repeated ones included; what is in the cache costs none."""
    timeout_s: float = Field(60.0, gt=0)
    retries: int = Field(3, ge=0)
    """How often a request that failed, or whose answer is no number, is made again."""
    concurrency: int = Field(4, ge=1)
    """Requests at the same time."""
    cache: str = ""
    """Folder of the scores that were given, by what was asked; "" is `judge` in the run's folder."""
