"""The keys of `[evaluate]` about texts: how they are written, and how models score them."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from rec.strict import Needs, Strict, alike

XREC_PROMPT = (
    "Score the given explanation against the ground truth on a scale from 0 to 100, focusing on the alignment of "
    "meanings rather than the formatting. Provide your score as a number and do not provide any other text."
)
"""What XRec (EMNLP 2024) tells its judge."""


HOTTEST, MOST_BEAMS, MOST_PENALTY, SEEDS = 10.0, 16, 10.0, 1 << 31
"""What a config and a request may ask for at most."""


class DecodingConfig(Strict):
    """How the texts of a whole split are written; what is unset is left to the system's task."""

    NEEDS: ClassVar[Needs] = {
        **alike(("top_p", "seed"), {"temperature": {"not": [None, 0.0]}}),
        "length_penalty": {"beams": {"not": [None, 1]}},
    }

    max_tokens: int | None = Field(None, ge=1)
    """Tokens of a text at most."""
    temperature: float | None = Field(None, ge=0, le=HOTTEST)
    """How freely tokens are drawn; 0 takes the most probable one each time."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Tokens are drawn from the fewest that hold this share of the probability."""
    seed: int | None = Field(None, ge=0, lt=SEEDS)
    """What drawn tokens follow from."""
    beams: int | None = Field(None, ge=1, le=MOST_BEAMS)
    """Texts that are followed at once in search of the best one; only where nothing is drawn."""
    length_penalty: float | None = Field(None, ge=-MOST_PENALTY, le=MOST_PENALTY)
    """The best text of a search has the highest log probability over its number of tokens to this power."""

    @model_validator(mode="after")
    def _either_drawn_or_searched(self) -> Self:
        if (self.beams or 1) > 1 and (self.temperature or 0) > 0:
            raise ValueError("beams: a search draws nothing at random; expected temperature=0 or beams=1")
        return self


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
    """Texts per pass of the model."""


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
    """Seconds without an answer after which a request is made again."""
    retries: int = Field(3, ge=0)
    """How often a request that failed, or whose answer is no number, is made again."""
    concurrency: int = Field(4, ge=1)
    """Requests at the same time."""
    cache: str = ""
    """Folder of the scores that were given, by what was asked; "" is `judge` in the run's folder."""
