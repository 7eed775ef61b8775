"""BERT and ViT as parts of a model that are trained: small ones built here, or pretrained ones, fully or by LoRA.

Letters: N texts or pictures, L tokens, S pixels of a side, M width of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec.errors import ConfigError, not_loaded
from rec.strict import Needs, Strict, alike

WORD_SPREAD = 1.0


@dataclass(frozen=True, slots=True)
class TokenForm:
    """What a text encoder must know of tokens."""

    vocabulary: int
    length: int
    pad: int


class TextEncoderConfig(Strict):
    """A BERT that is trained with the model."""

    NEEDS: ClassVar[Needs] = alike(("width", "layers", "heads"), {"name": [""]})

    name: str = ""
    """Name or path of a pretrained model; empty builds a small BERT, trained from scratch."""
    width: int = Field(64, ge=8)
    """Of a token's state."""
    layers: int = Field(2, ge=1)
    """Transformer layers."""
    heads: int = Field(4, ge=1)
    """Heads of attention; divides `width`."""
    pooling: Literal["cls", "mean"] = "cls"
    """The state of the first token, or the mean over all: small encoders trained from scratch learn sooner from it."""
    lora: int = Field(0, ge=0)
    """Rank of LoRA on queries and values, with all else frozen; 0 trains every weight."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        heads_divide(self)
        return self


class ImageEncoderConfig(Strict):
    """A ViT that is trained with the model."""

    NEEDS: ClassVar[Needs] = alike(("width", "layers", "heads", "patch"), {"name": [""]})

    name: str = ""
    """Name or path of a pretrained model; empty builds a small ViT, trained from scratch."""
    width: int = Field(64, ge=8)
    """Of a patch's state."""
    layers: int = Field(2, ge=1)
    """Transformer layers."""
    heads: int = Field(4, ge=1)
    """Heads of attention; divides `width`."""
    patch: int = Field(8, ge=1)
    """Width and height of a patch, pixels."""
    pooling: Literal["cls", "mean"] = "cls"
    """The state of the first token, or the mean over all: small encoders trained from scratch learn sooner from it."""
    lora: int = Field(0, ge=0)
    """Rank of LoRA on queries and values, with all else frozen; 0 trains every weight."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        heads_divide(self)
        return self


def heads_divide(config: TextEncoderConfig | ImageEncoderConfig) -> None:
    """Check that an encoder's heads divide its width.

    Raises:
        ValueError: they do not.
    """
    if not config.name and config.width % config.heads:
        raise ValueError(f"heads: must divide width ({config.width}), got {config.heads}")


class BertEncoder(nn.Module):
    """One vector of a BERT per text."""

    def __init__(self, config: TextEncoderConfig, vocabulary: int, max_tokens: int, pad: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.pad, self.pooling = pad, config.pooling
        if config.name:
            model = _pretrained(config.name, "model.text.name")
        else:
            form = BertConfig(
                vocab_size=vocabulary,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                max_position_embeddings=max_tokens,
                pad_token_id=pad,
                type_vocab_size=1,
                initializer_range=config.width**-0.5,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
            model = BertModel(form, add_pooling_layer=False)
            # Large beside the steps of an optimiser, and words before places: else first steps wash words out.
            nn.init.normal_(model.embeddings.word_embeddings.weight, std=WORD_SPREAD)
        if vocabulary > model.config.vocab_size:
            raise ConfigError(
                f"model.text.name: knows {model.config.vocab_size} tokens, the data has {vocabulary}; "
                "prepare with data.encode.text.tokenizer of the same name"
            )
        self.width = int(model.config.hidden_size)
        self.model: Any = _with_lora(model, config.lora, ("query", "value"))

    def forward(self, token_NL: Tensor) -> Tensor:
        """Return (N, M); a text of padding alone gives what is to be ignored."""
        mask_NL = token_NL != self.pad
        mask_NL[:, 0] = True
        longest = int(mask_NL.sum(1).max()) if len(token_NL) else 1
        token_NL, mask_NL = token_NL[:, :longest].long(), mask_NL[:, :longest]
        state_NLM = self.model(input_ids=token_NL, attention_mask=mask_NL.long()).last_hidden_state
        return pooled(state_NLM, mask_NL, self.pooling)


class ImageEncoder(nn.Module):
    """One vector of a ViT per picture."""

    def __init__(self, config: ImageEncoderConfig, size: int) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTModel

        self.pooling = config.pooling

        if config.name:
            model = _pretrained(config.name, "model.image.name")
            wanted = int(model.config.image_size)
            if wanted != size:
                raise ConfigError(
                    f"model.image.name: sees {wanted} pixels, prepared are {size} (data.encode.image.size)"
                )
        else:
            if size % config.patch:
                raise ConfigError(f"model.image.patch: must divide the {size} pixels prepared, got {config.patch}")
            form = ViTConfig(
                image_size=size,
                patch_size=config.patch,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                initializer_range=config.width**-0.5,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
            model = ViTModel(form, add_pooling_layer=False)
        self.width = int(model.config.hidden_size)
        self.model: Any = _with_lora(model, config.lora, ("query", "value", "q_proj", "v_proj"))

    def forward(self, pixels_NSS3: Tensor) -> Tensor:
        """Return (N, M) for pixels as uint8."""
        weight = next(self.model.parameters())
        pixels = pixels_NSS3.permute(0, 3, 1, 2).to(weight.dtype) / 127.5 - 1
        state_NLM = self.model(pixel_values=pixels).last_hidden_state
        return pooled(state_NLM, state_NLM.new_ones(state_NLM.shape[:2]), self.pooling)


def pooled(state_NLM: Tensor, mask_NL: Tensor, pooling: str) -> Tensor:
    """Return one vector per row of tokens, (N, M)."""
    if pooling == "cls":
        return state_NLM[:, 0]
    share_NL = mask_NL.to(state_NLM.dtype) / mask_NL.sum(1, keepdim=True)
    return torch.einsum("nlm,nl->nm", state_NLM, share_NL)


def _pretrained(name: str, key: str) -> Any:
    from transformers import AutoModel

    try:
        return AutoModel.from_pretrained(name, add_pooling_layer=False)
    except (OSError, ValueError, TypeError) as error:
        raise not_loaded(key, name, "model", error) from error


def _with_lora(model: Any, rank: int, modules: tuple[str, ...]) -> Any:
    if not rank:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError("lora: needs peft; pip install peft, or set it to 0") from error
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    chosen = [name for name in modules if name in names]
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=chosen))


def trained_parts(name: str, lora: int) -> tuple[str, ...]:
    """Return the globs of an encoder's parameters that move: all, or those of LoRA alone."""
    return (f"{name}.*lora_*",) if lora else (f"{name}.*",)


def in_chunks(encode: nn.Module, rows: Tensor, size: int) -> Tensor:
    """Return what `encode` gives for all rows, computed `size` rows at a time."""
    if len(rows) <= size:
        found: Tensor = encode(rows)
        return found
    return torch.cat([encode(rows[start : start + size]) for start in range(0, len(rows), size)])
