"""Decoding with a cache: against reading everything again, exhaustive search, and transformers' own."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch

from rec.nn.decoding import Decoding, decode, draw, write
from tests.support.small_language import Cached, Chain, Uncached, llama, padded

END = 0
PROMPTS = [[5, 9, 3], [7], [10, 4, 11, 8, 2], [5, 9, 3, 1], [6, 6], [3, 2, 9, 9, 1, 4, 6], [11], [2, 3]]
WAYS = {
    "greedy": Decoding(max_tokens=12),
    "drawn": Decoding(max_tokens=12, temperature=1.3, seed=4),
    "nucleus": Decoding(max_tokens=12, temperature=1.3, top_p=0.7, seed=4),
    "beams": Decoding(max_tokens=12, beams=3),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return llama()


def names(rows: int) -> list[str]:
    return [f"row {row}" for row in range(rows)]


def tokens(stepper: Any, batch: Any, decoding: Decoding, **more: Any) -> list[list[int]]:
    return decode(stepper, batch, decoding, names=names(len(batch)), end=END, **more)


@pytest.mark.parametrize("how", WAYS)
def test_with_the_cache_as_without(model, how) -> None:
    found = tokens(Cached(model), PROMPTS, WAYS[how])
    assert found == tokens(Uncached(model), PROMPTS, WAYS[how])
    assert len({len(text) for text in found}) > 1
    assert len(set(map(tuple, found))) == len(found)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("stays", [False, True])
def test_a_text_does_not_depend_on_its_company(model, how, stays) -> None:
    together = tokens(Cached(model), PROMPTS, WAYS[how], stays=stays)
    for row, prompt in enumerate(PROMPTS):
        assert decode(Cached(model), [prompt], WAYS[how], names=[f"row {row}"], end=END) == [together[row]]
    order = [6, 2, 0, 4]
    some = [PROMPTS[row] for row in order]
    named = [f"row {row}" for row in order]
    found = decode(Cached(model), some, WAYS[how], names=named, end=END)
    assert found == [together[row] for row in order]


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (2, 1.0), (5, 1.0), (4, 0.0), (3, 0.5), (4, 2.5), (4, -1.5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_texts_are_those_of_transformers(beams, penalty, seed) -> None:
    model, length = llama(seed=seed), 10
    word_BT, there_BT = padded(PROMPTS)
    told: dict[str, Any] = {"early_stopping": "never", "length_penalty": penalty} if beams > 1 else {}
    rows = model.generate(
        word_BT, attention_mask=there_BT, max_new_tokens=length, num_beams=beams, do_sample=False, **told
    )[:, word_BT.shape[1] :].tolist()
    wanted = [row[: row.index(END)] if END in row else row for row in rows]
    decoding = Decoding(max_tokens=length, beams=beams, length_penalty=penalty)
    assert tokens(Cached(model), PROMPTS, decoding) == wanted


def best_by_search(chain: Chain, start: int, most: int, penalty: float) -> tuple[int, ...]:
    """Return the text with the highest log probability over length to the power of `penalty` of all there are."""
    words, worth = len(chain.score_WW), {}
    log_WW = chain.score_WW.log_softmax(1)
    for length in range(1, most + 1):
        for text in product(range(words), repeat=length):
            if END in text[:-1] or (text[-1] != END and length < most):
                continue
            path = zip((start, *text), text, strict=False)
            worth[text] = sum(float(log_WW[a, b]) for a, b in path) / length**penalty
    best = max(worth, key=worth.__getitem__)
    return best[:-1] if best[-1] == END else best


@pytest.mark.parametrize(("seed", "penalty"), [*((seed, 1.0) for seed in range(6)), (0, 0.0), (1, 3.0), (2, -2.0)])
def test_with_enough_beams_the_best_of_all_texts_is_found(seed, penalty) -> None:
    words, most = 4, 4
    chain = Chain(words, seed, sharpness=1.5)
    start = torch.arange(words)
    found = tokens(chain, start, Decoding(max_tokens=most, beams=words**most, length_penalty=penalty))
    assert [tuple(text) for text in found] == [best_by_search(chain, one, most, penalty) for one in range(words)]


def test_a_higher_length_penalty_asks_for_longer_texts() -> None:
    chain, start = Chain(8, 2, sharpness=1.0), torch.arange(1, 8)
    lengths = []
    for penalty in (-5.0, 0.0, 1.0, 5.0):
        found = tokens(chain, start, Decoding(max_tokens=9, beams=40, length_penalty=penalty))
        lengths.append(sum(map(len, found)))
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[2] < lengths[3]


def test_more_beams_find_no_worse_a_text_and_some_find_a_better_one() -> None:
    chain, most = Chain(30, 1, sharpness=2.0), 6
    start, log_WW = torch.arange(30), chain.score_WW.log_softmax(1)

    def worths(beams: int) -> list[float]:
        found = tokens(chain, start, Decoding(max_tokens=most, beams=beams))
        closed = [[*text, END] if len(text) < most else text for text in found]
        return [
            sum(float(log_WW[a, b]) for a, b in zip([one, *text], text, strict=False)) / len(text)
            for one, text in enumerate(closed)
        ]

    few, many = worths(1), worths(30)
    assert sum(b > a + 1e-9 for a, b in zip(few, many, strict=True)) > 5
    assert all(b > a - 1e-6 for a, b in zip(few, many, strict=True))


@pytest.mark.parametrize(("stays", "kept"), [(False, [3, 3, 2, 1]), (True, [3, 3, 3, 3, 3])])
def test_rows_that_ended_leave_the_batch_unless_they_are_to_stay(stays, kept) -> None:
    chain = Chain(6, 0)
    chain.score_WW = torch.full((6, 6), -9.0).scatter(1, torch.tensor([[0], [0], [1], [2], [3], [4]]), 9.0)
    asked: list[bool] = []

    def all_done(done: bool) -> bool:
        asked.append(done)
        return len(asked) == 6

    found = tokens(chain, torch.tensor([2, 4, 3]), Decoding(max_tokens=8), stays=stays, all_done=all_done)
    assert found == [[1], [3, 2, 1], [2, 1]]
    assert asked == [False, False, False, True, True, True]
    assert chain.rows == [*kept, *([3] if stays else [])]


@pytest.mark.parametrize("beams", [1, 3])
def test_workers_that_wait_for_others_ask_once_a_token_to_the_last(beams) -> None:
    chain, asked = Chain(5, 0), []
    decoding = Decoding(max_tokens=7, beams=beams)
    wanted = tokens(chain, torch.arange(5), decoding)
    found = tokens(chain, torch.arange(5), decoding, stays=True, all_done=lambda done: bool(asked.append(done)))
    assert found == wanted
    assert len(asked) == 7
    assert len(chain.rows) == 7
    assert len(set(chain.rows[1:])) == 1


def test_drawn_tokens_are_as_frequent_as_they_are_probable() -> None:
    score_W = torch.tensor([0.5, -1.0, 2.0, 0.0, -math.inf])
    chance_R = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    score_RW = score_W.expand(10_000, -1)
    count_W = torch.bincount(draw(score_RW, temperature=0.8, top_p=1.0, chance_R=chance_R), minlength=5)
    torch.testing.assert_close(count_W / 10_000, (score_W / 0.8).softmax(0), atol=1e-4, rtol=0)
    # exp(2), exp(0.5) and exp(0) are 0.71, 0.16 and 0.10 of all: two of them hold 0.8, one does not.
    counts = {0.7: [2], 0.8: [0, 2], 0.88: [0, 2, 3], 1.0: [0, 1, 2, 3]}
    for top_p, kept in counts.items():
        count_W = torch.bincount(draw(score_RW, temperature=1.0, top_p=top_p, chance_R=chance_R), minlength=5)
        wanted_W = torch.zeros(5)
        wanted_W[kept] = score_W[kept].softmax(0)
        torch.testing.assert_close(count_W / 10_000, wanted_W, atol=1e-4, rtol=0)
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(score_RW[:2], temperature=1.0, top_p=0.7, chance_R=ends).tolist() == [2, 2]
    assert draw(score_RW[:2], temperature=1.0, top_p=1.0, chance_R=ends).tolist() == [0, 3]


def test_what_is_drawn_follows_the_seed_and_begins_alike_at_any_length() -> None:
    chain, start = Chain(50, 3), torch.arange(50)
    wanted = tokens(chain, start, Decoding(max_tokens=20, temperature=1.0, seed=5))
    assert tokens(chain, start, Decoding(max_tokens=20, temperature=1.0, seed=5)) == wanted
    short = tokens(chain, start, Decoding(max_tokens=4, temperature=1.0, seed=5))
    assert short == [text[:4] for text in wanted]
    other = tokens(chain, start, Decoding(max_tokens=20, temperature=1.0, seed=6))
    assert sum(a == b for a, b in zip(other, wanted, strict=True)) < 10
    first = Counter(text[0] for text in wanted if text)
    assert len(first) > 15


def spelled(found: Sequence[int]) -> str:
    """Return some bytes as text, as tokenizers of bytes do it."""
    return bytes(found).decode("utf-8", errors="replace")


class Says:
    """Says some texts byte by byte, and then a byte 0 for ever."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [text.encode() for text in texts]
        self.held: list[int] = []

    def start(self, batch: Sequence[int]) -> tuple[torch.Tensor, "Said"]:
        return self._next(state := Said(list(batch), 0)), state

    def step(self, token_R: torch.Tensor, state: "Said") -> tuple[torch.Tensor, "Said"]:
        state.place += 1
        return self._next(state), state

    def _next(self, state: "Said") -> torch.Tensor:
        self.held.append(len(state.rows))
        bytes_R = torch.tensor([(self.texts[row] + bytes(40))[state.place] for row in state.rows])
        return torch.nn.functional.one_hot(bytes_R, 256).float() * 50


