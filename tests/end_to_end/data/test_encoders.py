"""Encoders of texts of which nothing can be learned, or hardly anything."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from rec.data import encoders
from rec.data.config import ImageEncodingConfig, TextEncodingConfig
from rec.data.encode import Encoders, Recipe
from rec.data.encoders import (
    Hashing,
    TextEncoder,
    Tfidf,
    Tokens,
    TransformerEncoder,
    VisionEncoder,
    learn_tokenizer,
    text_encoder_from,
    tokenizer_json,
)
from rec.data.runner import Actors
from rec.errors import ConfigError, not_loaded
from tests.support.own import own_tables, prepared

WITHOUT_WORDS = [
    ["\U0001f600 \U0001f389"] * 60,
    ["a", "b c"],
    ["!?", "...", "-"],
    [" \n\t"],
    [""],
    [],
    [f"word{n}" for n in range(60)],
    ["\ud800 \0"],
]
WITH_WORDS = [
    ["salt"],
    ["salt"] * 5,
    ["the", "and the", "of"],
    ["salt soup"],
    ["salt", "sugar"],
    ["salt\ud83d soup", "so\0up salt"],
    ["x" * 1_000_000, "salt soup"],
    ["\U0001f600 a", "sweet \U0001f600 cake"],
]


@pytest.mark.parametrize("texts", WITHOUT_WORDS)
def test_texts_without_a_word_give_zeros_and_a_note(texts: list[str]) -> None:
    found = Tfidf(texts, 4)
    assert found.note.startswith("tfidf: no word of two letters to learn from")
    assert found.encode([*texts, "salt"]).tolist() == [[0.0] * 4] * (len(texts) + 1)
    assert found.identity() != Tfidf(["salt soup"], 4).identity()


@pytest.mark.parametrize("texts", WITH_WORDS)
def test_a_small_vocabulary_fills_the_components_that_it_has(texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Tfidf(texts, 6)
    assert found.note == ""
    vector = found.encode([*texts, "unheard"])
    assert vector.shape == (len(texts) + 1, 6)
    there = [any(len(word) > 1 for word in text.replace("\0", " ").replace("\ud83d", " ").split()) for text in texts]
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), [*there, False], atol=1e-6)
    assert found.encode([]).shape == (0, 6)


def test_two_words_of_two_texts_stay_apart() -> None:
    vector = Tfidf(["salt", "sugar"], 4).encode(["salt", "sugar", "salt sugar"])
    np.testing.assert_allclose(vector @ vector[0], [1, 0, 0.5**0.5], atol=1e-6)


@pytest.mark.parametrize("texts", WITHOUT_WORDS + WITH_WORDS)
def test_a_tokenizer_is_learned_from_whatever_there_is(texts: list[str]) -> None:
    tokens = Tokens(learn_tokenizer(texts, 100), 8)
    found = tokens.encode([*texts, "unheard", "x" * 1_000_000, "\ud800"])
    assert found.shape == (len(texts) + 3, 8)
    assert (found[:, 0] == tokens.tokenizer.token_to_id("[CLS]")).all()
    assert found.max() < tokens.tokenizer.get_vocab_size()


def test_a_word_that_no_tokenizer_looks_at_is_not_learned() -> None:
    assert "y" * 101 not in learn_tokenizer(["y" * 101] * 3, 100)
    assert "y" * 100 in learn_tokenizer(["y" * 100] * 3, 100)


@pytest.mark.parametrize("text", ["\U0001f600", "a", "?!"])
def test_a_data_set_of_texts_without_words_is_prepared_and_told(text: str, tmp_path: Path) -> None:
    tfidf = {"encoder": "tfidf", "width": 4}
    data = prepared(tmp_path / "data", own_tables(tmp_path, words=[text] * 10, columns={"user_text": []}, text=tfidf))
    notes = data.manifest["encoded"]["items"]["notes"]
    assert [count for note, count in notes.items() if note.startswith("tfidf: no word")] == [10]
    assert not data.array("item_text").any()
    assert data.array("item_present")[1:, 0].all()
    assert (data.array("item_tokens")[1:, 0] > 0).all()


def test_a_tokenizer_that_is_not_there_is_named_with_its_key_and_what_could_stand_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no tokenizer that loads here") as error:
        tokenizer_json(str(tmp_path / "none"))
    told = str(error.value)
    assert told.startswith(
        f"data.encode.text.tokenizer: '{tmp_path}/none' is no tokenizer that loads here: expected a "
    )
    assert 'can be fetched, or "local" or "bytes" (' in told
    assert "\n" not in told
    long = not_loaded("language.name", "foo", "language model", OSError("We couldn't connect.\nCheck." + "x" * 500))
    assert str(long).startswith("language.name: 'foo' is no language model that loads here: ")
    assert "can be fetched (We couldn't connect.; Check.xxx" in str(long)
    assert len(str(long)) < 420


def test_the_same_texts_give_the_same_tokenizer_and_unknown_words_are_spelt() -> None:
    texts = [f"likes salt number {n}" for n in range(10)] * 2
    first = learn_tokenizer(texts, 60)
    assert all(learn_tokenizer(texts, 60) == first for _ in range(5))
    tokens = Tokens(first, 12)
    assert tokens.tokenizer.encode("Salt lake").tokens[:7] == ["[CLS]", "salt", "l", "##a", "##k", "##e", "[SEP]"]
    assert tokens.encode(["salt", ""])[:, 0].tolist() == [2, 2]


TEXTS = ["fever", "high blood pressure; pain in the chest", "", "pain in the legs", "  ", "fever"]


def test_hashing_learns_nothing_and_is_the_same_for_all() -> None:
    first = Hashing(32).encode(TEXTS)
    assert first.shape == (6, 32)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, Hashing(32).encode(TEXTS))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), [1, 1, 0, 1, 0, 1], atol=1e-6)
    assert (first[0] != first[3]).any()
    assert Hashing(32).encode([]).shape == (0, 32)


@pytest.mark.parametrize("learned", [["fever", "pain in the chest", "high blood pressure"], ["!", ""], ["fever"]])
def test_a_saved_tfidf_makes_the_same_vectors(learned: list[str]) -> None:
    made = TextEncoder(Tfidf(learned, 16), 1000)
    saved = text_encoder_from(made.to_table())
    np.testing.assert_array_equal(saved.encode(TEXTS), made.encode(TEXTS))
    assert made.encode(TEXTS).any() == (learned != ["!", ""])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_saved_transformers_model_makes_the_same_vectors(tmp_path: Path, pooling: str) -> None:
    made = TextEncoder(TransformerEncoder(small_bert(tmp_path), pooling, 12), 1000, batch_size=2)
    saved = text_encoder_from(made.to_table())
    found = made.encode(TEXTS)
    np.testing.assert_allclose(saved.encode(TEXTS), found, atol=1e-5)
    assert found.any(1).tolist() == [bool(text.strip()) for text in TEXTS]
    np.testing.assert_array_equal(found[0], found[5])


def test_poolings_differ_and_long_texts_are_cut(tmp_path: Path) -> None:
    path = small_bert(tmp_path)
    vectors = [TextEncoder(TransformerEncoder(path, pooling, 12), 1000).encode(TEXTS) for pooling in ("cls", "mean")]
    assert (vectors[0] != vectors[1]).any()
    for encoder in (Hashing(16), Tfidf(TEXTS, 16)):
        short = TextEncoder(encoder, 5)
        np.testing.assert_array_equal(short.encode(["fever and more"]), short.encode(["fever"]))
    assert TextEncoder(Hashing(16), 5).encode([]).shape == (0, 16)


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (0.25, "cuda"), (2.0, "cuda")])
def test_models_lie_on_a_gpu_only_where_one_is_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: float, device: str
) -> None:
    assert Actors(1, 1.0, gpus).device == device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as where every GPU of a machine is visible
    recipe = Recipe(TextEncodingConfig(encoder=small_bert(tmp_path), tokenizer="", max_tokens=12), None)
    for made in (recipe.text_encoder(), Encoders(recipe).text):
        encoder = getattr(made, "encoder", made)
        assert {parameter.device.type for parameter in encoder.model.parameters()} == {"cpu"}


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_models_lie_on_the_device_that_is_told(tmp_path: Path, device: str) -> None:
    text, image = small_bert(tmp_path / "text"), small_vit(tmp_path / "image")
    recipe = Recipe(
        TextEncodingConfig(encoder=text, tokenizer="", max_tokens=12),
        ImageEncodingConfig(encoder=image, pixels=False, thumbnail=0),
    )
    encoders = Encoders(recipe, device)
    for encoder in (encoders.text, encoders.image):
        assert {parameter.device.type for parameter in encoder.model.parameters()} == {device}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    for make in (
        lambda: TransformerEncoder(small_bert(tmp_path), "mean", 12, device="cuda"),
        lambda: VisionEncoder(small_vit(tmp_path / "image"), device="cuda:1"),
    ):
        with pytest.raises(ConfigError, match=r"^data.encode.gpus_per_actor: .* finds no GPU"):
            make()


def small_vit(folder: Path) -> str:
    """Save a vision model of one narrow layer and return its folder."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `encoders`")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    return str(folder)


def small_bert(folder: Path) -> str:
    """Write a BERT with random weights that knows the words of the texts; return where it lies."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `encoders`")
    from tokenizers import Tokenizer

    fast = Tokenizer.from_str(learn_tokenizer(TEXTS, 200))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **names).save_pretrained(folder / "bert")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=fast.get_vocab_size(), **sizes)
    transformers.BertModel(config).save_pretrained(folder / "bert")
    return str(folder / "bert")


def test_vectors_are_the_same_bits_however_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{n}" for n in row) for row in rng.integers(0, 30, (70, 6))] + ["!"]
    _, whole = Tfidf.learned(texts, 12)
    monkeypatch.setattr(encoders, "ROWS_AT_ONCE", 3)
    _, parts = Tfidf.learned(texts, 12)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), [1.0] * 70 + [0.0], rtol=1e-6)  # float32
