"""A model of natural-language inference that says whether sources entail a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rec.errors import ConfigError, not_loaded

ROWS_AT_ONCE = 32
WANTED = "entail"


class Entailment:
    """A transformers classifier of pairs of sequences by name or path, with a class for entailment."""

    def __init__(self, name: str, max_tokens: int, threads: int = 1, device: str = "cpu") -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.made_of = (name, max_tokens, threads, device)
        torch.set_num_threads(threads)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self.model: Any = AutoModelForSequenceClassification.from_pretrained(name).eval().to(device)
        except (OSError, ValueError) as error:
            raise not_loaded("faithfulness.entailment", name, "classifier", error) from error
        labels = {str(label).lower(): int(n) for n, label in self.model.config.id2label.items()}
        places = [n for label, n in labels.items() if label.startswith(WANTED)]
        if len(places) != 1:
            raise ConfigError(
                f"faithfulness.entailment: {name!r} has the classes {', '.join(labels)}, expected one for entailment"
            )
        self.place, self.max_tokens, self.device = places[0], max_tokens, device

    def __reduce__(self) -> tuple[type[Entailment], tuple[str, int, int, str]]:
        """Load the model anew in another process."""
        return Entailment, self.made_of

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return, per pair of sources and sentence, the probability that the first entails the second.

        Sources are cut where both do not fit.
        """
        import torch

        found: list[float] = []
        for at in range(0, len(pairs), ROWS_AT_ONCE):
            first, second = zip(*pairs[at : at + ROWS_AT_ONCE], strict=True)
            tokens = self.tokenizer(
                list(first), list(second), padding=True, truncation="only_first", max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.device)  # fmt: skip
            with torch.inference_mode():
                logits = self.model(**tokens).logits.float()
            found += logits.softmax(1)[:, self.place].cpu().tolist()
        return found
