"""A causal language model of transformers: a small one like Llama, built here, or a pretrained one.

Letters: B texts, T positions, D width, W words of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rec.errors import ConfigError, not_loaded
from rec.nn.base import refer_to
from rec.nn.language.config import LanguageConfig
from rec.nn.making import with_weights
from rec.seeds import derive

LONGEST = 2048
"""Positions of a small model; they cost nothing."""
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "c_attn", "c_proj", "query_key_value", "qkv_proj", "out_proj")
"""Names that models have for the linear maps of attention."""
SCALED = ("logits_scaling", "logit_scale", "final_logit_softcapping")
"""Keys of models whose scores are more than a product of the last state with a matrix."""


def causal_model(config: LanguageConfig, vocabulary: int, seed: int) -> Any:
    """Return a model of transformers for so many tokens, on the CPU; a small one starts from `seed` alone.

    Raises:
        ConfigError: a pretrained one does not load, knows fewer tokens, or has another form than is understood.
    """
    dtype = getattr(torch, config.dtype)
    model = _pretrained(config, dtype) if config.name else _small(config, vocabulary, seed).to(dtype)
    if vocabulary > (known := model.get_input_embeddings().num_embeddings):
        raise ConfigError(
            f"language.name: {config.name!r} knows {known:,} tokens, the data has {vocabulary:,}; "
            f"prepare with data.encode.text.tokenizer of the same name"
        )
    if scaled := [key for key in SCALED if getattr(model.config, key, None) not in (None, 1.0)]:
        raise ConfigError(f"language.name: {config.name!r} changes its scores by {scaled[0]}, which is not supported")
    if config.lora:
        add_lora(model, config.lora, seed)
    if config.checkpointing:
        # Ranks whose experts are spread send messages while they compute again: all do so to the end of a layer.
        model.gradient_checkpointing_enable({"use_reentrant": False, "early_stop": False})
    model.config.use_cache = False
    return model


def _small(config: LanguageConfig, vocabulary: int, seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    form = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=config.width,
        intermediate_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=LONGEST,
        initializer_range=config.width**-0.5,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "language"))
        return LlamaForCausalLM(form)


def skeleton(config: LanguageConfig, vocabulary: int) -> Any:
    """Return the model without its weights, which take no memory: for what follows from shapes alone.

    Raises:
        ConfigError: a pretrained one is not known here.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        if not config.name:
            return _small(config, vocabulary, 0)
        try:
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config.name))
        except (OSError, ValueError, TypeError) as error:
            raise not_loaded("language.name", config.name, "language model", error) from error


def _pretrained(config: LanguageConfig, dtype: torch.dtype) -> Any:
    """Return a pretrained model; where LoRA is to leave its weights as they are, checkpoints only refer to them."""
    from transformers import AutoModelForCausalLM

    try:
        with with_weights():
            model = AutoModelForCausalLM.from_pretrained(config.name, dtype=dtype)
    except (OSError, ValueError, TypeError) as error:
        raise not_loaded("language.name", config.name, "language model", error) from error
    if config.lora:
        refer_to(model)
    return model


def add_lora(model: Any, rank: int, seed: int) -> None:
    """Put LoRA beside the linear maps of attention, in place, and freeze all that was there.

    Source: Hu et al. 2021; as in GaVaMoE, alpha is twice the rank.

    Raises:
        ConfigError: peft is not there, or the model has no attention that is known.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("language.lora: needs peft; pip install 'rec[language]', or set it to 0") from error
    names = [name for name, _ in model.named_modules() if is_attention(name)]
    if not names:
        raise ConfigError(f"language.lora: no map of attention named {', '.join(ATTENTION)} in {type(model).__name__}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "lora"))
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def is_attention(name: str) -> bool:
    """Return whether a module's dotted name is that of a linear map of attention."""
    *parents, last = name.split(".")
    return last in ATTENTION and any("attn" in parent or "attention" in parent for parent in parents)


def decoder_layers(model: Any) -> nn.ModuleList:
    """Return the layers of a model: its longest list of modules that have a part `mlp`.

    Raises:
        ConfigError: there is none.
    """
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part)]
    found = [part for part in lists if all(hasattr(layer, "mlp") for layer in part)]
    if not found:
        raise ConfigError(f"language.name: {type(model).__name__} has no layers with a part 'mlp'")
    return max(found, key=len)
