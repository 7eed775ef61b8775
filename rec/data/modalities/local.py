"""Causal models of transformers that answer conversations in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rec.data.modalities.config import WriterConfig
from rec.data.modalities.language_model import CUT, WHOLE, Answer, Conversation, TokenUsage
from rec.errors import ConfigError, not_loaded

KEY = "data.modalities.writer"


class CausalModel:
    """A causal model by name or path: loads once, then answers batches of conversations."""

    def __init__(self, config: WriterConfig) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = "cuda" if config.gpus_per_actor else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"{KEY}.gpus_per_actor: the model is to work on a GPU, but torch finds none there")
        torch.set_num_threads(max(1, int(config.cpus_per_actor)))
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(config.model, padding_side="left")
            self.model: Any = AutoModelForCausalLM.from_pretrained(config.model).eval().to(device)
        except (OSError, ValueError) as error:
            raise not_loaded(f"{KEY}.model", config.model, "causal language model", error) from error
        if self.tokenizer.eos_token_id is None:
            raise ConfigError(f"{KEY}.model: the tokenizer of {config.model!r} has no token that ends an answer")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.config, self.device = config, device

    def __call__(self, conversations: Sequence[Conversation]) -> list[Answer]:
        """Return the answers, in order."""
        import torch

        config = self.config
        texts = [self._text(conversation) for conversation in conversations]
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False).to(self.device)
        tokens.pop("token_type_ids", None)
        chosen: dict[str, Any] = {"do_sample": config.temperature > 0}
        if config.temperature > 0:
            torch.manual_seed(config.seed)
            chosen["temperature"] = config.temperature
        with torch.inference_mode():
            found_BL = self.model.generate(
                **tokens, max_new_tokens=config.max_tokens, pad_token_id=self.tokenizer.pad_token_id, **chosen
            )
        asked_B = tokens["attention_mask"].sum(1).tolist()
        new_BL = found_BL[:, tokens["input_ids"].shape[1] :].tolist()
        return [self._answer(new, asked) for new, asked in zip(new_BL, asked_B, strict=True)]

    def _text(self, conversation: Conversation) -> str:
        """Return a conversation as the model's own template writes it, else part after part."""
        messages = [message._asdict() for message in conversation]
        if self.tokenizer.chat_template:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        return "\n\n".join([*(message.content for message in conversation), ""])

    def _answer(self, tokens: list[int], asked: int) -> Answer:
        ends = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        written = tokens if end is None else tokens[:end]
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        return Answer(str(text), CUT if end is None else WHOLE, TokenUsage(int(asked), len(written)))
