"""BERTScore against a slow reading of the paper, on a tiny model that is made here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rec.errors import ConfigError
from rec.evaluation.tasks.writing import Writing
from rec.evaluation.tasks.writing import baselines as simple
from rec.evaluation.tasks.writing.bertscore import Encoder, bertscore
from rec.evaluation.tasks.writing_config import BertScoreConfig
from tests.end_to_end.evaluation.tasks.writing.test_task import AboutItems, batches_of, measured

transformers = pytest.importorskip("transformers", reason="needs the extra `encoders`")
PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] the sound is great fine poor price a strap broke and .".split()
TEXTS = ["the sound is great", "a strap and a price .", "", "great great", "the price is poor"]
REFERENCES = ["the sound is poor", "a price", "the sound", "great", ""]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = str(tmp_path_factory.mktemp("bert"))
    plain = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def slow(model: str, layer: int, text: str, reference: str) -> tuple[float, float, float]:
    """Return F, precision and recall by loops over tokens, one text at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    module = transformers.AutoModel.from_pretrained(model).eval()
    with torch.no_grad():
        sides = []
        for one in (text, reference):
            ids = tokenizer(one)["input_ids"]
            hidden = module(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
            sides.append([row / row.norm() for row in hidden])
    if min(map(len, sides)) == 2:
        return 0.0, 0.0, 0.0
    precision, recall = (
        float(np.mean([max(float(x @ y) for y in there) for x in here[1:-1]]))
        for here, there in (sides, reversed(sides))
    )
    return 2 * precision * recall / (precision + recall), precision, recall


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_scores_are_those_of_loops_over_tokens(bert: str, layer: int) -> None:
    found = bertscore(TEXTS, REFERENCES, Encoder(BertScoreConfig(model=bert, layer=layer, batch_size=2)))
    wanted = [slow(bert, layer, *pair) for pair in zip(TEXTS, REFERENCES, strict=True)]
    assert np.stack(list(found.values()), 1) == pytest.approx(np.array(wanted), abs=1e-5)
    assert list(found) == ["bertscore_f", "bertscore_p", "bertscore_r"]
    assert found["bertscore_f"][3] < 1 or layer == 0


def test_a_text_like_its_reference_scores_1_and_nothing_else_does(bert: str) -> None:
    found = bertscore(
        ["the sound", "the price"], ["the sound", "the sound"], Encoder(BertScoreConfig(model=bert, layer=3))
    )
    assert found["bertscore_f"][0] == pytest.approx(1)
    assert found["bertscore_f"][1] < 1


@pytest.mark.parametrize("divider", [",", "\t"])
def test_a_baseline_rescales_so_that_unrelated_texts_are_0(bert: str, divider: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.tsv"
    rows = [["LAYER", "P", "R", "F"], ["0", "0.1", "0.2", "0.3"], ["2", "0.5", "0.6", "0.7"]]
    path.write_text("\n".join(divider.join(row) for row in rows) + "\n")
    plain = bertscore(TEXTS, REFERENCES, Encoder(BertScoreConfig(model=bert, layer=2)))
    found = bertscore(TEXTS, REFERENCES, Encoder(BertScoreConfig(model=bert, layer=2, baseline=str(path))))
    for name, value in (("p", 0.5), ("r", 0.6), ("f", 0.7)):
        wanted = (plain[f"bertscore_{name}"] - value) / (1 - value)
        assert found[f"bertscore_{name}"] == pytest.approx(wanted)
    with pytest.raises(ConfigError, match=r"evaluate\.bertscore\.baseline: .* has no row LAYER,P,R,F of layer 1"):
        Encoder(BertScoreConfig(model=bert, layer=1, baseline=str(path)))


def test_texts_are_cut_to_what_a_model_can_read(bert: str) -> None:
    found = bertscore(
        ["the sound is great " * 9], ["the sound is great"], Encoder(BertScoreConfig(model=bert, layer=1))
    )
    assert 0 < found["bertscore_f"][0] <= 1


def test_the_first_word_of_a_text_has_the_blank_that_others_have(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    plain.train_from_iterator([" the sound is great the price"] * 5, trainer)
    told = json.loads(plain.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(told["vocab"]))
    merges = [" ".join(m) if isinstance(m, list) else m for m in told["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 64, "tokenizer_class": "RobertaTokenizer"})
    )
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=len(told["vocab"]), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, pad_token_id=1,
        intermediate_size=32, max_position_embeddings=20, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    encoder = Encoder(BertScoreConfig(model=str(tmp_path), layer=0))
    # Layer 0 holds embeddings with places: "sound" behind "the" is what it is at the same place of another text.
    (state, counts), (other, _) = encoder.states(["sound the", "sound price"])
    assert state[counts][0] == pytest.approx(other[1])
    ids = encoder.tokenizer(" sound")["input_ids"]
    assert len(state[counts]) == len(encoder.tokenizer(" sound the")["input_ids"]) - 2
    assert ids[1:-1] != encoder.tokenizer("sound")["input_ids"][1:-1]
    assert encoder.most == 18


def test_models_and_layers_that_are_none_are_refused_by_name(bert: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.bertscore\.layer: 4, but .* has 3 layers"):
        Encoder(BertScoreConfig(model=bert, layer=4))
    with pytest.raises(ConfigError, match=r"evaluate\.bertscore\.model: .* is no text model that loads here"):
        Encoder(BertScoreConfig(model=str(tmp_path), layer=1))


def test_the_model_scores_texts_and_simple_answers(bert: str) -> None:
    task = Writing(bertscore=BertScoreConfig(model=bert, layer=2))
    values = task.late_values(measured(AboutItems(), task, (0, 1)))
    assert values["bertscore_f"][1] == pytest.approx(1)  # the sound is fine
    found = task.baselines(AboutItems(), None, "test", batches_of((0, 1), (1,)))  # type: ignore[arg-type]
    assert found[simple.SAME_FEATURE]["bertscore_f"] == pytest.approx(1)
    assert "bertscore_f" not in Writing().late_values(measured(AboutItems(), Writing(), (0, 1)))


@pytest.mark.parametrize("rows", [(0, 1), (1,), (0, 1, 2)])
def test_training_is_read_and_the_model_loaded_once(
    bert: str, rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Writing(bertscore=BertScoreConfig(model=bert, layer=2))
    parts, loaded = list[str](), list[str]()
    plain, load = batches_of((0, 1, 2), rows), transformers.AutoModel.from_pretrained

    def batches(part: str) -> Iterator[Any]:
        parts.append(part)
        return plain(part)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda name: loaded.append(name) or load(name))
    alone = task.baselines(AboutItems(), None, "test", batches)  # type: ignore[arg-type]
    assert (parts, loaded) == (["train", "test"], [bert])
    found = measured(AboutItems(), task, rows)
    found.batches = batches
    task.late_values(found)
    assert task.simple_answers(found, batches) == alone
    assert (parts, loaded) == (["train", "test"] * 2, [bert] * 2)
    assert "known" not in found.kept  # neither texts nor the model are held any longer
