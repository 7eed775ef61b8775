"""The keys of `[model]` of PETER."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from rec.strict import Spaces, Strict, Variants


class PETERConfig(Strict):
    """Keys of `[model]`. The defaults are the published model."""

    SPACES: ClassVar[Spaces] = {
        "model": {
            "width": {"choice": [64, 128, 256, 512]},
            "layers": {"choice": [1, 2, 3]},
            "dropout": {"uniform": [0.0, 0.5]},
            "context_weight": {"choice": [0.0, 0.3, 1.0]},
            "rating_weight": {"log": [0.01, 1.0]},
        }
    }
    VARIANTS: ClassVar[Variants] = {
        "PETER": (),
        "PETER+": ("model.feature=true",),
        "without context": ("model.context_weight=0.0",),
    }

    feature: bool = False
    """Whether the feature that a text is to be about is told (PETER+); else it is known to nobody before the text."""
    words: int = Field(15, ge=1)
    """Longest text: training's texts and those that are scored are cut to so many words, and so many are written."""
    vocabulary: int = Field(20_000, ge=1)
    """Words that are known, the most frequent of training."""
    width: int = Field(512, ge=2)
    """Of a position's state."""
    layers: int = Field(2, ge=1)
    """Transformer layers."""
    heads: int = Field(2, ge=1)
    """Heads of attention; divides `width`."""
    hidden: int = Field(2048, ge=1)
    """Hidden width of the feed-forward networks."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of values that training leaves out."""
    context_weight: float = Field(1.0, ge=0)
    """Weight of the loss by which the item's position tells the words of a text in any order."""
    rating_weight: float = Field(0.1, ge=0)
    """Weight of the ratings' squared error."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width: must be even and divided by heads ({self.heads}), got {self.width}")
        return self
