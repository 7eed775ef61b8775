"""Texts as tokens of a causal language model, and back.

The tokenizer comes with the data set, as the table `tokenizer` (uint8, JSON of the tokenizers library): learned from
its texts (`data.encode.text.tokenizer = "bytes"`), or a pretrained model's own. Two tokens stand behind its vocabulary,
one for the user and one for the item: what is put in their places are vectors, so that no table of a model grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rec.data.encoders import END
from rec.errors import ConfigError

ENDS = (END, "<|eot_id|>", "<|im_end|>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<end_of_turn>", "[SEP]")
"""Names that tokenizers have for the token behind the last one of a text, the first that is known counts."""


class LanguageTokens:
    """A tokenizer, its end token, and the tokens that stand for a user and an item.

    Raises:
        ConfigError: the tokenizer has no token that ends a text.
    """

    def __init__(self, text: str) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Any = Tokenizer.from_str(text)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        # A text that spells a special token is a text: nobody's words end an answer or stand for a user.
        self.tokenizer.encode_special_tokens = True
        self.vocabulary: int = self.tokenizer.get_vocab_size()
        ends = [number for name in ENDS if (number := self.tokenizer.token_to_id(name)) is not None]
        if not ends:
            raise ConfigError(
                f"data.encode.text.tokenizer: has none of the tokens that end a text ({', '.join(ENDS)}); use 'bytes' "
                "or the tokenizer of a causal language model"
            )
        self.end: int = ends[0]
        self.user, self.item = self.vocabulary, self.vocabulary + 1

    @classmethod
    def from_table(cls, table: np.ndarray) -> LanguageTokens:
        """Return the tokenizer of a data set."""
        return cls(np.asarray(table, np.uint8).tobytes().decode())

    def special(self, name: str) -> int | None:
        """Return the number of a special token, None where the tokenizer has none of that name."""
        number: int | None = self.tokenizer.token_to_id(name)
        return number

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, without marks of its beginning or end."""
        whole = [text.encode("utf-8", "replace").decode() for text in texts]
        return [found.ids for found in self.tokenizer.encode_batch(whole, add_special_tokens=False)]

    def answers(self, texts: Sequence[str], most: int) -> list[list[int]]:
        """Return the tokens of each text with the end token behind them, the first `most` of longer ones."""
        return [[*tokens, self.end][:most] for tokens in self.encode(texts)]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens up to the end token."""
        some = list(tokens)
        some = some[: some.index(self.end)] if self.end in some else some
        return str(self.tokenizer.decode([token for token in some if token < self.vocabulary])).strip()
