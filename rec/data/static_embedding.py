"""Models of sentence-transformers without a transformer: a vector per token, of which a text's is the mean.

tokenizer.json       of the tokenizers library
model.safetensors    `embedding.weight`, or as model2vec files them: `embeddings`, and perhaps `mapping` and `weights`
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from rec.data.pooling import below, file_of


class StaticEmbedding(nn.Module):
    """Tokens to their vectors, with the interface of a transformers model.

    Args:
        weight_VM: A vector for each of a tokenizer's V tokens.
    """

    def __init__(self, weight_VM: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(weight_VM)

    def forward(self, input_ids: Tensor, **_: Tensor) -> SimpleNamespace:
        """Return (B, L, M) as `last_hidden_state`, of (B, L) tokens."""
        return SimpleNamespace(last_hidden_state=self.embedding(input_ids))


def static_embedding(name: str, folder: str) -> tuple[Any, StaticEmbedding]:
    """Return tokenizer and model by name or path.

    Args:
        name: Of the model on the hub, or its folder.
        folder: Where its embeddings lie below it.

    Raises:
        OSError: a file is missing.
        ValueError: the file of weights holds none, or not one for each token.
    """
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    found = {file: file_of(name, below(folder, file)) for file in ("tokenizer.json", "model.safetensors")}
    if missing := [file for file, path in found.items() if path is None]:
        raise OSError(f"{below(folder, missing[0])} is missing")
    bare = Tokenizer.from_file(str(found["tokenizer.json"]))
    bare.post_processor = None  # no tokens around a text: they would be part of its mean
    weight_VM = _folded(load_file(str(found["model.safetensors"])))
    if len(weight_VM) < bare.get_vocab_size():
        raise ValueError(f"{len(weight_VM):,} vectors for {bare.get_vocab_size():,} tokens")
    # What fills up short texts is masked: any token does.
    return PreTrainedTokenizerFast(tokenizer_object=bare, pad_token=bare.id_to_token(0)), StaticEmbedding(weight_VM)


def _folded(tensors: dict[str, Tensor]) -> Tensor:
    """Return a vector for each token, (V, M) float32."""
    if "embedding.weight" in tensors:
        return tensors["embedding.weight"].float()
    if "embeddings" not in tensors:
        raise ValueError(f"no embedding.weight nor embeddings among {', '.join(sorted(tensors)) or 'no tensors'}")
    weight_VM = tensors["embeddings"].float()
    if "mapping" in tensors:
        weight_VM = weight_VM[tensors["mapping"].to(torch.long)]
    return weight_VM * tensors["weights"].float()[:, None] if "weights" in tensors else weight_VM
