"""Memory that training a causal language model with gated experts takes, from shapes alone.

Letters: D width, F hidden width of a network or an expert, E experts, C clusters, W words, k experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from rec.nn.language.causal import decoder_layers, is_attention, skeleton
from rec.nn.language.config import LanguageConfig
from rec.nn.language.gated import GatedConfig, expert_width
from rec.nn.memory import FULL, HALF, Memory, Parameters
from rec.train.config import ParallelConfig, TrainConfig

NARROW, WIDE = 6, 4
"""Numbers of D that attention and norms of a layer keep for a token until the backward: in the model's precision, and
always in float32."""
FEED_FORWARD, SLOT, ROUTE, ROUTING = 4, 2, 17, 100
"""What a network keeps of a token, in F; each chosen expert more, in D; the gate, in E, and its bookkeeping, both in
float32."""
SCORES, AROUND = 4, 3
"""What the loss keeps and makes at once of a token's scores, in W and float32; what is outside of layers, in D."""
BACKWARD = 2
"""What a layer's backward makes at once of a token, in F of every network that it passes, and in D."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSize:
    """How much text a worker handles at once."""

    prompt: int
    """Tokens of a prompt."""
    answer: int
    """Most tokens of an answer."""
    evaluated: int
    """Texts that are written at once in evaluation."""


def language_memory(
    config: LanguageConfig,
    experts: GatedConfig,
    train: TrainConfig,
    parallel: ParallelConfig,
    texts: TextSize,
    *,
    clusters: int,
    vocabulary: int,
    given: int = 0,
    frozen: int = 0,
) -> Memory:
    """Return the bytes that a worker needs.

    `given` is the width of the two vectors that are told in the places of tokens, `frozen` the number of parameters
    beside the model's that are not trained.
    """
    model = skeleton(config, vocabulary)
    held = parameters(model, config, experts, clusters=clusters, given=given, frozen=frozen).memory(parallel)
    width = HALF if config.dtype == "bfloat16" or parallel.precision == "bf16" else FULL
    rows = -(-train.batch_size // max(parallel.workers, 1) // train.accumulate)
    form = model.config
    length = texts.prompt + texts.answer
    if train.tokens:
        rows = min(rows, max(1, train.tokens // length))
    kv = 2 * form.num_hidden_layers * _key_width(form) * length * texts.evaluated * width
    return Memory(
        weights=held.weights,
        gradients=held.gradients,
        optimiser=held.optimiser,
        buffers=held.buffers,
        activations=_activations(model, config, experts, rows, texts, width, vocabulary),
        cache=kv,
        keeps_gradients=train.accumulate > 1 or train.tokens > 0,
    )


def parameters(
    model: Any, config: LanguageConfig, experts: GatedConfig, *, clusters: int, given: int = 0, frozen: int = 0
) -> Parameters:
    """Return how many parameters a model has once its layers are gated and LoRA is in it."""
    base = sum(parameter.numel() for parameter in model.parameters())
    width, hidden = model.config.hidden_size, model.config.intermediate_size
    layers = _gated(model, experts)
    if experts.shared == "none":
        base -= sum(p.numel() for layer in layers for p in layer.mlp.parameters())
    gates = len(layers) * (1 if experts.gates == "one" else clusters) * width * experts.total
    routed = len(layers) * experts.total * 3 * width * expert_width(hidden, experts.fine) if layers else 0
    lora = 0
    if config.lora:
        maps = [part for name, part in model.named_modules() if is_attention(name) and isinstance(part, nn.Linear)]
        lora = config.lora * sum(part.in_features + part.out_features for part in maps)
    return Parameters(
        trained=(2 * (given + 1) * width if given else 0) + gates + (lora if config.lora else base),
        frozen=frozen + (base if config.lora else 0),
        experts=routed,
        width=HALF if config.dtype == "bfloat16" else FULL,
    )


def _gated(model: Any, experts: GatedConfig) -> list[Any]:
    layers = list(decoder_layers(model))
    if not experts.experts:
        return []
    return [layers[place] for place in experts.layers or range(len(layers)) if 0 <= place < len(layers)]


def _key_width(form: Any) -> int:
    heads = getattr(form, "num_key_value_heads", None) or form.num_attention_heads
    return heads * (getattr(form, "head_dim", None) or form.hidden_size // form.num_attention_heads)


def _activations(
    model: Any, config: LanguageConfig, experts: GatedConfig, rows: int, texts: TextSize, width: int, vocabulary: int
) -> int:
    """Return the most bytes of what a step keeps and makes.

    That is at the start of its backward, or in the last layer's; where layers compute again, their inputs and what one
    of them keeps and makes.
    """
    form = model.config
    gated = len(_gated(model, experts))
    every, size, hidden = form.num_hidden_layers, form.hidden_size, form.intermediate_size
    base = (NARROW * width + WIDE * FULL) * size
    dense = FEED_FORWARD * hidden * width
    part = experts.of_row * expert_width(hidden, experts.fine)
    routed = FEED_FORWARD * part * width + SLOT * experts.of_row * size * width
    routed += (ROUTE * experts.total + ROUTING) * FULL + (size * FULL if width == HALF else 0)
    if experts.shared == "dense":
        routed += dense
    kept = every * base + (every - gated) * dense + gated * routed
    passed = max(hidden if gated < every or experts.shared == "dense" else 0, part if gated else 0)
    made = BACKWARD * (passed + size) * width
    if config.checkpointing:
        kept = every * size * width + gated * ROUTING * FULL
        made += base + max(dense if gated < every else 0, routed if gated else 0)
    tokens = rows * (texts.prompt + texts.answer)
    scores = SCORES * rows * texts.answer * vocabulary * FULL
    return tokens * (kept + AROUND * size * width) + max(scores, tokens * made)
