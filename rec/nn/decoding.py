"""Decoding: texts drawn token by token from a model that keeps what it has read, as keys and values in a cache.

Letters: B examples of a batch, R rows in the model (examples or their beams), W words of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from rec.seeds import generator

B = TypeVar("B", contravariant=True)
LEAVE = 0.125
"""Share of a batch above which rows that have ended leave it: keys and values of the others are copied then."""
HALF = "\ufffd"
"""What a tokenizer writes for a letter of which bytes are still missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How text is drawn from a model.

    Raises:
        ValueError: a value is out of its range, or tokens are to be drawn at random in a beam search.
    """

    max_tokens: int = 32
    temperature: float = 0.0
    """0 takes the most probable token each time."""
    seed: int = 0
    top_p: float = 1.0
    """Tokens are drawn from the fewest that hold this share of the probability, where the temperature is above 0."""
    beams: int = 1
    """Texts that are followed at once in a search for the one of the highest worth: the logarithm of its probability,
    over its number of tokens to the power of `length_penalty`."""
    length_penalty: float = 1.0
    """1 asks for the highest mean log probability per token, 0 for the most probable text, more than 1 for longer ones.
    It is what transformers calls so."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.beams < 1:
            raise ValueError(f"expected max_tokens and beams of at least 1, got {self.max_tokens} and {self.beams}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"expected a temperature of at least 0 and a top_p in (0, 1], got {self.temperature} and {self.top_p}"
            )
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"expected a length_penalty that is finite, got {self.length_penalty}")
        if self.beams > 1 and self.temperature > 0:
            raise ValueError("a beam search draws nothing at random: expected a temperature of 0 or one beam")


class State(Protocol):
    """What a model keeps of the rows that it has read: keys and values, lengths, clusters."""

    def reorder(self, row_R: Tensor) -> None:
        """Hold these rows (int64, on the model's device) in this order: fewer, more, or some of them several times."""


S = TypeVar("S", bound=State)


class Stepper(Protocol[B, S]):
    """A model that is asked one token at a time; scores are logits, in any float type."""

    def start(self, batch: B) -> tuple[Tensor, S]:
        """Read what comes before each example's text; return the scores of its first token, (B, W), and the state."""

    def step(self, token_R: Tensor, state: S) -> tuple[Tensor, S]:
        """Read one token (int64) of each row that the state holds; return the next one's scores, (R, W), and the state.

        The state that was given may be changed in place.
        """


def write(
    stepper: Stepper[B, S],
    batch: B,
    decoding: Decoding,
    *,
    names: Sequence[str],
    end: int,
    spell: Callable[[Sequence[int]], str],
    stays: bool = False,
    all_done: Callable[[bool], bool] = bool,
    heard: Callable[[Sequence[str]], None] | None = None,
) -> list[str]:
    """Return the text of each example.

    Args:
        stepper: The model.
        batch: What it starts from.
        decoding: How tokens are drawn.
        names: What each example's random numbers follow from, such as its user and item: never from its company.
        end: The token that ends a text.
        spell: Returns the text of some tokens; that of more tokens has to start with that of fewer.
        stays: Whether examples that have ended stay in the batch; see `decode`.
        all_done: Tells whether all workers have ended, given whether this one has; asked once a token.
        heard: Receives, after every token, what each example has got since the last call: for streamed answers.
    """
    pieces = None if heard is None else _Pieces(len(names), spell, heard)
    told = None if pieces is None else pieces.tell
    token_BT = decode(stepper, batch, decoding, names=names, end=end, stays=stays, all_done=all_done, told=told)
    if pieces is not None:
        pieces.finish(token_BT)
    return [spell(tokens) for tokens in token_BT]


@torch.no_grad()
def decode(
    stepper: Stepper[B, S],
    batch: B,
    decoding: Decoding,
    *,
    names: Sequence[str],
    end: int,
    stays: bool = False,
    all_done: Callable[[bool], bool] = bool,
    told: Callable[[Sequence[Sequence[int]]], None] | None = None,
) -> list[list[int]]:
    """Return the tokens of each example's text, without the one that ends it.

    Examples that have ended leave the batch. Where experts are spread over workers they are to stay (`stays`), as all
    workers then ask the model equally often; `all_done` is asked equally often in any case.

    Args:
        stepper: The model.
        batch: What it starts from.
        decoding: How tokens are drawn.
        names: What each example's random numbers follow from.
        end: The token that ends a text.
        stays: Whether examples that have ended stay in the batch.
        all_done: Tells whether all workers have ended, given whether this one has.
        told: Receives, after every token, what is sure of each example's tokens so far: to be read, not to be kept.
    """
    kind = _Beams if decoding.beams > 1 else _Drawn
    texts = kind(decoding, names, end)
    score_RW, state = stepper.start(batch)
    for place in range(decoding.max_tokens):
        last = place + 1 == decoding.max_tokens
        if texts.rows:
            texts.take(score_RW, place, last=last)
        if told is not None:
            told(texts.sure())
        if all_done(texts.ended) or last:
            break
        row_R, token_R = texts.following(stays=stays)
        if not token_R:
            continue
        if row_R is not None:
            state.reorder(torch.tensor(row_R, device=score_RW.device))
        score_RW, state = stepper.step(torch.tensor(token_R, device=score_RW.device), state)
    return texts.found()