class Said:
    def __init__(self, rows: list[int], place: int) -> None:
        self.rows, self.place = rows, place

    def reorder(self, row_R: torch.Tensor) -> None:
        self.rows = [self.rows[row] for row in row_R.tolist()]


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("most", [40, 6])
def test_pieces_are_whole_letters_and_add_up_to_the_text(beams, most) -> None:
    texts = ["für Öl", "naïve 漢字", "", "plain"]
    heard: list[list[str]] = []
    decoding = Decoding(max_tokens=most, beams=beams)
    found = write(
        Says(texts), range(4), decoding, names=names(4), end=END, spell=spelled, heard=lambda p: heard.append([*p])
    )
    assert found == [spelled(text.encode()[:most]) for text in texts]
    assert ["".join(pieces) for pieces in zip(*heard, strict=True)] == found
    assert len(heard) > 5
    if most == 40:
        assert all("\ufffd" not in piece for pieces in heard for piece in pieces)
        assert beams > 1 or [pieces[0] for pieces in heard[1:3]] == ["", "ü"]


def test_few_rows_that_ended_wait_until_it_is_worth_their_leaving() -> None:
    says = Says(["a" * length for length in (*range(16), *[15] * 16)])
    found = decode(says, range(32), Decoding(max_tokens=40), names=names(32), end=END)
    assert [len(text) for text in found] == [*range(16), *[15] * 16]
    # More than an eighth has to have ended: 5 of 32, 4 of 27, 3 of 23, 3 of 20; the last 17 end at once.
    assert says.held == [32] * 5 + [27] * 4 + [23] * 3 + [20] * 3 + [17]


def test_nothing_is_asked_of_no_examples_but_whether_all_have_ended() -> None:
    asked: list[bool] = []
    found = tokens(Chain(4, 0), torch.zeros(0, dtype=torch.int64), Decoding(max_tokens=3), all_done=asked.append)
    assert found == []
    assert asked == [True] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"beams": 0},
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"beams": 2, "temperature": 0.5},
        {"beams": 2, "length_penalty": math.inf},
        {"length_penalty": math.nan},
    ],
)
def test_what_cannot_be_decoded_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        Decoding(**wrong)
