"""What a language model is asked, and what it answers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self


class ChatMessage(NamedTuple):
    """A part of a conversation."""

    role: str
    """"system", "user" or "assistant"."""
    content: str


Conversation = tuple[ChatMessage, ...]
CUT, WHOLE = "length", "stop"
"""Why an answer ended: too many tokens, or the model's own end; a server may name other reasons."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of prompts and answers."""

    input: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.input + self.output

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(self.input + other.input, self.output + other.output)

    def __sub__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(self.input - other.input, self.output - other.output)


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to a conversation."""

    text: str
    finish: str
    usage: TokenUsage


@dataclass(slots=True)
class AskingStatus:
    """How asking went, so far."""

    requests: int = 0
    retries: int = 0
    """Of those, how many repeated one that failed."""
    usage: TokenUsage = TokenUsage()
    fault: str = ""
    """The last failure."""


class Unanswered(Exception):
    """A question has no answer: the model refuses it, or asking failed as often as it may."""


class LanguageModel(ABC):
    """Answers conversations; open while it is a context manager, on one event loop."""

    def __init__(self) -> None:
        self.told = AskingStatus()

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return all that an answer depends on beside the conversation: the model and its parameters."""

    @abstractmethod
    async def answer(self, conversation: Conversation) -> Answer:
        """Return the answer, which may end too early.

        Raises:
            BudgetSpent: it would cost more than is left.
            Unanswered: there is none to this question.
            DataError: there is none to any.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def question_key(identity: str, conversation: Conversation) -> bytes:
    """Return what tells a question from others: the hash of the model's identity and of all that is said."""
    digest = hashlib.sha256(identity.encode("utf-8", "replace"))
    for role, content in conversation:
        said = content.encode("utf-8", "replace")
        digest.update(f"\0{role} {len(said)} ".encode())
        digest.update(said)
    return digest.digest()[:16]