def draw(score_RW: Tensor, *, temperature: float, top_p: float, chance_R: Tensor) -> Tensor:
    """Return one token of each row, int64 (R,): the one at `chance_R`, float64 in [0, 1), of all that is probable."""
    probability_RW = (score_RW.float() / temperature).softmax(1).double()
    order_RW = None
    if top_p < 1:
        probability_RW, order_RW = probability_RW.sort(dim=1, descending=True, stable=True)
        before_RW = probability_RW.cumsum(1) - probability_RW
        probability_RW = probability_RW.masked_fill(before_RW >= top_p, 0.0)
    upto_RW = probability_RW.cumsum(1)
    token_R1 = torch.searchsorted(upto_RW, chance_R[:, None] * upto_RW[:, -1:], right=True)
    return (token_R1 if order_RW is None else order_RW.gather(1, token_R1))[:, 0]


class _Drawn:
    """Texts of which each follows one way: the most probable token, or one that is drawn."""

    def __init__(self, decoding: Decoding, names: Sequence[str], end: int) -> None:
        self.decoding, self.end = decoding, end
        self.token_BT: list[list[int]] = [[] for _ in names]
        self.rows = list(range(len(names)))
        """The examples in the model."""
        self.last_R: list[int] = []
        self.open = set(self.rows)
        """The examples that have not ended."""
        self.chance_BT: Tensor | None = None
        if decoding.temperature > 0 and names:
            chances = [generator(decoding.seed, "write", name).random(decoding.max_tokens) for name in names]
            self.chance_BT = torch.tensor(np.array(chances))

    @property
    def ended(self) -> bool:
        return not self.open

    def take(self, score_RW: Tensor, place: int, *, last: bool) -> None:
        """Take the next token of each row."""
        if self.chance_BT is None:
            token_R = score_RW.argmax(1)
        else:
            chance_R = self.chance_BT[self.rows, place].to(score_RW.device)
            how = self.decoding
            token_R = draw(score_RW, temperature=how.temperature, top_p=how.top_p, chance_R=chance_R)
        self.last_R = token_R.tolist()
        for row, (example, token) in enumerate(zip(self.rows, self.last_R, strict=True)):
            if example not in self.open:
                self.last_R[row] = self.end
            elif token == self.end:
                self.open.remove(example)
            else:
                self.token_BT[example].append(token)

    def following(self, *, stays: bool) -> tuple[list[int] | None, list[int]]:
        """Return which rows go on, None where all do in their order, and the token that each of them reads."""
        gone = len(self.rows) - len(self.open)
        if stays or (self.open and gone <= LEAVE * len(self.rows)):
            return None, self.last_R
        kept = [row for row, example in enumerate(self.rows) if example in self.open]
        self.rows, self.last_R = [self.rows[row] for row in kept], [self.last_R[row] for row in kept]
        return kept, self.last_R

    def sure(self) -> Sequence[Sequence[int]]:
        return self.token_BT

    def found(self) -> list[list[int]]:
        return self.token_BT


@dataclass(frozen=True, slots=True)
class _Beam:
    """A text that is followed."""

    score: float
    """The logarithm of its probability."""
    tokens: tuple[int, ...]
    row: int
    """Where its beginning stands among the rows of its example."""


