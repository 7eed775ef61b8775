"""How texts of GaVaMoE came about: the gate of each pair, and the experts that each token was written by.

Letters: B pairs, K tokens that are no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from rec.moe.layer import routings
from rec.nn.decoding import HALF
from rec.systems.capabilities import Token, Traced
from rec.systems.gavamoe.batch import ReviewBatch
from rec.systems.gavamoe.model import GaVaMoEModel


@torch.no_grad()
def trace(module: GaVaMoEModel, batch: ReviewBatch, texts: Sequence[str]) -> list[Traced]:
    """Return each pair's gate, and the experts of each token of its text in every gated layer."""
    told = replace(batch, text=tuple(texts))
    prompt, pairs = module.asked(told)
    with routings(module.writer) as heard:
        module.written(told)
    tokens = module.prompter.tokens
    prompt_B = (prompt.of(pairs.rating_B) >= 0).sum(1).tolist()
    experts = {name: routing.experts() for name, routing in heard.items()}
    found, place = [], 0
    for row, answer in enumerate(prompt.answer_BA.tolist()):
        read = [token for token in answer if token >= 0]
        # The last token of the prompt scores the first of the text; the text's own last one is scored, but not read.
        first = place + prompt_B[row] - 1
        read = [token for token in read if token != tokens.end]
        parts = [
            Token(text=piece, experts={name: told[first + number] for name, told in experts.items()})
            for number, piece in enumerate(pieces(read, tokens.tokenizer.decode))
        ]
        place += prompt_B[row] + max(sum(token >= 0 for token in answer) - 1, 0)
        found.append(Traced(gate=f"cluster {int(pairs.cluster_B[row])}", tokens=parts))
    return found


def pieces(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Return what each token adds to a text; of a letter that several tokens spell, the last one adds it."""
    found, said = [], ""
    for number in range(len(tokens)):
        text = decode(tokens[: number + 1])
        whole = number + 1 == len(tokens) or not text.endswith(HALF)
        piece = text[len(said) :] if whole and text.startswith(said) else ""
        found.append(piece)
        said += piece
    return found
