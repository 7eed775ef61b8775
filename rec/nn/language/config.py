"""The keys of a causal language model."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rec.strict import Needs, Strict, alike


class LanguageConfig(Strict):
    """A causal language model: a small one like Llama, trained from scratch, or a pretrained one."""

    NEEDS: ClassVar[Needs] = alike(("width", "layers", "heads", "hidden"), {"name": [""]})

    name: str = ""
    """Name or path of a pretrained model of transformers; empty builds a small one like Llama. The data are prepared
    with `data.encode.text.tokenizer` of the same name, or with "bytes" for a small one."""
    width: int = Field(128, ge=8)
    """Of a token's state."""
    layers: int = Field(2, ge=1)
    """Transformer layers."""
    heads: int = Field(4, ge=1)
    """Heads of attention; `width` is a multiple of twice as many."""
    hidden: int = Field(512, ge=1)
    """Width inside a feed-forward network."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights as they are made or loaded. Under DeepSpeed `parallel.precision` decides for training."""
    lora: int = Field(0, ge=0)
    """Rank of LoRA on attention (queries, keys, values, outputs), with all else of the model frozen but what is new in
    it; 0 trains every weight."""
    checkpointing: bool = False
    """Keeps of each layer its input alone and computes the rest again when gradients are: less memory, more time."""
    max_tokens: int = Field(64, ge=1)
    """Longest text that is trained on, in tokens, its end included; longer ones are cut."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if not self.name and self.width % (2 * self.heads):
            raise ValueError(f"heads: width ({self.width}) must be a multiple of twice the heads, got {self.heads}")
        return self
