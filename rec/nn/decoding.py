"""Decoding: texts drawn token by token from a model that keeps what it has read, as keys and values in a cache.

Letters: B examples of a batch, R rows in the model (examples or their beams), W words of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

B = TypeVar("B", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How text is drawn from a model.

    Raises:
        ValueError: a value is out of its range, or tokens are to be drawn at random in a beam search.
    """

    max_tokens: int = 32
    temperature: float = 0.0
    """0 takes the most probable token each time."""
    seed: int = 0
    top_p: float = 1.0
    """Tokens are drawn from the fewest that hold this share of the probability, where the temperature is above 0."""
    beams: int = 1
    """Texts that are followed at once in a search for the one with the highest mean log probability per token."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.beams < 1:
            raise ValueError(f"expected max_tokens and beams of at least 1, got {self.max_tokens} and {self.beams}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"expected a temperature of at least 0 and a top_p in (0, 1], got {self.temperature} and {self.top_p}"
            )
        if self.beams > 1 and self.temperature > 0:
            raise ValueError("a beam search draws nothing at random: expected a temperature of 0 or one beam")


class State(Protocol):
    """What a model keeps of the rows that it has read: keys and values, lengths, clusters."""

    def reorder(self, row_R: Tensor) -> None:
        """Hold these rows (int64, on the model's device) in this order: fewer, more, or some of them several times."""


S = TypeVar("S", bound=State)


class Stepper(Protocol[B, S]):
    """A model that is asked one token at a time; scores are logits, in any float type."""

    def start(self, batch: B) -> tuple[Tensor, S]:
        """Read what comes before each example's text; return the scores of its first token, (B, W), and the state."""

    def step(self, token_R: Tensor, state: S) -> tuple[Tensor, S]:
        """Read one token (int64) of each row that the state holds; return the next one's scores, (R, W), and the state.

        The state that was given may be changed in place.
        """
