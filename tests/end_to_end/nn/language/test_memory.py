"""What is estimated of memory, beside what is measured."""

from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from rec.errors import ConfigError
from rec.nn.language.causal import causal_model, skeleton
from rec.nn.language.config import LanguageConfig
from rec.nn.language.gated import GatedConfig
from rec.nn.language.memory import TextSize, language_memory, parameters
from rec.nn.memory import BUCKET, Memory, Parameters
from rec.systems.gavamoe.prompt import Prompt
from rec.systems.gavamoe.writer import PairWriter
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.memory import capacity, refuse_beyond
from tests.support.small import tokenizer

TOKENS = tokenizer()
PROMPT, ANSWER, ROWS, CLUSTERS, FEATURES = 12, 16, 48, 4, 8


def parts(language: dict[str, Any], experts: dict[str, Any]) -> tuple[LanguageConfig, GatedConfig]:
    sizes = {"width": 64, "layers": 3, "heads": 4, "hidden": 128}
    return LanguageConfig(**{**sizes, **language}), GatedConfig(**experts)


def measured(language: LanguageConfig, experts: GatedConfig) -> int:
    """Return the most bytes of tensors in the second step of training, when the optimiser has its moments."""
    torch.manual_seed(0)
    module = PairWriter(language, experts, clusters=CLUSTERS, features=FEATURES, tokens=TOKENS).train()
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad])
    shape = (1, ROWS, PROMPT), (ROWS, ANSWER)
    prompt = Prompt(
        token_MBP=torch.randint(0, 250, shape[0]),
        answer_BA=torch.randint(0, 250, shape[1]),
        common_L=torch.zeros(0, dtype=torch.int64),
    )
    told_BF, cluster_B = torch.randn(ROWS, FEATURES), torch.arange(ROWS) % CLUSTERS

    def step() -> None:
        terms = module.terms(module(prompt, told_BF, told_BF, cluster_B))
        torch.stack([term.mean for term in terms.values()]).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step()
    tracker = MemTracker()
    tracker.track_external(module, optimiser)
    with tracker:
        step()
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


@pytest.mark.parametrize(
    ("language", "experts"),
    [
        ({}, {}),
        ({"checkpointing": True}, {}),
        ({"hidden": 384, "width": 96, "layers": 2}, {"experts": 2, "fine": 3, "per_row": 2}),
        ({}, {"experts": 0}),
        ({"dtype": "bfloat16"}, {"shared": "dense", "per_row": 1}),
        ({"checkpointing": True, "layers": 5}, {"layers": (1, 3), "experts": 8}),
    ],
)
def test_the_estimate_is_within_a_fifth_of_what_is_measured(language: dict[str, Any], experts: dict[str, Any]) -> None:
    keys, gated = parts(language, experts)
    texts = TextSize(prompt=PROMPT, answer=ANSWER, evaluated=8)
    told = language_memory(
        keys, gated, TrainConfig(batch_size=ROWS), ParallelConfig(), texts,
        clusters=CLUSTERS, vocabulary=TOKENS.vocabulary, given=FEATURES,
    )  # fmt: skip
    assert told.total == pytest.approx(measured(keys, gated), rel=0.2)


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize(
    "experts", [{}, {"fine": 3, "shared": "dense"}, {"layers": (0,), "gates": "one"}, {"experts": 0}]
)
def test_parameters_are_those_of_the_model(lora: int, experts: dict[str, Any]) -> None:
    keys, gated = parts({"lora": lora}, experts)
    module = PairWriter(keys, gated, clusters=CLUSTERS, features=FEATURES, tokens=TOKENS)
    found = parameters(skeleton(keys, TOKENS.vocabulary), keys, gated, clusters=CLUSTERS, given=FEATURES)
    own = sum(p.numel() for layer in module.layers for p in layer.experts.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert (found.experts, found.trained) == (own, trained - own)
    assert found.frozen == sum(p.numel() for p in module.parameters() if not p.requires_grad)


def test_experts_of_a_worker_halve_with_expert_parallelism() -> None:
    keys, gated = parts({}, {"experts": 8})
    texts, shapes = TextSize(prompt=4, answer=4, evaluated=1), {"clusters": 4, "vocabulary": 100}
    one, two = (
        language_memory(
            keys, gated, TrainConfig(batch_size=2), ParallelConfig(workers=2, expert_parallel=n), texts, **shapes
        )
        for n in (1, 2)
    )
    experts = 3 * 8 * 3 * 64 * 128 * 4
    assert one.weights - two.weights == experts // 2


def test_bytes_of_parameters_follow_the_engine() -> None:
    found = Parameters(trained=100, frozen=10, experts=40)
    assert found.memory(ParallelConfig()) == Memory(weights=600, gradients=560, optimiser=1120)
    half = ParallelConfig(workers=4, expert_parallel=2, zero_stage=1, precision="bf16")
    assert found.memory(half) == Memory(
        weights=2 * (100 + 20 + 10), gradients=2 * 120 + 4 * 35, optimiser=12 * 35, buffers=2 * 140
    )
    plain = ParallelConfig(workers=2, zero_stage=0)
    assert found.memory(plain) == Memory(weights=600, gradients=560, optimiser=1120)
    large = Parameters(trained=4 * BUCKET).memory(ParallelConfig(workers=2, zero_stage=2))
    assert (large.buffers, large.gradients) == (4 * BUCKET, 4 * 2 * BUCKET + 4 * 2 * BUCKET)


def test_the_most_at_once_is_the_total() -> None:
    one = {"weights": 10, "optimiser": 20, "gradients": 5, "activations": 7}
    assert Memory(**one).total == 10 + 20 + 7
    assert Memory(**one, keeps_gradients=True).total == 10 + 20 + 5 + 7
    assert Memory(**one, cache=9).total == 10 + 20 + 9


def test_what_cannot_fit_is_refused() -> None:
    there = capacity("cpu", ParallelConfig())
    refuse_beyond(None, "cpu", ParallelConfig())
    refuse_beyond(Memory(weights=there), "cpu", ParallelConfig())
    with pytest.raises(
        ConfigError, match=r"parallel: a worker needs an estimated .* GiB \(weights .*, its machine has"
    ):
        refuse_beyond(Memory(weights=there + 1), "cpu", ParallelConfig())


def test_a_large_model_is_known_without_its_weights() -> None:
    """Llama-3.1-8B's shape as published, 12 experts of 1,280 in every layer: 6.04 billion parameters of experts."""
    keys = LanguageConfig(width=4096, layers=32, heads=32, hidden=14_336, lora=8)
    gated = GatedConfig(experts=1, fine=12, per_row=2)
    found = parameters(skeleton(keys, 1000), keys, gated, clusters=5)
    assert found.experts == 3 * 4096 * 1280 * 12 * 32
    assert next(skeleton(keys, 1000).parameters()).is_meta
    assert not next(causal_model(parts({}, {})[0], 50, 0).parameters()).is_meta
