from dataclasses import replace
from typing import Any

import pytest
import torch

from rec.nn.language.gated import GatedConfig
from rec.systems.gavamoe.prompt import FEATURE_TOKENS, PairPromptConfig, PairPrompter, Prompt
from rec.systems.gavamoe.writer import Pairs, PairWriter
from tests.support.small import small, tokenizer

TEXTS = ("the sound is great .", "the price", "")
FEATURES = ("sound", "price for this radio and the battery", "")
RATINGS = (5.0, 1.0, 3.0)
TOKENS = tokenizer()
CLUSTERS, WIDTH = 3, 5


def prompt(texts: Any = TEXTS, features: Any = FEATURES, ratings: Any = RATINGS, most: int = 60, **keys: Any) -> Prompt:
    return PairPrompter(PairPromptConfig(**keys), TOKENS, most).prompt(ratings, features, texts)


def spelled(found: Prompt, mood: int = 0) -> list[str]:
    """Return prompts with <user> and <item> where their vectors stand."""
    parts = []
    for row in found.token_MBP[mood].tolist():
        text, run = "", []
        for token in [*row, TOKENS.user]:
            if token in (TOKENS.user, TOKENS.item):
                text += TOKENS.tokenizer.decode(run) + {TOKENS.user: "<user>", TOKENS.item: "<item>"}[token]
                run = []
            elif token >= 0:
                run.append(token)
        parts.append(text.removesuffix("<user>"))
    return parts


def writer(seed: int = 0, language: Any = None, **experts: Any) -> PairWriter:
    return PairWriter(
        small(**(language or {})),
        GatedConfig(**{"experts": 4, **experts}),
        clusters=CLUSTERS,
        features=WIDTH,
        tokens=TOKENS,
        seed=seed,
    ).eval()


def told(rows: int = 3, **changes: Any) -> Pairs:
    chance = torch.Generator().manual_seed(0)
    user_BF, item_BF = (torch.randn(rows, WIDTH, generator=chance) for _ in range(2))
    return Pairs(**{"user_BF": user_BF, "item_BF": item_BF, "cluster_B": torch.arange(rows) % CLUSTERS, **changes})


def written(module: PairWriter, asked: Prompt, pairs: Pairs) -> Any:
    return module(asked, pairs.user_BF, pairs.item_BF, pairs.cluster_B, pairs.share_BC, pairs.rating_B)


def test_the_words_are_the_papers() -> None:
    first = spelled(prompt())
    assert first[0] == (
        "You are a professional explainer, Your assignment involves providing users with a detailed explanation "
        "regarding a specific item.\nThe user has a positive experience with the item, the item has sound features, "
        "please provide an explanation for recommending <item> to <user>.\n"
    )
    assert ["negative" in first[1], "positive" in first[2], "features" in first[2]] == [True, True, False]


@pytest.mark.parametrize("words", ["paper", "short"])
def test_what_is_not_to_be_told_is_not_told(words: str) -> None:
    keys = {"words": words, "feature": False}
    assert not any("sound" in text or "price" in text for text in spelled(prompt(**keys)))
    assert not any(mood in text for text in spelled(prompt(rating="none", **keys)) for mood in ("positive", "negative"))
    for changed in ("none", "predicted"):
        one = prompt(rating=changed, **keys).token_MBP
        assert torch.equal(
            one, prompt(rating=changed, ratings=(1.0, 5.0, 1.0), features=("", "x", "y"), **keys).token_MBP
        )


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "regarding a specific item.\n"),
        ({"rating": "none"}, "regarding a specific item.\n"),  # some features are not told
        ({"rating": "predicted", "feature": False}, "regarding a specific item.\n"),
        ({"rating": "none", "feature": False}, "please provide an explanation for recommending "),
        ({"words": "short"}, ""),
        ({"words": "short", "feature": False, "rating": "none"}, ""),
    ],
)
def test_what_all_prompts_begin_with_is_known_without_them(keys: dict[str, Any], words: str) -> None:
    asked = prompt(**keys)
    common = asked.common_L.tolist()
    assert TOKENS.tokenizer.decode(common).endswith(words)
    assert bool(common) == bool(words)
    for mood in asked.token_MBP.tolist():
        assert all([token for token in row if token >= 0][: len(common)] == common for row in mood)


