"""From the states of a text's tokens to its vector: by name, or as the files of a sentence-transformers model say.

modules.json                 the modules of a model in their order: Transformer, Pooling, and perhaps Dense, Normalize;
                             or StaticEmbedding in the place of the first two
sentence_bert_config.json    beside the transformer: max_seq_length, do_lower_case
N_Pooling/config.json        which states are pooled; of several the vectors are joined
N_Dense/                     config.json (activation_function) and model.safetensors (linear.weight, linear.bias)

Letters: B texts, L tokens, M width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.errors import ConfigError

MODULES = "modules.json"
NAMES = {
    "cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken",
}  # fmt: skip
"""Poolings in the order in which their vectors are joined, and how a file's flags name them."""
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda vector: vector, "Tanh": torch.tanh, "ReLU": torch.relu, "GELU": nn.functional.gelu,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer behind the pooling, and its activation."""

    weight_OM: Tensor
    bias_O: Tensor | None
    activation: str

    def __call__(self, vector_BM: Tensor) -> Tensor:
        """Return (B, O)."""
        to = vector_BM.device
        bias = None if self.bias_O is None else self.bias_O.to(to)
        return ACTIVATIONS[self.activation](nn.functional.linear(vector_BM, self.weight_OM.to(to), bias))


@dataclass(frozen=True, slots=True)
class Pooling:
    """What makes a vector of a text's states, and what is done to the text before."""

    modes: tuple[str, ...]
    after: tuple[Dense | None, ...] = ()
    """Layers behind it; None divides a vector by its length."""
    longest: int | None = None
    """Tokens of a text at most."""
    lower: bool = False
    prompt: str = ""
    """What every text begins with."""
    folder: str = ""
    """Where the transformer lies in the model's folder."""
    static: bool = False
    """Whether there is no transformer: each token has one vector, whatever stands beside it."""

    def before(self, text: str) -> str:
        """Return a text as the tokenizer gets it."""
        return self.prompt + (text.lower() if self.lower else text)

    def __call__(self, state_BLM: Tensor, mask_BL: Tensor) -> np.ndarray:
        """Return (B, M) float32; `mask_BL` is 1 at tokens that are no padding."""
        vector = torch.cat([_pooled(state_BLM.float(), mask_BL, mode) for mode in self.modes], 1)
        for layer in self.after:
            vector = nn.functional.normalize(vector, dim=1) if layer is None else layer(vector)
        return np.asarray(vector.float().cpu().numpy())


def _pooled(state_BLM: Tensor, mask_BL: Tensor, mode: str) -> Tensor:
    mask_BL1 = mask_BL[..., None].float()
    rows = torch.arange(len(mask_BL), device=mask_BL.device)
    if mode == "cls":
        return state_BLM[rows, mask_BL.argmax(1)]
    if mode == "lasttoken":
        return state_BLM[rows, mask_BL.shape[1] - 1 - mask_BL.flip(1).argmax(1)]
    if mode == "max":
        return state_BLM.masked_fill(mask_BL1 == 0, -1e9).amax(1)
    if mode == "weightedmean":
        mask_BL1 = mask_BL1 * torch.arange(1, mask_BL.shape[1] + 1, device=mask_BL.device)[:, None]
    count_B1 = mask_BL1.sum(1).clamp(min=1)
    total_BM = (state_BLM * mask_BL1).sum(1)
    return total_BM / (count_B1.sqrt() if mode == "mean_sqrt_len_tokens" else count_B1)


def pooling_of(name: str, pooling: str) -> Pooling:
    """Return the pooling of a model by name or path: "mean", "cls", or "own", which its files tell, else the mean.

    Raises:
        ConfigError: its files name what is not known here.
    """
    modules = _json(name, MODULES)
    if modules is None:
        return Pooling(("mean" if pooling == "own" else pooling,))
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ConfigError(f"text.encoder: {name}/{MODULES} is no list of modules")
    kinds = [str(module.get("type")).rsplit(".", 1)[-1] for module in modules]
    static = kinds[:1] == ["StaticEmbedding"]
    if static and pooling == "cls":
        raise ConfigError(f'text.pooling: {name} has no state of a first token; expected "mean" or "own"')
    if not static and pooling != "own":
        return Pooling((pooling,))
    behind = 1 if static else 2
    if not (static or kinds[:2] == ["Transformer", "Pooling"]) or set(kinds[behind:]) - {"Dense", "Normalize"}:
        raise ConfigError(
            f"text.encoder: {name}/{MODULES} names {', '.join(kinds)}; expected Transformer and Pooling, or "
            'StaticEmbedding, and then Dense and Normalize at most (pooling="mean" takes a transformer alone)'
        )
    paths = [str(module.get("path") or "") for module in modules]
    text = _json(name, below(paths[0], "sentence_bert_config.json")) or {}
    layers = zip(kinds[behind:], paths[behind:], strict=True) if pooling == "own" else ()
    after = [_dense(name, path) if kind == "Dense" else None for kind, path in layers]
    prompts = _json(name, "config_sentence_transformers.json") or {}
    default = prompts.get("default_prompt_name")
    return Pooling(
        ("mean",) if static else _modes(name, paths[1]),
        tuple(after),
        text.get("max_seq_length"),
        bool(text.get("do_lower_case", False)),
        str(prompts.get("prompts", {})[default]) if default and pooling == "own" else "",
        paths[0],
        static,
    )


def _modes(name: str, path: str) -> tuple[str, ...]:
    file = below(path, "config.json")
    told = _json(name, file) or {}
    given = told.get("pooling_mode")
    modes: Sequence[str] = [given] if isinstance(given, str) else given or ()
    modes = modes or [mode for mode, flag in NAMES.items() if told.get(f"pooling_mode_{flag}")]
    if not modes or set(modes) - set(NAMES):
        raise ConfigError(f"text.encoder: {name}/{file} pools by {modes or 'nothing'}; expected {', '.join(NAMES)}")
    return tuple(modes)


def _dense(name: str, path: str) -> Dense:
    from safetensors.torch import load_file

    told = _json(name, below(path, "config.json")) or {}
    activation = str(told.get("activation_function", "Identity")).rsplit(".", 1)[-1]
    file = file_of(name, below(path, "model.safetensors"))
    if activation not in ACTIVATIONS or file is None:
        raise ConfigError(
            f"text.encoder: {name}/{path} needs model.safetensors and an activation among {', '.join(ACTIVATIONS)}; "
            f"found {activation}, {'no such file' if file is None else 'the file'}"
        )
    tensors = load_file(file)
    return Dense(tensors["linear.weight"].float(), tensors.get("linear.bias"), activation)


def below(path: str, file: str) -> str:
    """Return the name of a file in a folder, "" being the model's own."""
    return f"{path}/{file}" if path else file


def file_of(name: str, file: str) -> str | None:
    """Return where a file of a model lies, None where it has none."""
    from transformers.utils import cached_file

    found: str | None = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return found


def _json(name: str, file: str) -> Any:
    found = file_of(name, file)
    if found is None:
        return None
    try:
        with open(found, encoding="utf-8") as stream:
            return json.load(stream)
    except ValueError as error:
        raise ConfigError(f"text.encoder: {name}/{file} is not JSON ({error})") from error
