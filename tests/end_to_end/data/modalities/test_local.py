"""A causal model of transformers, made here, writes in batches: in this process, and in actors of Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rec.data.modalities.items import Written
from rec.data.modalities.job import ModalityJob
from rec.data.runner import Runner
from rec.errors import ConfigError
from tests.support.films import job_of

transformers = pytest.importorskip("transformers", reason="needs the extra `language`")
ANSWER = ['{"narrative": "a tale', ' of home", ', '"pace": "slow"}']
WORDS = ["[PAD]", "[UNK]", "[END]", "asked", *ANSWER]
SYSTEM = "asked"


def small_model(folder: Path, answer: list[str] = ANSWER) -> str:
    """Write a model that has learned to answer whatever it is asked with the pieces of one text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer: Any = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )
    whole.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=2, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    said = [WORDS.index(piece) for piece in answer] + [2]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(150):
        before = [1] * (5 + step % 40)
        tokens = torch.tensor([before + said])
        labels = torch.tensor([[-100] * len(before) + said])
        loss = model(input_ids=tokens, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_model(tmp_path_factory.mktemp("model"))


def job(folder: Path, model: str, count: int = 10, runner: Runner | None = None, **keys: Any) -> ModalityJob:
    writer = {"kind": "local", "model": model, "cache": f"{folder}/answers", "batch_size": 4, "max_tokens": 8} | keys
    found = job_of(folder, count, writer=writer)
    if runner is not None:
        found.runner = runner
    return found


def all_of(job: ModalityJob) -> list[Written]:
    return [one for some in job.write() for one in some]


def test_a_local_model_writes_batches(tmp_path: Path, model: str) -> None:
    found = all_of(job(tmp_path, model))
    assert [one.texts for one in found] == [{"narrative": "a tale of home", "pace": "slow"}] * 10
    assert {one.fault for one in found} == {""}
    assert {one.output_tokens for one in found} == {3}
    again = job(tmp_path, model)
    assert [one.texts for one in all_of(again)] == [one.texts for one in found]
    assert again.writer.model.told.requests == 0  # type: ignore[attr-defined]


def test_an_answer_of_a_local_model_that_is_too_long_is_cut(tmp_path: Path, model: str) -> None:
    (one,) = all_of(job(tmp_path, model, 1, max_tokens=2))
    assert "longer than allowed" in one.fault
    assert one.repaired
    assert set(one.writers.values()) == {"template"}


def test_another_model_of_the_same_name_is_asked_anew(tmp_path: Path, model: str) -> None:
    all_of(job(tmp_path, model, 2))
    other = small_model(tmp_path / Path(model).name, ANSWER[::-1])
    found = all_of(job(tmp_path, other, 2))
    assert "it is not JSON" in found[0].fault


def test_a_model_that_does_not_load_is_told(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match=r"data\.modalities\.writer\.model: .* is no causal language model"):
        all_of(job(tmp_path, str(tmp_path / "nothing"), 1))


def test_vllm_is_refused_without_ray(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'vllm' runs on Ray; set parallel\.workers"):
        all_of(job_of(tmp_path, 1, writer={"kind": "vllm", "model": "m"}))


@pytest.mark.ray
def test_actors_of_ray_write_the_same_texts(tmp_path: Path, model: str, ray_runtime: None) -> None:
    from rec.runtime.prepare import OnRay

    alone = all_of(job(tmp_path / "one", model, 12))
    found = all_of(job(tmp_path / "two", model, 12, OnRay(), actors=2))
    assert [one.texts for one in found] == [one.texts for one in alone]
    assert {one.fault for one in found} == {""}


@pytest.mark.ray
def test_what_keeps_a_model_from_loading_in_an_actor_is_told(tmp_path: Path, ray_runtime: None) -> None:
    from rec.runtime.prepare import OnRay

    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match="is no causal language model"):
        all_of(job(tmp_path, str(tmp_path / "nothing"), 1, OnRay()))


@pytest.mark.ray
def test_vllm_that_is_not_installed_is_told(tmp_path: Path, ray_runtime: None) -> None:
    from rec.runtime.prepare import OnRay

    found = job_of(tmp_path, 1, writer={"kind": "vllm", "model": "m"})
    found.runner = OnRay()
    with pytest.raises(ConfigError, match="needs the package vllm, which is not installed here"):
        all_of(found)
