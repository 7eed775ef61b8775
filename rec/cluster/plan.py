"""What a run would do with a cluster, told before anything starts: places, shares, bytes, memory; imports no Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from rec.batch import Batch
from rec.cluster.machines import Machine
from rec.cluster.placing import expert_groups
from rec.cluster.rehearsal import Noted, rehearse
from rec.cluster.traffic import FULL, Mixture, StepTraffic, Traffic, traffic
from rec.moe.layer import MixtureOfExperts, layers_of, layers_to_spread
from rec.nn.base import is_referred_to
from rec.nn.memory import HALF, Memory, Parameters, resident
from rec.nn.sharded import ShardedEmbedding, tables_of
from rec.seeds import derive
from rec.systems.api import System
from rec.train.config import ParallelConfig
from rec.train.phases import Stretch, own_flags, select
from rec.train.ranks import OneRank, RankFeed

NORM, NORMS = 4, 2
"""Bytes of a sum by which DeepSpeed finds the norm of gradients, and how many it makes in a step."""


@dataclass(frozen=True, slots=True)
class StepSample:
    """What the first rank computes in a step."""

    micro: Sequence[tuple[Batch, bool]]
    """Microbatches, and whether each counts."""
    scale: float = 1.0
    """How many times as many rows each of them has in a run."""


@dataclass(frozen=True, slots=True)
class ExpertsPlan:
    """A mixture layer whose experts are spread, or lie whole on every rank."""

    layer: str
    experts: int
    choices: int
    """Experts of a row."""
    parameters: int
    """Of all its experts."""
    ranges: list[tuple[int, int]]
    """First expert and the one after the last, by place in a group."""


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A sharded table, and which of its rows each rank holds."""

    table: str
    rows: int
    width: int
    ranges: list[tuple[int, int]]
    """First row and the one after the last, by rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """How many parameters a model has."""

    total: int
    """All, with the numbers of sharded tables."""
    experts: int
    frozen: int
    """Those that the model itself never trains."""
    tables: int
    """Numbers in sharded tables."""
    active: int
    """Those that a row passes: all but tables and the experts that it is not given to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A phase of the run."""

    name: str
    examples: int
    """Examples of a step, over all ranks."""
    trained: int
    """Parameters that move, over all ranks."""
    scale: float
    """How many times as many rows a microbatch has as the one that was measured."""
    work: StepTraffic
    traffic: Traffic
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """What a run would do with a cluster."""

    parallel: ParallelConfig
    machines: Sequence[Machine]
    nodes: Sequence[int]
    """The node of each rank."""
    groups: list[list[int]]
    """Ranks that share a copy of the experts."""
    experts: list[ExpertsPlan]
    tables: list[TablePlan]
    table_bytes: int
    """Of one worker's rows, with the optimiser's sums."""
    counts: ParameterCounts
    stages: list[Stage]

    @property
    def ranks_of(self) -> list[list[int]]:
        """Return the ranks of each node."""
        return [[rank for rank, node in enumerate(self.nodes) if node == place] for place in range(len(self.machines))]

    @property
    def across(self) -> list[list[int]]:
        """Return the groups that lie on several nodes."""
        return [group for group in self.groups if len({self.nodes[rank] for rank in group}) > 1]

    def resident(self, stage: Stage) -> int | None:
        """Return the most bytes that a worker on CPUs has resident in a phase, None on GPUs and without workers."""
        if not self.parallel.workers or self.parallel.gpu:
            return None
        return resident(stage.memory.total + self.table_bytes)


def plan(
    system: System[Any, Any],
    found: Sequence[Stretch],
    sample_of: Callable[[Stretch], StepSample],
    parallel: ParallelConfig,
    *,
    machines: Sequence[Machine],
    nodes: Sequence[int],
) -> ClusterPlan:
    """Return what a run would do with ranks on these nodes.

    Args:
        system: With its tables.
        found: The phases.
        sample_of: What the first rank computes in a step of a phase.
        parallel: With the number of workers.
        machines: The nodes.
        nodes: The node of each rank, by its place among them.

    Raises:
        ConfigError: the experts cannot be spread as the keys say.
    """
    torch.manual_seed(derive(found[0].config.seed, "model"))
    module: nn.Module = system.model()
    layers_to_spread(module, parallel.expert_parallel, parallel.moe_backend)
    own, tables = own_flags(module), [table for _, table in tables_of(module)]
    stages, choices = [], dict[str, int]()
    for stretch in found:
        sample = sample_of(stretch)
        _begin(module, stretch, own, sample)
        trained = ParameterParts.of(module)
        noted = rehearse(system, stretch, module, sample.micro, workers=len(nodes))
        choices |= noted.choices
        stages.append(_stage(stretch, trained, sample, noted, parallel, nodes))
    return ClusterPlan(
        parallel=parallel,
        machines=machines,
        nodes=nodes,
        groups=expert_groups(nodes, parallel.expert_parallel),
        experts=[_experts(name, layer, choices, parallel) for name, layer in _spread(module)],
        tables=[_rows(name, table, len(nodes)) for name, table in tables_of(module)],
        table_bytes=sum(-(-table.rows // len(nodes)) * (table.width + 1) * FULL for table in tables),
        counts=_counts(module, own, choices),
        stages=stages,
    )


def _begin(module: nn.Module, stretch: Stretch, own: Mapping[str, bool], sample: StepSample) -> None:
    """Choose what moves in a phase, and do what is done once before it, with the sample for its rows."""
    select(module, stretch.phase, own)
    setattr(module, "phase", stretch.phase.name)  # noqa: B010 (a module's attributes are typed as tensors and modules)
    if stretch.phase.before is not None:
        rows = [(batch, True) for batch, _ in sample.micro]
        stretch.phase.before(module.eval(), RankFeed(OneRank(), lambda _: iter(rows)))


def _spread(module: nn.Module) -> list[tuple[str, MixtureOfExperts]]:
    return [(name, layer) for name, layer in layers_of(module) if not layer.replicated]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterParts:
    """Numbers of parameters, by whether they move and whether they belong to experts."""

    dense: int = 0
    experts: int = 0
    frozen: int = 0
    frozen_experts: int = 0
    other_bytes: int = 0
    """Of buffers, which every rank holds too."""

    @classmethod
    def of(cls, module: nn.Module) -> ParameterParts:
        """Return those of a module."""
        inside = {id(p) for _, layer in _spread(module) for p in layer.experts.parameters()}
        held = [parameter for parameter in module.parameters() if not is_referred_to(parameter)]
        sizes = {(moves, spread): 0 for moves in (True, False) for spread in (True, False)}
        for parameter in held:
            sizes[parameter.requires_grad, id(parameter) in inside] += parameter.numel()
        return cls(
            dense=sizes[True, False],
            experts=sizes[True, True],
            frozen=sizes[False, False],
            frozen_experts=sizes[False, True],
            other_bytes=sum(buffer.nbytes for buffer in module.buffers()),
        )


def _stage(
    stretch: Stretch,
    parts: ParameterParts,
    sample: StepSample,
    noted: Noted,
    parallel: ParallelConfig,
    nodes: Sequence[int],
) -> Stage:
    half = parallel.workers > 0 and parallel.precision == "bf16"
    width = HALF if half else FULL
    scaled = [_scaled(mixture, sample.scale, half) for mixture in noted.mixtures]
    work = StepTraffic(
        dense=parts.dense,
        experts=parts.experts,
        expert_parallel=parallel.expert_parallel,
        zero_stage=parallel.zero_stage,
        number_bytes=width,
        mixtures=tuple(scaled),
        tables=tuple(replace(table, asked=table.asked * sample.scale) for table in noted.tables),
        sums=(*noted.sums, *[NORM] * (NORMS if len(nodes) > 1 else 0)),
        # What was noted is of all microbatches; only ZeRO 2 sums gradients after each.
        gradient_sums=len(sample.micro) if parallel.zero_stage == 2 else 1,
        owners_alone=not parallel.gpu,
        backend=parallel.moe_backend,
    )
    frozen = parts.frozen + parts.frozen_experts // parallel.expert_parallel
    held = Parameters(trained=parts.dense, frozen=frozen, experts=parts.experts).memory(parallel)
    activations = int(noted.activations * sample.scale * width / FULL)
    return Stage(
        name=stretch.phase.name,
        examples=stretch.config.batch_size,
        trained=parts.dense + parts.experts,
        scale=sample.scale,
        work=work,
        traffic=traffic(work, nodes),
        memory=replace(
            held,
            weights=held.weights + parts.other_bytes,
            activations=activations,
            keeps_gradients=len(sample.micro) > 1,
        ),
    )


def _scaled(mixture: Mixture, scale: float, half: bool) -> Mixture:
    number_bytes = HALF if half and mixture.number_bytes == FULL else mixture.number_bytes
    return replace(mixture, rows=mixture.rows * scale, number_bytes=number_bytes)


def _experts(name: str, layer: MixtureOfExperts, choices: Mapping[str, int], parallel: ParallelConfig) -> ExpertsPlan:
    here = layer.num_experts // parallel.expert_parallel
    return ExpertsPlan(
        layer=name,
        experts=layer.num_experts,
        choices=choices.get(name, 0),
        parameters=sum(parameter.numel() for parameter in layer.experts.parameters()),
        ranges=[(place * here, (place + 1) * here) for place in range(parallel.expert_parallel)],
    )


def _rows(name: str, table: ShardedEmbedding, ranks: int) -> TablePlan:
    each = -(-table.rows // ranks)
    ends = [min(each * rank, table.rows) for rank in range(ranks + 1)]
    return TablePlan(table=name, rows=table.rows, width=table.width, ranges=list(pairwise(ends)))


def _counts(module: nn.Module, own: Mapping[str, bool], choices: Mapping[str, int]) -> ParameterCounts:
    sizes = {name: p.numel() for name, p in module.named_parameters() if not is_referred_to(p)}
    experts, idle = 0, 0.0
    for name, layer in _spread(module):
        size = sum(parameter.numel() for parameter in layer.experts.parameters())
        experts += size
        idle += size * (1 - choices.get(name, 0) / layer.num_experts)
    tables = sum(table.rows * table.width for _, table in tables_of(module))
    return ParameterCounts(
        total=sum(sizes.values()) + tables,
        experts=experts,
        frozen=sum(size for name, size in sizes.items() if not own[name]),
        tables=tables,
        active=round(sum(sizes.values()) - idle),
    )