@pytest.mark.parametrize("experts", [{}, {"gates": "one"}, {"experts": 0}, {"shared": "dense"}, {"soft_gate": True}])
@pytest.mark.parametrize("keys", [{}, {"rating": "predicted", "feature": False}, {"words": "short"}])
def test_a_common_beginning_that_is_read_once_changes_nothing(experts: dict[str, Any], keys: dict[str, Any]) -> None:
    rows = 7
    texts, features = [""] * rows, [FEATURES[row % 3] for row in range(rows)]
    pairs = told(rows, share_BC=torch.rand(rows, CLUSTERS).softmax(1), rating_B=torch.arange(rows) % 5 + 1.0)
    module, asked = writer(**experts), prompt(texts, features, [1.0, 5.0] * 3 + [2.0], **keys)
    apart = replace(asked, common_L=asked.common_L[:0])
    read: list[tuple[int, int]] = []
    decoder = module.language.get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda _, __, told: read.append(tuple(told["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    (score_BW, state), (wanted_BW, other) = (module.start((one, pairs)) for one in (asked, apart))
    hook.remove()
    torch.testing.assert_close(score_BW, wanted_BW, atol=2e-5, rtol=1e-4)
    for _ in range(3):
        token_B = wanted_BW.argmax(1)
        (score_BW, state), (wanted_BW, other) = module.step(token_B, state), module.step(token_B, other)
        torch.testing.assert_close(score_BW, wanted_BW, atol=2e-5, rtol=1e-4)
        for one in (state, other):
            one.reorder(torch.tensor([1, 0, *range(2, len(token_B))]))
    common, longest = len(asked.common_L), asked.token_MBP.shape[2]
    if not common or "soft_gate" in experts:
        assert read == [(rows, longest)] * 2
    else:
        gates = 1 if experts.get("gates") == "one" or experts.get("experts") == 0 else CLUSTERS
        assert read == [(gates, common), (rows, longest - common), (rows, longest)]


def test_a_predicted_rating_chooses_the_mood() -> None:
    asked = prompt(rating="predicted", words="short", feature=False)
    assert [spelled(asked, mood)[0] for mood in (0, 1)] == ["negative:<user><item>", "positive:<user><item>"]
    rating_B = torch.tensor([1.0, 3.0, 2.9])
    chosen = asked.of(rating_B)
    assert spelled(replace(asked, token_MBP=chosen[None])) == [
        f"{mood}:<user><item>" for mood in ("negative", "positive", "negative")
    ]


@pytest.mark.parametrize(
    "features", [("a", "b", "c"), ("sound quality of this radio " * 40, "x", ""), ("[END]", "x", "y")]
)
@pytest.mark.parametrize("words", ["paper", "short"])
def test_a_prompt_never_holds_the_answer(features: tuple[str, ...], words: str) -> None:
    """Nor is it cut: what asks for the answer stands at its end, however long a feature is."""
    one = prompt(texts=TEXTS, features=features, words=words)
    other = prompt(texts=("another text",) * 3, features=features, words=words)
    assert torch.equal(one.token_MBP, other.token_MBP)
    ends = [text[-9:] for text in spelled(one)]
    assert len(set(ends)) == 1
    assert TOKENS.end not in one.token_MBP
    short = prompt(features=("a", "a", "a"), words=words).token_MBP.shape[2]
    assert one.token_MBP.shape[2] <= short + FEATURE_TOKENS


def test_only_tokens_of_answers_are_scored_and_the_end_is_one() -> None:
    asked, module = prompt(), writer()
    found = written(module, asked, told())
    wanted = [token for text in TEXTS for token in [*TOKENS.encode([text])[0], TOKENS.end]]
    assert found.target_N.tolist() == wanted
    assert found.score_NW.shape == (len(wanted), TOKENS.vocabulary)
    cut = prompt(most=2)
    assert cut.answer_BA.tolist()[0] == TOKENS.encode([TEXTS[0]])[0][:2]


def test_scores_are_those_of_the_tokens_before() -> None:
    """A change of a later token of an answer changes no score before it."""
    asked, module, pairs = prompt(), writer(), told()
    found = written(module, asked, pairs)
    changed = asked.answer_BA.clone()
    changed[0, 3] = TOKENS.encode(["x"])[0][0]
    other = written(module, replace(asked, answer_BA=changed), pairs)
    length = len(TOKENS.encode([TEXTS[0]])[0]) + 1
    torch.testing.assert_close(other.score_NW[:4], found.score_NW[:4], atol=1e-5, rtol=1e-5)
    assert (other.score_NW[4:length] - found.score_NW[4:length]).abs().max() > 1e-4
    torch.testing.assert_close(other.score_NW[length:], found.score_NW[length:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("experts", [{}, {"soft_gate": True}, {"gates": "one"}, {"experts": 0}, {"shared": "dense"}])
def test_a_pairs_scores_do_not_depend_on_company(experts: dict[str, Any]) -> None:
    share_BC = torch.rand(3, CLUSTERS).softmax(1)
    pairs, module = told(share_BC=share_BC), writer(**experts)
    found = written(module, prompt(), pairs)
    start = 0
    for row in range(3):
        asked = prompt(TEXTS[row : row + 1], FEATURES[row : row + 1], RATINGS[row : row + 1])
        fields = ("user_BF", "item_BF", "cluster_B", "share_BC")
        alone = written(module, asked, Pairs(**{name: getattr(pairs, name)[row : row + 1] for name in fields}))
        rows = slice(start, start + len(alone.target_N))
        torch.testing.assert_close(alone.score_NW, found.score_NW[rows], atol=2e-5, rtol=1e-4)
        start = rows.stop
    assert start == len(found.target_N)


@pytest.mark.parametrize("keys", [{"rating": "none"}, {"rating": "predicted"}])
def test_leak_free_output_does_not_follow_true_rating_or_feature(keys: dict[str, Any]) -> None:
    module, pairs = writer(), told(rating_B=torch.tensor([4.0, 2.0, 1.0]))
    one = prompt(feature=False, **keys)
    other = prompt(feature=False, ratings=(1.0, 5.0, 1.0), features=("price", "", "radio"), **keys)
    torch.testing.assert_close(written(module, one, pairs).score_NW, written(module, other, pairs).score_NW)
    first, second = (module.start((asked, pairs))[0] for asked in (one, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("experts", [{}, {"soft_gate": True}, {"experts": 0}])
def test_steps_with_the_cache_give_the_scores_of_the_whole(experts: dict[str, Any]) -> None:
    asked, module, pairs = prompt(), writer(**experts), told(share_BC=torch.rand(3, CLUSTERS).softmax(1))
    whole = written(module, asked, pairs).score_NW.split((asked.answer_BA >= 0).sum(1).tolist())
    score_RW, state = module.start((asked, pairs))
    rows = torch.arange(3)
    for place in range(asked.answer_BA.shape[1]):
        for row, score_W in zip(rows.tolist(), score_RW, strict=True):
            torch.testing.assert_close(score_W, whole[row][place], atol=2e-5, rtol=1e-4)
        on = (asked.answer_BA[rows, place + 1 :] >= 0).any(1).nonzero()[:, 0].flip(0)
        if not len(on):
            break
        rows = rows[on]
        state.reorder(on)
        score_RW, state = module.step(asked.answer_BA[rows, place], state)


def test_user_and_item_are_told_by_their_vectors_alone() -> None:
    asked, module, pairs = prompt(), writer(), told()
    found = written(module, asked, pairs).score_NW
    for name in ("user_BF", "item_BF"):
        other = written(module, asked, replace(pairs, **{name: getattr(pairs, name) + 1})).score_NW
        assert (other - found).abs().max() > 1e-3
    assert module.language.get_input_embeddings().num_embeddings == TOKENS.vocabulary == TOKENS.user


def test_terms_count_tokens_of_answers() -> None:
    module, asked = writer(balance_weight=0.01).train(), prompt()
    terms = module.terms(written(module, asked, told()))
    assert {name: float(term.count) for name, term in terms.items()} == {
        "text_nll": int((asked.answer_BA >= 0).sum()),
        **dict.fromkeys(
            ("balance/0", "balance/1"), int((asked.token_MBP[0] >= 0).sum() + (asked.answer_BA >= 0).sum() - 3)
        ),
    }


@pytest.mark.parametrize("keys", [{}, {"rating": "predicted", "feature": False}])
@torch.no_grad()
def test_the_likelihood_of_each_text_is_the_loss_of_it_alone(keys: dict[str, Any]) -> None:
    module, pairs = writer(), told(rating_B=torch.tensor([4.0, 2.0, 1.0]))
    nll_B, tokens_B = module.nll(prompt(**keys), pairs)
    assert tokens_B.tolist() == [len(tokens) + 1 for tokens in TOKENS.encode(list(TEXTS))]
    for row in range(3):
        asked = prompt(TEXTS[row : row + 1], FEATURES[row : row + 1], RATINGS[row : row + 1], **keys)
        fields = ("user_BF", "item_BF", "cluster_B", "rating_B")
        one = Pairs(**{name: getattr(pairs, name)[row : row + 1] for name in fields})
        term = module.terms(written(module, asked, one))["text_nll"]
        assert (float(term.sum), term.count) == pytest.approx((float(nll_B[row]), int(tokens_B[row])), rel=1e-5)


def test_the_writer_learns_what_each_user_says() -> None:
    torch.manual_seed(0)
    module = writer(language={"width": 32}).train()
    asked, pairs = prompt(words="short", feature=False, rating="none"), told()
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(60):
        terms = module.terms(written(module, asked, pairs))
        optimiser.zero_grad()
        terms["text_nll"].mean.backward()
        optimiser.step()
    assert float(terms["text_nll"].mean.detach()) < 0.05
