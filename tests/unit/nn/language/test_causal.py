"""Causal models: small ones by seed, pretrained ones by path, LoRA."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rec.errors import ConfigError
from rec.nn.language.causal import causal_model, is_attention, skeleton
from rec.nn.language.config import LanguageConfig
from rec.nn.language.gated import GatedConfig, gate_layers
from tests.support.small import small, states

TOKEN_BT = torch.arange(12).view(2, 6)


def state(model: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = model.state_dict()
    return found


def test_a_small_model_follows_from_its_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other, third = (causal_model(small(), 40, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state(other)[name]) for name, value in state(one).items())
    assert not torch.equal(state(one)["lm_head.weight"], state(third)["lm_head.weight"])


def test_a_pretrained_model_comes_by_its_path_in_any_precision(tmp_path: Path) -> None:
    first = causal_model(small(), 40, 3).eval()
    first.save_pretrained(tmp_path)
    again = causal_model(LanguageConfig(name=str(tmp_path)), 38, 0).eval()
    torch.testing.assert_close(states(again, TOKEN_BT), states(first, TOKEN_BT))
    half = causal_model(LanguageConfig(name=str(tmp_path), dtype="bfloat16"), 40, 0)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert sum(p.numel() for p in skeleton(LanguageConfig(name=str(tmp_path)), 40).parameters()) == sum(
        p.numel() for p in first.parameters()
    )
    with pytest.raises(ConfigError, match=r"language\.name: .* knows 40 tokens, the data has 41; prepare with"):
        causal_model(LanguageConfig(name=str(tmp_path)), 41, 0)


@pytest.mark.parametrize("made", [causal_model, lambda config, words, _: skeleton(config, words)])
def test_a_model_that_is_not_there_is_refused(tmp_path: Path, made: Any) -> None:
    with pytest.raises(ConfigError, match=r"language\.name: .* is no language model that loads here"):
        made(LanguageConfig(name=str(tmp_path / "none")), 40, 0)


def test_lora_starts_as_the_model_and_trains_nothing_else() -> None:
    plain, adapted = causal_model(small(), 40, 3).eval(), causal_model(small(lora=2), 40, 3).eval()
    torch.testing.assert_close(states(adapted, TOKEN_BT), states(plain, TOKEN_BT))
    moving = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(moving) == 2 * 4 * 2  # layers, maps of attention, A and B
    assert all("lora_" in name and "self_attn" in name for name in moving)
    layers, _ = gate_layers(adapted, GatedConfig(shared="dense"), 3, 0)
    for layer in layers:
        assert all(p.requires_grad for p in [*layer.experts.parameters(), *layer.router.parameters()])
        assert not any(p.requires_grad for p in layer.shared.parameters())


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("model.layers.0.self_attn.q_proj", True),
        ("h.3.attn.c_proj", True),
        ("h.3.mlp.c_proj", False),
        ("q_proj", False),
    ],
)
def test_maps_of_attention_are_told_from_those_of_networks(name: str, is_one: bool) -> None:
    assert is_attention(name) is is_one


def test_models_that_change_their_scores_are_refused(tmp_path: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    form = Gemma2Config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    Gemma2ForCausalLM(form).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="changes its scores by final_logit_softcapping"):
        causal_model(LanguageConfig(name=str(tmp_path)), 40, 0)


def test_keys_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of twice the heads, got 4"):
        LanguageConfig(width=12)
