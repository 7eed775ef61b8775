"""One seed in, named independent generators out."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the purpose that `names` spell, independent of every other purpose.

    Randomness that depends on (seed, purpose, step) alone needs no state in a checkpoint: a resumed run draws
    what the undisturbed run would have drawn.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a numpy generator for the purpose that `names` spell."""
    return np.random.default_rng(derive(seed, *names))
