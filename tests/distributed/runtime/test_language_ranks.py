"""A language model with gated experts over workers: the same losses however experts, rows and activations are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.moe.layer import layers_of
from rec.nn.language.gated import GatedConfig
from rec.nn.memory import Parameters
from rec.systems.api import Phase
from rec.systems.gavamoe.prompt import PairPromptConfig, PairPrompter, Prompt
from rec.systems.gavamoe.writer import PairWriter
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import LocalEngine
from rec.train.feed import in_parts
from rec.train.phases import Stretch
from rec.train.progress import TrainingProgress
from rec.train.update import Update
from tests.support.small import small, tokenizer
from tests.support.states import state_of

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]

STEPS, ROWS, CLUSTERS, WIDTH = 3, 8, 3, 5
TRAIN = TrainConfig(learning_rate=0.01, clip_norm=0.5)
STRETCH = Stretch(phase=Phase(), config=TRAIN, index=0, count=1)
TEXTS = ["the sound is great .", "the price", "", "a fine phone , and the battery lasts .", "", "the", "a", "it"]
FEATURES = ["sound", "price", "battery", ""] * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Batch):
    """Some pairs."""

    prompt: Prompt
    user_BF: Tensor
    item_BF: Tensor
    cluster_B: Tensor

    def __len__(self) -> int:
        return len(self.cluster_B)


class Model(nn.Module):
    """A writer, asked by batch."""

    def __init__(self, writer: PairWriter) -> None:
        super().__init__()
        self.writer = writer

    def forward(self, batch: Asked) -> Any:
        return self.writer(batch.prompt, batch.user_BF, batch.item_BF, batch.cluster_B)


class Writes:
    """What a step needs of a system."""

    def loss(self, model: Any, batch: Asked) -> dict[str, Any]:
        written = model(batch)
        terms: dict[str, Any] = getattr(model, "module", model).writer.terms(written)
        return terms

    def counts(self, module: Any, batch: Asked) -> dict[str, float] | None:
        counts: dict[str, float] | None = module.writer.counts(batch.prompt)
        return counts


def model(language: dict[str, Any], balance: float = 0.0) -> Model:
    torch.manual_seed(0)
    experts = GatedConfig(experts=2, fine=2, balance_weight=balance, shared="dense" if "lora" in language else "none")
    writer = PairWriter(small(**language), experts, clusters=CLUSTERS, features=WIDTH, tokens=tokenizer())
    return Model(writer).train()


def batches(step: int, rank: int, world: int, parts: int) -> list[tuple[Asked, bool]]:
    """Return this rank's microbatches of a step."""
    chance = torch.Generator().manual_seed(step)
    columns = {
        "text": TEXTS, "feature": FEATURES, "rating": [5.0, 1.0, 3.0, 4.0] * 2,
        "user": torch.randn(ROWS, WIDTH, generator=chance), "item": torch.randn(ROWS, WIDTH, generator=chance),
        "cluster": torch.randint(0, CLUSTERS, (ROWS,), generator=chance),
    }  # fmt: skip
    own = slice(ROWS * rank // world, ROWS * (rank + 1) // world)
    prompter = PairPrompter(PairPromptConfig(words="short"), tokenizer(), 20)
    found = []
    for part, whole in in_parts({name: column[own] for name, column in columns.items()}, parts):
        prompt = prompter.prompt(part["rating"], part["feature"], part["text"])
        told = {"user_BF": part["user"], "item_BF": part["item"], "cluster_B": part["cluster"]}
        found.append((Asked(prompt=prompt, **told), whole))
    return found


def losses(engine: Any, rank: int, world: int, parts: int) -> list[list[float]]:
    progress = TrainingProgress()
    system: Any = Writes()
    update = Update(system, STRETCH, engine, progress, lambda _: None)
    return [list(update(batches(step, rank, world, parts), 0.01, False)[0].values()) for step in range(STEPS)]


def spread(
    rank: int, world: int, parallel: dict[str, Any], language: dict[str, Any], parts: int, balance: float
) -> dict[str, Any]:
    """Return the terms of three steps, the bytes of experts that this rank holds, how experts were used, the state."""
    from rec.runtime.deepspeed import DeepSpeedEngine

    engine = DeepSpeedEngine(model(language, balance), TRAIN, ParallelConfig(workers=world, **parallel))
    layers = [layer for _, layer in layers_of(engine.module)]
    held = sum(p.numel() * p.element_size() for layer in layers for p in layer.experts.parameters())
    found = losses(engine, rank, world, parts)
    used = [layer.usage.total[: layer.num_experts].tolist() for layer in layers]
    told = {"weights": sum(p.numel() * p.element_size() for p in engine.module.parameters())}
    inner = engine._inner()
    moments = [slots[name] for slots in inner.state.values() for name in ("exp_avg", "exp_avg_sq")]
    copies = getattr(engine.optimizer, "single_partition_of_fp32_groups", [])
    told["optimiser"] = sum(value.numel() * value.element_size() for value in [*moments, *copies])
    return {"losses": found, "held": held, "used": used, "told": told, "state": state_of(engine)}


CASES = [
    (1, {"expert_parallel": 1, "zero_stage": 1}, {}, 1, 0.1),
    (2, {"expert_parallel": 1, "zero_stage": 1}, {}, 1, 0.1),
    (2, {"expert_parallel": 2, "zero_stage": 1}, {}, 1, 0.1),
    (2, {"expert_parallel": 2, "zero_stage": 2}, {"checkpointing": True}, 1, 0.1),
    (2, {"expert_parallel": 2, "zero_stage": 1}, {"checkpointing": True}, 2, 0.0),
    (2, {"expert_parallel": 2, "zero_stage": 2}, {"checkpointing": True}, 3, 0.0),
    (2, {"expert_parallel": 2, "zero_stage": 0}, {}, 2, 0.0),
    (2, {"expert_parallel": 2, "zero_stage": 1}, {"lora": 2, "checkpointing": True}, 3, 0.1),
    (2, {"expert_parallel": 1, "zero_stage": 2}, {"lora": 2}, 2, 0.0),
    (2, {"expert_parallel": 2, "zero_stage": 1}, {"lora": 2, "checkpointing": True}, 1, 0.1),
]


@pytest.mark.parametrize(("world", "parallel", "language", "parts", "balance"), CASES)
def test_losses_are_those_of_one_process(
    ranks: Any, world: int, parallel: dict[str, Any], language: dict[str, Any], parts: int, balance: float
) -> None:
    local = LocalEngine(model({**language, "checkpointing": False}, balance), TRAIN)
    layers = [layer for _, layer in layers_of(local.module)]
    whole = sum(p.numel() * p.element_size() for layer in layers for p in layer.experts.parameters())
    wanted = losses(local, 0, 1, 1)
    used = [layer.usage.total[: layer.num_experts].tolist() for layer in layers]
    state = state_of(local)
    experts = sum(p.numel() for layer in layers for p in layer.experts.parameters())
    trained = sum(p.numel() for p in local.module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in local.module.parameters() if not p.requires_grad)
    held = Parameters(trained=trained - experts, frozen=frozen, experts=experts)
    memory = held.memory(ParallelConfig(workers=world, **parallel))
    for found in ranks.run(world, spread, parallel, language, parts, balance):
        assert found["told"]["weights"] == memory.weights
        assert found["told"]["optimiser"] == pytest.approx(memory.optimiser, rel=0.02)  # partitions are padded
        torch.testing.assert_close(torch.tensor(found["losses"]), torch.tensor(wanted), rtol=1e-4, atol=1e-4)
        assert found["held"] == whole / parallel["expert_parallel"]
        torch.testing.assert_close(torch.tensor(found["used"]), torch.tensor(used))
        for name, value in state.items():
            if name.startswith("model."):
                torch.testing.assert_close(found["state"][name], value, rtol=5e-3, atol=5e-3, msg=name)


@pytest.mark.parametrize("parallel", [{"expert_parallel": 2, "zero_stage": 1}, {"expert_parallel": 1, "zero_stage": 2}])
def test_half_precision_comes_near(ranks: Any, parallel: dict[str, Any]) -> None:
    language = {"checkpointing": True}
    wanted = losses(LocalEngine(model({}, 0.1), TRAIN), 0, 1, 1)
    for found in ranks.run(2, spread, {**parallel, "precision": "bf16"}, language, 2, 0.0):
        texts = [[step[0]] for step in found["losses"]]
        torch.testing.assert_close(
            torch.tensor(texts), torch.tensor([[step[0]] for step in wanted]), rtol=0.05, atol=0.05
        )
