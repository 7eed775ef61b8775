"""A frozen pretrained model inside another: checkpoints hold a hash of its weights in the place of the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rec.errors import CheckpointError

HASH = "base_sha256"
"""Name of the buffer with the hash, and the attribute that marks the weights."""


def refer_to(model: nn.Module) -> None:
    """Mark all weights of a model as ones that are read from where it comes from, and never change."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(parameter.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        setattr(parameter, HASH, True)
    model.register_buffer(HASH, torch.tensor(list(digest.digest()), dtype=torch.uint8))


def is_referred_to(parameter: Tensor) -> bool:
    """Return whether checkpoints leave out a parameter."""
    return getattr(parameter, HASH, False) is True


def refuse_another_base(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Check that a state was made with the frozen weights that a module has.

    Raises:
        CheckpointError: it was made with others.
    """
    for name, value in module.named_buffers():
        if name.rpartition(".")[2] == HASH:
            found, wanted = (bytes(one.cpu().tolist()).hex()[:12] for one in (value, state[f"model.{name}"]))
            if found != wanted:
                raise CheckpointError(
                    f"{name.rpartition('.')[0]}: the checkpoint adapts a pretrained model whose weights have the hash "
                    f"{wanted}, but language.name loads {found} here; give the model that the run was started with"
                )
