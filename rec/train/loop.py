"""The one training loop. Knows batches, terms and engines; knows no cluster and no model.

What is random at a step depends on (seed, step, rank) alone, and where the run stands is in `Progress`; the two
together let a run go on from any checkpoint as if it had not been interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.errors import TrainingError
from rec.evaluation.measure import measure, metrics
from rec.keys import TrainConfig
from rec.moe.layer import layers_of
from rec.seeds import derive
from rec.system import Phase, System
from rec.train.checkpoint import Checkpoint
from rec.train.engine import Engine
from rec.train.optim import learning_rate

Report = Callable[[dict[str, Any]], None]
"""Receives events: {"kind": "step" | "evaluated" | "saved" | ..., ...}. Never blocks on other ranks."""


EVALUATING_S = 2.0
"""Seconds between reports of how far an evaluation is."""


class Feed(Protocol):
    """Gives this rank its batches."""

    steps: int
    """Optimiser steps per epoch."""

    def train(self, epoch: int, start: int) -> Iterator[tuple[Batch, bool]]:
        """Yield the batches of an epoch from step `start`, and whether each counts."""

    def evaluate(self, split: str) -> Iterator[tuple[Batch, bool]]:
        """Yield the batches of a split, and whether each counts."""

    def examples(self, split: str) -> int:
        """Return how many examples a split has, over all ranks."""


@dataclass
class Progress:
    """Where a run stands; part of every checkpoint."""

    phase: int = 0
    epoch: int = 0
    step: int = 0
    """Steps done in this epoch."""
    total_step: int = 0
    best: float = -math.inf
    stale: int = 0
    """Evaluations since the best one."""
    finished: bool = False
    sums: dict[str, list[float]] = field(default_factory=dict)
    """(sum, count) of each loss term in this epoch."""
    usage: dict[str, list[float]] = field(default_factory=dict)
    """What each mixture layer has counted since the last evaluation."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record per evaluation."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything one training run needs."""

    system: System[Any, Any]
    config: TrainConfig
    wrap: Callable[[nn.Module], Engine]
    feed: Feed
    report: Report
    save: Callable[[Checkpoint, bool], None] | None
    """Writes a checkpoint and whether it is the best; None on ranks that write none."""
    resume: Checkpoint | None = None


def fit(job: Job) -> Progress:
    """Train every phase of the system and return where the run ended.

    A phase changes which parameters move, and backends fix that set when they wrap a model, so each phase wraps the
    same module afresh.

    Raises:
        TrainingError: a loss is not finite.
    """
    torch.manual_seed(derive(job.config.seed, "model"))
    module = job.system.model()
    progress = Progress(**job.resume.state) if job.resume else Progress()
    resume = job.resume
    phases = job.system.phases()
    while progress.phase < len(phases) and not progress.finished:
        phase = phases[progress.phase]
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(any(fnmatch(name, glob) for glob in phase.trains))
        engine = job.wrap(module)
        if resume is not None:
            engine.load_state(resume.tensors)
            for name, layer in layers_of(engine.module):
                layer.usage.load(progress.usage[name])
            resume = None
        job.report({"kind": "ready", "rank": engine.rank, "step": progress.total_step})
        _run_phase(job, phase, engine, progress)
        module = engine.module
        if progress.phase + 1 == len(phases):
            progress.finished = True
            break
        # A phase's best value says nothing about the next phase's, which trains other parts.
        progress.phase, progress.epoch, progress.step, progress.stale = progress.phase + 1, 0, 0, 0
        progress.best = -math.inf
    return progress


def _run_phase(job: Job, phase: Phase, engine: Engine, progress: Progress) -> None:
    epochs = phase.epochs or job.config.epochs
    saved_s = time.monotonic()
    while progress.epoch < epochs:
        saved_s = _run_epoch(job, phase, engine, progress, epochs, saved_s)
        due = (progress.epoch + 1) % job.config.evaluate_every == 0 or progress.epoch + 1 == epochs
        losses = {f"loss/{name}": total / count for name, (total, count) in progress.sums.items()}
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        if not due:
            continue
        started_s = time.monotonic()
        means = metrics(
            job.system, measure(job.system, engine, job.feed.evaluate("val"), told=_evaluating(job, engine))
        )
        evaluate_s = time.monotonic() - started_s
        stop = _judge(job, progress, means, losses | _take_usage(engine), evaluate_s)
        _save(job, engine, progress, best=progress.stale == 0)
        saved_s = time.monotonic()
        if stop:
            return


def _evaluating(job: Job, engine: Engine) -> Callable[[int], None]:
    """Return what reports now and then how many examples of validation are done, over all ranks."""
    total, told_s = job.feed.examples("val"), time.monotonic()

    def told(done: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s > EVALUATING_S:
            told_s, everywhere = time.monotonic(), min(done * engine.world_size, total)
            job.report({"kind": "evaluating", "rank": engine.rank, "done": everywhere, "total": total})

    return told


def _run_epoch(job: Job, phase: Phase, engine: Engine, progress: Progress, epochs: int, saved_s: float) -> float:
    """Train the rest of one epoch; return when the last checkpoint was made."""
    config = job.config
    engine.module.train()
    job.system.start_epoch(engine.module, progress.epoch)
    batches = iter(job.feed.train(progress.epoch, progress.step))
    shown_s, started_s, wait_s, examples, first = 0.0, time.monotonic(), 0.0, 0, progress.step
    while progress.step < job.feed.steps:
        asked_s = time.monotonic()
        batch, counts = next(batches)
        wait_s += time.monotonic() - asked_s
        torch.manual_seed(derive(config.seed, "step", progress.phase, progress.total_step, engine.rank))
        due = config.checkpoint_minutes and time.monotonic() - saved_s > 60 * config.checkpoint_minutes
        means, save_now = _update(job, phase, engine, progress, batch, counts, bool(due), epochs)
        progress.step += 1
        progress.total_step += 1
        examples += len(batch) * engine.world_size
        if save_now or (config.checkpoint_steps and progress.total_step % config.checkpoint_steps == 0):
            _save(job, engine, progress, best=False)
            saved_s = time.monotonic()
        now = time.monotonic()
        last = progress.step == job.feed.steps
        if now - shown_s > 0.5 or last or progress.step == first + 1:
            shown_s = now
            job.report(
                {
                    "kind": "step",
                    "rank": engine.rank,
                    "phase": phase.name,
                    "epoch": progress.epoch,
                    "epochs": epochs,
                    "step": progress.step,
                    "steps": job.feed.steps,
                    "total_step": progress.total_step,
                    "loss": sum(means.values()),
                    "examples_per_s": examples / (now - started_s),
                    "wait_share": wait_s / (now - started_s),
                    "moe": {name: layer.usage.summary(last=True) for name, layer in layers_of(engine.module)},
                }
            )
    return saved_s


def _update(
    job: Job, phase: Phase, engine: Engine, progress: Progress, batch: Batch, counts: bool, due: bool, epochs: int
) -> tuple[dict[str, float], bool]:
    """Make one optimiser step; return the global mean of each term and whether rank 0 asks for a checkpoint."""
    mixtures = list(layers_of(engine.module))
    for _, layer in mixtures:
        layer.counting = counts
    terms = job.system.loss(engine, batch.to(engine.device))
    terms = {name: term for name, term in terms.items() if any(fnmatch(name, glob) for glob in phase.terms)}
    if not terms:
        raise TrainingError(f"phase {phase.name!r}: no loss term matches {phase.terms}")
    local = torch.stack(
        [torch.stack([term.sum.detach().double().cpu(), _double(term.count)]) for term in terms.values()]
    ) * float(counts)
    wish = torch.tensor([[float(due and engine.rank == 0), 0.0]], dtype=torch.float64)
    total = engine.sum_over_ranks(torch.cat([local, wish]))
    means: dict[str, float] = {}
    for name, (value, count) in zip(terms, total[:-1].tolist(), strict=True):
        if not math.isfinite(value):
            raise TrainingError(
                f"epoch {progress.epoch} step {progress.step}: loss term {name!r} is {value}; "
                "lower train.learning_rate, set train.clip_norm, or look for broken inputs"
            )
        mean = terms[name].value_of(value, count)
        sums = progress.sums.setdefault(name, [0.0, 0.0])
        sums[0], sums[1] = sums[0] + mean * count, sums[1] + count
        means[name] = mean * terms[name].weight
    parts = [
        term.part_of(value, count) * (term.weight * float(counts) * engine.world_size)
        for term, (value, count) in zip(terms.values(), total[:-1].tolist(), strict=True)
    ]
    engine.backward(torch.stack([part.float() for part in parts]).sum())
    norm = engine.step(learning_rate(job.config, progress.total_step, epochs * job.feed.steps))
    if not math.isfinite(norm):
        raise TrainingError(f"epoch {progress.epoch} step {progress.step}: the gradient's norm is {norm}")
    for _, layer in mixtures:
        layer.after_step()
    return means, bool(total[-1, 0])


def _judge(
    job: Job, progress: Progress, means: dict[str, float | None], trained: dict[str, Any], evaluate_s: float
) -> bool:
    """Record an evaluation and return whether to stop early."""
    value = means.get(job.config.metric)
    if value is None:
        known = ", ".join(name for name, found in means.items() if found is not None)
        raise TrainingError(f"train.metric: {job.config.metric!r} is not measured; there are {known}")
    progress.stale = 0 if value > progress.best else progress.stale + 1
    progress.best = max(progress.best, value)
    record = {"phase": progress.phase, "epoch": progress.epoch, "total_step": progress.total_step, **trained, **means}
    progress.history.append(record)
    job.report(
        {"kind": "evaluated", "metric": job.config.metric, "best": progress.stale == 0, "evaluate_s": evaluate_s}
        | record
    )
    return bool(job.config.patience) and progress.stale >= job.config.patience


def _take_usage(engine: Engine) -> dict[str, Any]:
    """Return how each mixture layer's experts were used since the last call: metrics, and each expert's load."""
    found: dict[str, Any] = {}
    for name, layer in layers_of(engine.module):
        metrics = {**layer.usage.summary(), **layer.told(), "load": layer.usage.load_E().tolist()}
        found |= {f"moe/{name}/{metric}": value for metric, value in metrics.items()}
        layer.usage.clear()
    return found


def _save(job: Job, engine: Engine, progress: Progress, best: bool) -> None:
    """Collect the state on every rank and write it where this rank writes."""
    progress.usage = {name: layer.usage.state() for name, layer in layers_of(engine.module)}
    job.report({"kind": "saving", "rank": engine.rank, "total_step": progress.total_step})
    state = engine.state()
    if job.save is not None:
        job.save(Checkpoint(progress.total_step, state, asdict(progress)), best)
        job.report({"kind": "saved", "rank": engine.rank, "total_step": progress.total_step})


def _double(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).cpu()
