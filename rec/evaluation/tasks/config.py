"""The keys of `[evaluate]`: what is measured beside the metrics, and how texts are written and scored."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rec.evaluation.tasks.writing_config import BertScoreConfig, DecodingConfig, JudgeConfig
from rec.strict import Strict


class EvaluateConfig(Strict):
    """What `rec evaluate` adds to the metrics."""

    AFTERWARDS: ClassVar = ("bootstrap", "bertscore", "judge")
    """Keys of what is made from answers once they are there: they change no answer and no record of one."""

    popular_share: float = Field(0.001, gt=0, lt=1)
    """An item is popular when it has more than this share of all events (MSMRec, section 5.4)."""
    cold_count: int | None = Field(None, ge=0)
    """Items with at most so many training events are reported as cold; unset leaves it to the system."""
    rare_share: float = Field(0.02, gt=0, lt=1)
    """A label is rare when fewer than this share of training's examples have it."""
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["validation"] | None = None
    """The least probability of a label that is given, in evaluation, predictions and answers; "validation" chooses it
    there, by the checkpoint that was chosen; unset leaves it to the system's task. Training measures by the task's."""
    words: int | None = Field(None, ge=0)
    """Words of a text, and of the true one, that are scored; 0 scores all; unset leaves it to the system's task."""
    signs: Literal["apart", "kept"] | None = None
    """Whether signs are set apart from words before texts are scored; unset leaves it to the system's task."""
    decoding: DecodingConfig = DecodingConfig()
    """How texts are written, on validation in training too."""
    bertscore: BertScoreConfig = BertScoreConfig()
    """Scores texts by the hidden states of a model."""
    judge: JudgeConfig = JudgeConfig()
    """Scores texts by asking a language model."""
    bootstrap: int = Field(1000, ge=100)
    """Resamples of examples, or of the units that they belong to, behind each interval."""
