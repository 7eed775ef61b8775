"""Small language models and their tokenizer, for tests."""

from __future__ import annotations

from typing import Any

import torch

from rec.data.encoders import learn_byte_tokenizer
from rec.nn.language.config import LanguageConfig
from rec.nn.language.tokens import LanguageTokens

TEXTS = ["the sound is great .", "the price is poor for this radio .", "a fine phone , and the battery lasts ."] * 4


def small(**changes: Any) -> LanguageConfig:
    return LanguageConfig(**{"width": 16, "layers": 2, "heads": 2, "hidden": 24, **changes})


def tokenizer() -> LanguageTokens:
    return LanguageTokens(learn_byte_tokenizer(TEXTS, 300))


def states(model: Any, token_BT: torch.Tensor) -> torch.Tensor:
    """Return the last states of texts without padding."""
    found: torch.Tensor = model.get_decoder()(input_ids=token_BT).last_hidden_state
    return found
