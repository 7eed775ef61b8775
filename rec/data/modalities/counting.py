"""Tokens of what is asked, counted or estimated before anything is asked."""

from __future__ import annotations

from typing import Any

from rec.data.modalities.language_model import Conversation
from rec.errors import not_loaded

LETTERS = 4
"""Characters of a token, where no tokenizer counts: those of English in the vocabularies of large models."""
KEPT = 256
"""Texts whose tokens are kept at hand: all questions start with the same ones."""
OF_MESSAGE = 4
"""Tokens around a message: its role and its ends."""


class TokenCount:
    """Counts tokens by a tokenizer of transformers, or takes four characters for one."""

    def __init__(self, tokenizer: str, key: str = "data.modalities.writer.tokenizer") -> None:
        self.tokenizer: Any = None
        self._known: dict[str, int] = {}
        if not tokenizer:
            return
        from transformers import AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        except (OSError, ValueError) as error:
            raise not_loaded(key, tokenizer, "tokenizer", error) from error

    def of_text(self, text: str) -> int:
        """Return the tokens of a text."""
        if self.tokenizer is None:
            return -(-len(text) // LETTERS)
        if (known := self._known.get(text)) is not None:
            return known
        if len(self._known) >= KEPT:
            self._known.clear()
        found = self._known[text] = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return found

    def of(self, conversation: Conversation) -> int:
        """Return the tokens of a conversation."""
        return sum(self.of_text(message.content) + OF_MESSAGE for message in conversation)
