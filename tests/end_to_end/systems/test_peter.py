"""PETER: conformance, what each position sees, labels, texts with the cache and without, and unknown members."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rec.nn.decoding import Decoding
from rec.nn.language.words import END, NOTHING, START, UNKNOWN, Vocabulary
from rec.systems.peter import PETER, PETERConfig, PETERModel
from rec.systems.peter.model import known_or_mean, peter_mask, sines
from tests.conformance import Conformance, take

SMALL: dict[str, Any] = {"width": 16, "hidden": 24, "words": 6}


class TestPETER(Conformance):
    system = PETER
    configs = [SMALL, SMALL | {"feature": True}, SMALL | {"vocabulary": 3, "layers": 1, "heads": 4}]

    def still(self, system: Any, module: Any) -> None:
        """Attention drops nothing."""
        for block in module.blocks:
            block.share = 0.0


def made(rows: int = 10, **keys: Any) -> tuple[PETER, dict[str, Any], PETERModel]:
    """Return a system, rows that fit it, and a model whose every parameter counts."""
    columns, tables = PETER.sample(rows, np.random.default_rng(1))
    system = PETER(PETERConfig.model_validate(SMALL | keys), tables)
    torch.manual_seed(0)
    module = system.model().eval()
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, float("norms" in name and "weight" in name), std=0.3)
    return system, dict(columns), module


def test_a_position_sees_what_is_before_it_and_the_user_sees_the_item_too() -> None:
    assert peter_mask(4).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("feature", [False, True])
def test_a_score_depends_on_no_later_word_and_a_rating_on_no_word(feature: bool) -> None:
    system, rows, module = made(feature=feature)
    with torch.inference_mode():
        before = module(system.collate(rows | {"text": ["the sound is good ."] * 10}))
        after = module(system.collate(rows | {"text": ["the sound is poor price"] * 10}))
    torch.testing.assert_close(before.rating_B, after.rating_B)
    torch.testing.assert_close(before.context_BW, after.context_BW)
    one_BTW, other_BTW = (seen.score_NW.view(10, 6, -1) for seen in (before, after))
    torch.testing.assert_close(one_BTW[:, :4], other_BTW[:, :4])
    assert not torch.isclose(one_BTW[:, 4], other_BTW[:, 4]).all(1).any()


def differs(keys: dict[str, Any], change: dict[str, Any]) -> dict[str, bool]:
    """Return which parts of what is seen of a row differ once some of its columns do."""
    system, rows, module = made(**keys)
    with torch.inference_mode():
        one, other = (module(system.collate(take(table, [0]))) for table in (rows, rows | change))
    names = ("rating_B", "context_BW", "score_NW")
    return {name: not torch.allclose(getattr(one, name), getattr(other, name)) for name in names}


@pytest.mark.parametrize(
    ("keys", "change", "differ"),
    [
        ({}, {"item": np.full(10, 3)}, (True, True, True)),
        ({}, {"user": np.full(10, 6)}, (True, True, True)),
        ({}, {"feature": ["."] * 10}, (False, False, False)),
        ({"feature": True}, {"feature": ["."] * 10}, (False, False, True)),
    ],
)
def test_ratings_follow_from_user_and_item_and_words_from_the_feature_where_it_is_told(
    keys: dict[str, Any], change: dict[str, Any], differ: tuple[bool, ...]
) -> None:
    assert tuple(differs(keys, change).values()) == differ


@pytest.mark.parametrize("feature", [False, True])
def test_the_feature_is_a_label_unless_it_is_told(feature: bool) -> None:
    system, _, _ = made(feature=feature)
    labels = ["rating", "text", *([] if feature else ["feature"]), "opinion"]
    assert [c.name for c in system.columns if c.label] == labels
    assert tuple(system.truth_given()) == (("feature",) if feature else ())
    assert system.columns == PETER.columns_for(system.config)


def test_labels_are_the_words_and_the_end_and_scores_those_of_each_position_alone() -> None:
    system, rows, module = made()
    rows |= {"text": ["good sound", "", "the price is good . the end", *["."] * 7]}
    batch = system.collate(rows)
    number = system.vocabulary.number
    assert batch.word_BT[0].tolist() == [number["good"], number["sound"], END, *[NOTHING] * 4]
    assert batch.word_BT[1].tolist() == [END, *[NOTHING] * 6]
    assert batch.word_BT[2].tolist() == [*(number[word] for word in "the price is good . the".split()), END]
    terms = system.loss(module, batch)
    assert (terms["text_nll"].count, terms["context_nll"].count) == (3 + 1 + 7 + 14, 2 + 6 + 7)
    text, context, rating = 0.0, 0.0, 0.0
    with torch.inference_mode():
        for row in range(10):
            one = system.collate(take(rows, [row]))
            score_W, cache = module.start(one)
            seen = module(one)
            words = [word for word in batch.word_BT[row].tolist() if word != NOTHING]
            for place, word in enumerate(words):
                # What decoding never writes counts in the loss.
                whole_W = seen.score_NW[place]
                torch.testing.assert_close(
                    score_W[0, [END, *range(3, len(whole_W))]], whole_W[[0, *range(3, len(whole_W))]]
                )
                text -= float(whole_W.log_softmax(0)[word])
                context -= float(seen.context_BW[0].log_softmax(0)[word]) * (word != END)
                if word != END:
                    score_W, cache = module.step(torch.tensor([word]), cache)
            rating += float((seen.rating_B - one.rating_B) ** 2)
    assert terms["text_nll"].sum.item() == pytest.approx(text, rel=1e-5)
    with torch.inference_mode():
        nll_B, tokens_B = system.nll(module, batch)
        alone = [system.nll(module, system.collate(take(rows, [row])))[0].item() for row in range(10)]
    assert nll_B.sum().item() == pytest.approx(text, rel=1e-5)
    assert nll_B.tolist() == pytest.approx(alone, rel=1e-4)
    assert tokens_B.tolist() == [3, 1, 7, *[2] * 7]
    assert terms["context_nll"].sum.item() == pytest.approx(context, rel=1e-5)
    assert terms["rating"].sum.item() == pytest.approx(rating, rel=1e-5)


def plainly(system: PETER, module: PETERModel, row: dict[str, Any]) -> str:
    """Return the text of one row, all words read anew for each next one."""
    words: list[str] = []
    while len(words) < system.config.words:
        batch = system.collate(row | {"text": [" ".join(words)]})
        score_W = module(batch).score_NW[-1].clone()
        score_W[[START, UNKNOWN]] = -math.inf
        if (best := int(score_W.argmax())) == END:
            break
        words.append(system.vocabulary.words[best])
    return " ".join(words)


@pytest.mark.parametrize("keys", [{}, {"feature": True, "layers": 3}, {"words": 9, "heads": 4}])
def test_texts_with_the_cache_are_those_without_it(keys: dict[str, Any]) -> None:
    system, rows, module = made(rows=24, **keys)
    with torch.inference_mode():
        module.out.weight *= 5
        module.out.bias -= module(system.collate(rows)).score_NW.mean(0)  # so that no word is always the best
        found = system.write(module, system.collate(rows), Decoding(max_tokens=20))
        assert found == [plainly(system, module, take(rows, [row])) for row in range(24)]
    assert len(set(found)) > 3
    assert len({len(text.split()) for text in found}) > 1


@pytest.mark.parametrize("decoding", [Decoding(temperature=1.0, seed=3), Decoding(beams=3)])
def test_a_text_does_not_depend_on_its_company(decoding: Decoding) -> None:
    system, rows, module = made()
    with torch.inference_mode():
        together = system.write(module, system.collate(rows), decoding)
        alone = [system.write(module, system.collate(take(rows, [row])), decoding)[0] for row in range(10)]
    assert together == alone


def test_what_is_heard_adds_up_to_the_texts() -> None:
    system, rows, module = made()
    heard = [""] * 10

    def hear(pieces: Any) -> None:
        heard[:] = [before + piece for before, piece in zip(heard, pieces, strict=True)]

    assert system.write(module, system.collate(rows), Decoding(), heard=hear) == heard


@pytest.mark.parametrize(("words", "length"), [(2, 2), (6, 6)])
def test_texts_are_no_longer_than_words_and_so_is_what_is_scored(words: int, length: int) -> None:
    system, rows, module = made(words=words)
    module.out.bias.data[END] = -100.0
    texts = system.write(module, system.collate(rows), Decoding(max_tokens=50))
    assert {len(text.split()) for text in texts} == {length}
    writing = system.tasks[0]
    assert (writing.most_words, writing.decoding.max_tokens) == (words, words)


def test_unknown_words_are_read_and_never_written() -> None:
    vocabulary = Vocabulary(["a", "b", "c"], 2)
    assert vocabulary.encoded(["b c a", "x"], 5).tolist() == [[4, UNKNOWN, 3, END], [UNKNOWN, END, NOTHING, NOTHING]]
    assert vocabulary.numbers(["a", "", "c"]).tolist() == [3, UNKNOWN, UNKNOWN]
    assert vocabulary.spelled([4, 3]) == "b a"
    system, rows, module = made(vocabulary=2)
    module.out.bias.data[[START, UNKNOWN]] = 100.0
    words = " ".join(system.write(module, system.collate(rows), Decoding())).split()
    assert set(words) == {"sound", "the"} & set(words) != set()


def test_a_member_that_is_not_known_is_the_mean_of_all() -> None:
    table = nn.Embedding(3, 2)
    found_BD = known_or_mean(table, torch.tensor([-1, 2, -1]))
    torch.testing.assert_close(found_BD, torch.stack([table.weight.mean(0), table.weight[2], table.weight.mean(0)]))


def test_positions_by_hand() -> None:
    found_TD = sines(3, 4)
    wanted = [[f(place / 10_000 ** (even / 4)) for even in (0, 2) for f in (math.sin, math.cos)] for place in range(3)]
    torch.testing.assert_close(found_TD, torch.tensor(wanted))


def test_a_block_is_torchs_encoder_layer() -> None:
    _, _, module = made(heads=4)
    block, theirs = module.blocks[0], nn.TransformerEncoderLayer(16, 4, 24, 0.2, batch_first=True).eval()
    ours = dict(block.named_parameters())
    names = {
        "self_attn.in_proj_weight": "read.weight", "self_attn.in_proj_bias": "read.bias",
        "self_attn.out_proj.weight": "out.weight", "self_attn.out_proj.bias": "out.bias",
        "linear1.weight": "feedforward.0.weight", "linear1.bias": "feedforward.0.bias",
        "linear2.weight": "feedforward.3.weight", "linear2.bias": "feedforward.3.bias",
        **{f"norm{n + 1}.{part}": f"norms.{n}.{part}" for n in (0, 1) for part in ("weight", "bias")},
    }  # fmt: skip
    theirs.load_state_dict({name: ours[own].detach() for name, own in names.items()})
    x_BTD, mask_TT = torch.randn(3, 5, 16), peter_mask(5)
    torch.testing.assert_close(block(x_BTD, mask_TT, None, 0), theirs(x_BTD, src_mask=~mask_TT), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("width", "heads"), [(10, 4), (9, 3), (6, 4)])
def test_a_width_that_heads_do_not_divide_is_refused(width: int, heads: int) -> None:
    with pytest.raises(ValueError, match=rf"width: must be even and divided by heads \({heads}\), got {width}"):
        PETERConfig(width=width, heads=heads)
