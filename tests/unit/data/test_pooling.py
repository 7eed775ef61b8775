"""Vectors of a transformers model as files of sentence-transformers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from rec.data.encoders import TransformerEncoder
from rec.data.pooling import Dense, Pooling, pooling_of
from rec.errors import ConfigError
from tests.end_to_end.data.test_encoders import small_bert

STATE_BLM = torch.tensor([[[1.0, -2.0], [3.0, 4.0], [9.0, 9.0]], [[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]]])
MASK_BL = torch.tensor([[1, 1, 0], [1, 1, 1]])


def sentence_model(folder: Path, pooling: dict[str, Any], *after: str, **more: Any) -> str:
    """Save a small model with the files of sentence-transformers, and return its folder."""
    name = small_bert(folder)
    kinds = ["Transformer", "Pooling", *after]
    paths = ["", *(f"{n}_{kind}" for n, kind in enumerate(kinds) if n)]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    files = {"modules.json": modules, "1_Pooling/config.json": pooling} | more.pop("files", {})
    for file, told in files.items():
        (Path(name) / file).parent.mkdir(exist_ok=True)
        (Path(name) / file).write_text(json.dumps(told))
    return name


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        ("cls", [1, -2], [1, 0]),
        ("lasttoken", [3, 4], [2, 3]),
        ("max", [3, 4], [2, 3]),
        ("mean", [(1 + 3) / 2, (-2 + 4) / 2], [(1 + 0 + 2) / 3, (0 + 1 + 3) / 3]),
        ("mean_sqrt_len_tokens", [4 / 2**0.5, 2 / 2**0.5], [3 / 3**0.5, 4 / 3**0.5]),
        ("weightedmean", [(1 + 2 * 3) / 3, (-2 + 2 * 4) / 3], [(1 + 3 * 2) / 6, (2 * 1 + 3 * 3) / 6]),
    ],
)
def test_poolings_leave_padding_out(mode: str, first: list[float], second: list[float]) -> None:
    np.testing.assert_allclose(Pooling((mode,))(STATE_BLM, MASK_BL), [first, second], rtol=1e-6)


def test_vectors_are_joined_go_through_a_layer_and_get_length_1() -> None:
    dense = Dense(torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.5, 0.0]]), torch.tensor([0.0, -1.0]), "ReLU")
    found = Pooling(("cls", "max"), (dense, None))(STATE_BLM, MASK_BL)
    first = np.array([1 + 4, max(0.5 * 3 - 1, 0)])
    np.testing.assert_allclose(found[0], first / np.linalg.norm(first), rtol=1e-6)


def test_a_folder_says_how_its_model_pools(tmp_path: Path) -> None:
    limits = {"sentence_bert_config.json": {"max_seq_length": 4, "do_lower_case": True}}
    prompts = {"config_sentence_transformers.json": {"prompts": {"p": "fever "}, "default_prompt_name": "p"}}
    flags = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    name = sentence_model(tmp_path, flags, "Normalize", files=limits | prompts)
    assert pooling_of(name, "own") == Pooling(("cls",), (None,), 4, True, "fever ")
    found = TransformerEncoder(name, "own", 12).encode(["PAIN in the legs and more"])
    plain = TransformerEncoder(name, "cls", 4).encode(["fever pain in the legs and more"])
    np.testing.assert_allclose(found, plain / np.linalg.norm(plain), rtol=1e-5)


def test_a_layer_of_a_folder_is_read(tmp_path: Path) -> None:
    told = {"in_features": 16, "out_features": 3, "activation_function": "torch.nn.modules.activation.Tanh"}
    name = sentence_model(tmp_path, {"pooling_mode": "mean"}, "Dense", files={"2_Dense/config.json": told})
    width = TransformerEncoder(name, "mean", 12).encode(["fever"]).shape[1]
    weight = torch.arange(3.0 * width).reshape(3, width) / 100
    save_file({"linear.weight": weight, "linear.bias": torch.ones(3)}, Path(name) / "2_Dense" / "model.safetensors")
    plain = TransformerEncoder(name, "mean", 12).encode(["fever"])
    found = TransformerEncoder(name, "own", 12).encode(["fever"])
    np.testing.assert_allclose(found, np.tanh(plain @ weight.numpy().T + 1), rtol=1e-4)


def test_a_folder_without_such_files_is_pooled_by_the_mean(tmp_path: Path) -> None:
    name = small_bert(tmp_path)
    texts = ["fever", "pain in the legs"]
    own, mean = (TransformerEncoder(name, pooling, 12).encode(texts) for pooling in ("own", "mean"))
    np.testing.assert_array_equal(own, mean)


@pytest.mark.parametrize(
    ("pooling", "after", "fault"),
    [
        ({"pooling_mode_mean_tokens": True}, ("LSTM",), r"names Transformer, Pooling, LSTM; expected"),
        ({}, (), r"1_Pooling/config.json pools by nothing; expected cls, max"),
        ({"pooling_mode": "median"}, (), r"pools by \['median'\]"),
        ({"pooling_mode": "mean"}, ("Dense",), r"2_Dense needs model.safetensors and an activation"),
    ],
)
def test_files_that_say_what_is_not_known_are_refused(
    tmp_path: Path, pooling: dict[str, Any], after: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        pooling_of(sentence_model(tmp_path, pooling, *after), "own")


def static_model(folder: Path, tensors: dict[str, torch.Tensor], *after: str) -> str:
    """Save a model of one vector per word, with the files of sentence-transformers, and return its folder."""
    words = Tokenizer(WordLevel({"[UNK]": 0, "fever": 1, "pain": 2, "legs": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    kinds = ["StaticEmbedding", *after]
    modules = [{"idx": n, "path": f"{n}_{kind}", "type": f"models.{kind}"} for n, kind in enumerate(kinds)]
    (folder / "0_StaticEmbedding").mkdir(parents=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    words.save(str(folder / "0_StaticEmbedding" / "tokenizer.json"))
    save_file(tensors, folder / "0_StaticEmbedding" / "model.safetensors")
    return str(folder)


VECTORS = torch.tensor([[0.0, 8.0], [1.0, 0.0], [3.0, 4.0], [5.0, 2.0]])


def test_a_text_is_the_mean_of_its_words_where_each_has_one_vector(tmp_path: Path) -> None:
    name = static_model(tmp_path, {"embedding.weight": VECTORS}, "Normalize")
    texts = ["fever pain", "legs", "fever pain legs legs", ""]
    plain = TransformerEncoder(name, "mean", 3).encode(texts)
    np.testing.assert_allclose(plain, [[4 / 2, 4 / 2], [5, 2], [9 / 3, 6 / 3], [0, 0]], rtol=1e-6)
    own = TransformerEncoder(name, "own", 3).encode(texts)
    np.testing.assert_allclose(own[:2], [[0.5**0.5, 0.5**0.5], np.array([5, 2]) / 29**0.5], rtol=1e-6)


def test_vectors_of_model2vec_are_mapped_and_weighed(tmp_path: Path) -> None:
    tensors = {"embeddings": VECTORS[1:3].clone(), "mapping": torch.tensor([0, 1, 0, 1]), "weights": torch.ones(4) / 2}
    found = TransformerEncoder(static_model(tmp_path, tensors), "mean", 8).encode(["fever pain"])
    np.testing.assert_allclose(found, [[(3 + 1) / 2 / 2, (4 + 0) / 2 / 2]], rtol=1e-6)


@pytest.mark.parametrize(
    ("tensors", "pooling", "fault"),
    [
        ({"embedding.weight": VECTORS}, "cls", "has no state of a first token; expected"),
        ({"embedding.weight": VECTORS[:3].clone()}, "mean", "3 vectors for 4 tokens"),
        ({"table": VECTORS}, "mean", "no embedding.weight nor embeddings among table"),
    ],
)
def test_static_vectors_that_cannot_be_taken_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], pooling: str, fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        TransformerEncoder(static_model(tmp_path, tensors), pooling, 8)