class _Beams:
    """The best texts of each example, `beams` of them side by side, until no longer one can be better than the best.

    A text's worth is told by `length_penalty`; the token that ends it is among its tokens.
    """

    def __init__(self, decoding: Decoding, names: Sequence[str], end: int) -> None:
        self.beams, self.most, self.end = decoding.beams, decoding.max_tokens, end
        self.length_penalty = decoding.length_penalty
        self.rows = list(range(len(names)))
        """The examples in the model, which holds as many rows of each."""
        self.each = 1
        self.beam_BK = [[_Beam(0.0, (), 0)] for _ in names]
        self.best_B: list[tuple[float, tuple[int, ...]] | None] = [None] * len(names)
        self.open = set(self.rows)

    @property
    def ended(self) -> bool:
        return not self.open

    def take(self, score_RW: Tensor, place: int, *, last: bool) -> None:
        """Follow each text by its most probable tokens, and keep the best."""
        words = score_RW.shape[1]
        upto = [[beam.score for beam in self.beam_BK[example]] for example in self.rows]
        total_RW = score_RW.float().log_softmax(1) + torch.tensor(upto, device=score_RW.device).view(-1, 1)
        total_BN = total_RW.view(len(self.rows), -1)
        score_BN, place_BN = total_BN.topk(min(2 * self.beams, total_BN.shape[1]), dim=1)
        for example, scores, places in zip(self.rows, score_BN.tolist(), place_BN.tolist(), strict=True):
            if example in self.open:
                ways = [(score, *divmod(place, words)) for score, place in zip(scores, places, strict=True)]
                self._follow(example, [way for way in ways if way[0] > -math.inf], last=last)

    def _follow(self, example: int, ways: Sequence[tuple[float, int, int]], *, last: bool) -> None:
        """Take an example's next texts: score, row and token of each, the best first."""
        beams: list[_Beam] = []
        for number, (score, row, token) in enumerate(ways):
            before = self.beam_BK[example][row].tokens
            if token == self.end or last:
                best, worth = self.best_B[example], self._worth(score, len(before) + 1)
                if number < self.beams and (best is None or worth > best[0]):
                    self.best_B[example] = worth, before if token == self.end else (*before, token)
            elif len(beams) < self.beams:
                beams.append(_Beam(score, (*before, token), row))
        best = self.best_B[example]
        if not beams or (best is not None and best[0] >= self._reach(beams[0])):
            self.open.remove(example)
            beams = [_Beam(-math.inf, (self.end,), 0)]
        # Every example in the model has as many rows; those in excess lead nowhere.
        beams += [replace(beams[0], score=-math.inf)] * (self.beams - len(beams))
        self.beam_BK[example] = beams

    def _worth(self, score: float, length: int) -> float:
        return score / float(length) ** self.length_penalty

    def _reach(self, beam: _Beam) -> float:
        """Return the most that a text which begins so may be worth."""
        return self._worth(beam.score, self.most if self.length_penalty > 0 else len(beam.tokens) + 1)

    def following(self, *, stays: bool) -> tuple[list[int], list[int]]:
        """Return which rows go on, in their order, and the token that each of them reads."""
        kept = [(n * self.each, example) for n, example in enumerate(self.rows) if stays or example in self.open]
        self.rows, self.each = [example for _, example in kept], self.beams
        beams = [(first, beam) for first, example in kept for beam in self.beam_BK[example]]
        return [first + beam.row for first, beam in beams], [beam.tokens[-1] for _, beam in beams]

    def sure(self) -> Sequence[Sequence[int]]:
        """Return how all texts begin that an example may still get."""
        found: list[Sequence[int]] = []
        for example, best in enumerate(self.best_B):
            texts = [] if best is None else [best[1]]
            if example in self.open:
                texts += [beam.tokens for beam in self.beam_BK[example] if beam.score > -math.inf]
            found.append(_beginning(texts))
        return found

    def found(self) -> list[list[int]]:
        return [[] if best is None else list(best[1]) for best in self.best_B]


def _beginning(texts: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return what all of some texts begin with."""
    length = 0
    for tokens in zip(*texts, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return texts[0][:length] if texts else ()


class _Pieces:
    """What is new in texts that grow."""

    def __init__(
        self, rows: int, spell: Callable[[Sequence[int]], str], heard: Callable[[Sequence[str]], None]
    ) -> None:
        self.spell, self.heard = spell, heard
        self.said_B, self.length_B = [""] * rows, [0] * rows

    def tell(self, token_BT: Sequence[Sequence[int]], *, whole: bool = False) -> None:
        """Tell what each text has got; of a letter that is half there nothing, unless the texts are whole."""
        pieces = [""] * len(token_BT)
        for row, tokens in enumerate(token_BT):
            if len(tokens) == self.length_B[row] and not whole:
                continue
            self.length_B[row], text = len(tokens), self.spell(tokens)
            if text.startswith(self.said_B[row]) and (whole or not text.endswith(HALF)):
                pieces[row], self.said_B[row] = text[len(self.said_B[row]) :], text
        if any(pieces) or not whole:
            self.heard(pieces)

    def finish(self, token_BT: Sequence[Sequence[int]]) -> None:
        """Tell what is left of whole texts."""
        self.tell(token_BT, whole=True)
