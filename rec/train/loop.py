"""The one training loop. Knows batches, terms and engines; knows no cluster and no model.

What is random at a step depends on (seed, step, rank) alone, and where the run stands is in `TrainingProgress`; the two
together let a run go on from any checkpoint as if it had not been interrupted.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from rec.batch import Batch
from rec.errors import TrainingError
from rec.evaluation.measure import measure, metrics
from rec.moe.layer import layers_of
from rec.nn.making import fill, made_empty
from rec.seeds import derive
from rec.systems.api import Phase, System
from rec.train.checkpoint import Checkpoint
from rec.train.config import TrainConfig
from rec.train.engine import Engine, load_model
from rec.train.feed import Microbatches, levelled
from rec.train.memory import peaks
from rec.train.microbatches import cut_in_words
from rec.train.optim import learning_rate
from rec.train.own_time import WATCH, OwnTime
from rec.train.phases import (
    Stretch,
    better,
    early_in_words,
    has_ended,
    higher_is_better,
    is_over,
    own_flags,
    select,
    stopped_early,
    stretches,
)
from rec.train.progress import TrainingProgress
from rec.train.ranks import OneRank, RankFeed, Ranks, equalise_buffers
from rec.train.replicas import average_running_statistics, replicated_of, start_step
from rec.train.saver import Saver
from rec.train.start import Start, fresh
from rec.train.update import LEAVE, SAVE, Left, Update
from rec.train.validation import is_loss, validation_loss

Report = Callable[[dict[str, Any]], None]
"""Receives events: {"kind": "step" | "evaluated" | "saved" | ..., ...}. Never blocks on other ranks."""


EVALUATING_S = 2.0
"""Seconds between reports of how far an evaluation is."""


class Feed(Protocol):
    """Gives this rank its batches."""

    def steps(self, phase: Phase) -> int:
        """Return the optimiser steps per epoch of a phase."""

    def train(self, phase: Phase, epoch: int, start: int) -> Iterator[Microbatches]:
        """Yield the batches of an epoch of a phase from step `start`, in microbatches, and whether each counts."""

    def evaluate(self, split: str, share: float = 1.0) -> Iterator[tuple[Batch, bool]]:
        """Yield the batches of a split, and whether each counts."""

    def examples(self, split: str) -> int:
        """Return how many examples a split has, over all ranks."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything one training run needs."""

    system: System[Any, Any]
    config: TrainConfig
    wrap: Callable[[nn.Module, TrainConfig], Engine]
    """Builds the engine of a phase from the phase's keys."""
    feed: Feed
    report: Report
    saver: Saver
    """Writes checkpoints, and reads them again, on every rank."""
    resume: Checkpoint | None = None
    start: Start | None = None
    """What a fresh model starts from that another run has learned."""
    ranks: Ranks = field(default_factory=OneRank)
    leaves: Callable[[], bool] = lambda: False
    """Tells the first rank whether the run is to save what it has done and leave."""
    directions: Mapping[str, bool] = field(default_factory=dict)
    """Whether higher is better, by metric; see `rec.train.phases.higher_is_better`."""
    own: OwnTime = field(default_factory=OwnTime)
    """Times this rank's own work of steps."""


def fit(job: Job) -> TrainingProgress:
    """Train every phase of the system and return where the run ended.

    A phase changes which parameters move, and backends fix that set when they wrap a model, so each phase wraps the
    same module afresh, after the engine of the phase before is gone. It starts from that phase's best weights.

    Raises:
        TrainingError: a loss is not finite.
    """
    progress = TrainingProgress(**job.resume.state) if job.resume else TrainingProgress()
    found = stretches(job.system, job.config, job.ranks.world_size)
    if is_over(progress, found):
        progress.finished = True
        return progress
    try:
        _train_phases(job, found, progress)
        job.saver.wait(job.report)
    except BaseException:
        job.saver.abandon()
        raise
    progress.finished = True
    return progress


def _train_phases(job: Job, found: Sequence[Stretch], progress: TrainingProgress) -> None:
    """Train every phase, or the rest of them."""
    module = _made(job)
    own = own_flags(module)
    resume = job.resume
    while True:
        stretch = found[progress.phase]
        if resume is not None and has_ended(progress, stretch.config):
            # Between two phases there is no engine: the module is as it was made, and takes the best weights whole.
            step = progress.best_step
            load_model(module, (resume if step is None else job.saver.restore(step)).tensors)
        else:
            module = _train_phase(job, stretch, module, own, progress, resume)
        resume = None
        if stretch.is_last:
            return
        gc.collect()  # engines refer to themselves
        progress.next_phase()


def _made(job: Job) -> nn.Module:
    """Return the model: without weights where they are read, without experts' where ranks may draw their own."""

    def make() -> nn.Module:
        torch.manual_seed(derive(job.config.seed, "model"))
        model: nn.Module = job.system.model()
        return model

    if job.resume is not None:
        return made_empty(make)
    return fresh(make, job.start, job.ranks, job.report)


def _train_phase(
    job: Job,
    stretch: Stretch,
    module: nn.Module,
    own: Mapping[str, bool],
    progress: TrainingProgress,
    resume: Checkpoint | None,
) -> nn.Module:
    """Train a phase, or the rest of one, and return the module with its best weights, free of the engine."""
    phase = stretch.phase
    moving = torch.tensor([float(select(module, phase, own))])
    if not float(job.ranks.sum(moving)):
        raise TrainingError(f"phase {phase.name!r}: no parameter that the model trains matches {phase.trains}")
    setattr(module, "phase", phase.name)  # noqa: B010 (a module's attributes are typed as tensors and modules)
    if resume is None and phase.before is not None:
        fill(module, job.ranks.device)
        torch.manual_seed(derive(job.config.seed, "before", stretch.index))
        phase.before(module.to(job.ranks.device).eval(), RankFeed(job.ranks, partial(_prepared, job)))
        equalise_buffers(module, job.ranks)
    engine = job.wrap(module, stretch.config)
    if resume is not None:
        engine.load_state(resume.tensors)
        for name, layer in layers_of(engine.module):
            layer.usage.load(progress.usage[name])
    job.report({"kind": "ready", "rank": engine.rank, "step": progress.total_step})
    if engine.rank == 0 and (text := cut_in_words(job.system, stretch, engine.module)):
        job.report({"kind": "note", "rank": 0, "text": text})
    _run_phase(job, stretch, engine, progress)
    job.saver.wait(job.report)
    if not stretch.is_last and progress.best_step not in (None, progress.total_step):
        engine.load_state(job.saver.restore(progress.best_step).tensors)
    module = engine.module
    engine.close()
    return module


def _run_phase(job: Job, stretch: Stretch, engine: Engine, progress: TrainingProgress) -> None:
    config = stretch.config
    saved_s = time.monotonic()
    while not has_ended(progress, config):
        saved_s = _run_epoch(job, stretch, engine, progress, saved_s)
        _tell_left_out(job, engine, progress)
        due = (progress.epoch + 1) % config.evaluate_every == 0 or progress.epoch + 1 == config.epochs
        losses = {f"loss/{n}": total / count if count else None for n, (total, count) in progress.sums.items()}
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        if not due:
            continue
        started_s = time.monotonic()
        average_running_statistics(engine)
        batches = _own_share(job, job.feed.evaluate("val", config.validation_share))
        told = _evaluating(job, engine, config.validation_share)
        means: dict[str, float | None]
        if is_loss(config.metric):
            means = validation_loss(job.system, stretch, engine, followed(batches, told))
        else:
            means = metrics(job.system, measure(job.system, engine, batches, told=told))
        evaluate_s = time.monotonic() - started_s
        _judge(job, stretch, progress, means, losses | _take_usage(engine), evaluate_s)
        _save(job, engine, progress, best=progress.stale == 0)
        saved_s = time.monotonic()


def _tell_left_out(job: Job, engine: Engine, progress: TrainingProgress) -> None:
    """Report, after the first epoch, how many subjects the loss leaves out; every rank calls it."""
    if progress.phase or progress.epoch:
        return
    count = len(set().union(*engine.gather(job.system.left_out)))
    if count and engine.rank == 0:
        text = f"left out of the loss: {count:,} who have every item, so that there is none that they have not"
        job.report({"kind": "note", "rank": 0, "text": text})


def followed(batches: Iterator[tuple[Batch, bool]], told: Callable[[int], None]) -> Iterator[tuple[Batch, bool]]:
    """Yield batches, and tell after each how many of this rank's examples are done."""
    done = 0
    for batch, counts in batches:
        yield batch, counts
        done += len(batch) if counts else 0
        told(done)


def _prepared(job: Job, split: str) -> Iterator[tuple[Batch, bool]]:
    """Yield this rank's batches of a split for what is done once before a phase; reports now and then that it is."""
    told_s = time.monotonic()

    def told(done: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s > EVALUATING_S:
            told_s = time.monotonic()
            job.report({"kind": "preparing", "rank": job.ranks.rank, "split": split, "done": done})

    return followed(_own_share(job, job.feed.evaluate(split)), told)


def _own_share(job: Job, batches: Iterator[tuple[Batch, bool]]) -> Iterator[tuple[Batch, bool]]:
    """Yield this rank's batches, and report after the last that only the other ranks are waited for."""
    yield from batches
    job.report({"kind": "waiting", "rank": job.ranks.rank})


def _evaluating(job: Job, engine: Engine, share: float) -> Callable[[int], None]:
    """Return what reports now and then how many examples of validation are done, over all ranks."""
    total, told_s = max(1, round(share * job.feed.examples("val"))), time.monotonic()

    def told(done: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s > EVALUATING_S:
            told_s, everywhere = time.monotonic(), min(done * engine.world_size, total)
            job.report({"kind": "evaluating", "rank": engine.rank, "done": everywhere, "total": total})

    return told


def _run_epoch(job: Job, stretch: Stretch, engine: Engine, progress: TrainingProgress, saved_s: float) -> float:
    """Train the rest of one epoch; return when the last checkpoint was made."""
    phase, config = stretch.phase, stretch.config
    steps, branches = job.feed.steps(phase), replicated_of(engine.module)

    def seed(place: int) -> None:
        names = (progress.phase, progress.total_step, engine.rank, *([place] if place else []))
        torch.manual_seed(derive(config.seed, "step", *names))
        if not place:
            start_step(branches, config.seed, progress.phase, progress.total_step)

    update = Update(job.system, stretch, engine, progress, seed, own=job.own)
    WATCH.set(job.own)
    engine.module.train()
    job.system.start_epoch(engine.module, progress.epoch)
    batches = iter(job.feed.train(phase, progress.epoch, progress.step))
    shown_s, started_s, wait_s, examples, first = 0.0, time.monotonic(), 0.0, 0, progress.step
    while progress.step < steps:
        job.saver.poll(job.report)
        job.own.start()
        asked_s = time.monotonic()
        micro = next(batches)
        wait_s += time.monotonic() - asked_s
        if config.tokens:
            micro = levelled(micro, engine)
        update.seed(0)
        due = config.checkpoint_minutes and time.monotonic() - saved_s > 60 * config.checkpoint_minutes
        wish = LEAVE if job.leaves() else SAVE if due else 0.0
        rate = learning_rate(config, progress.total_step - progress.phase_start, config.epochs * steps)
        means, wished = update(micro, rate, wish)
        progress.step += 1
        progress.total_step += 1
        examples += sum(len(batch) for batch, _ in micro) * engine.world_size
        if wished or (config.checkpoint_steps and progress.total_step % config.checkpoint_steps == 0):
            _save(job, engine, progress, best=False)
            saved_s = time.monotonic()
        if wished >= LEAVE:
            job.saver.wait(job.report)
            raise Left
        now = time.monotonic()
        last = progress.step == steps
        if now - shown_s > 0.5 or last or progress.step == first + 1:
            shown_s, (own_s, own_steps) = now, job.own.take()
            told = _step_told(stretch, engine, progress, steps, sum(means.values()))
            speed = {"examples_per_s": examples / (now - started_s), "wait_share": wait_s / (now - started_s)}
            job.report(told | speed | {"own_s": own_s, "own_steps": own_steps})
    job.own.leave()
    return saved_s


def _step_told(stretch: Stretch, engine: Engine, progress: TrainingProgress, steps: int, loss: float) -> dict[str, Any]:
    """Return what is reported of the step that was made last, beside its speed."""
    return {
        "kind": "step",
        "rank": engine.rank,
        "phase": stretch.phase.name,
        "phases": stretch.count,
        "epoch": progress.epoch,
        "epochs": stretch.config.epochs,
        "step": progress.step,
        "steps": steps,
        "total_step": progress.total_step,
        "loss": loss,
        "moe": {name: layer.usage.summary(last=True) for name, layer in layers_of(engine.module)},
    }


def _judge(
    job: Job,
    stretch: Stretch,
    progress: TrainingProgress,
    means: dict[str, float | None],
    trained: dict[str, Any],
    evaluate_s: float,
) -> None:
    """Record an evaluation, and whether it is the best of its phase."""
    metric, found = stretch.config.metric, trained | means
    if metric not in found:
        known = ", ".join(name for name, value in means.items() if value is not None)
        raise TrainingError(f"{stretch.key('metric')}: {metric!r} is not measured; there are {known}")
    value = found[metric]
    if value is not None and better(value, progress.best, higher_is_better(metric, job.directions)):
        progress.best, progress.best_step, progress.stale, progress.stale_examples = value, progress.total_step, 0, 0
    elif progress.best is None:
        # Nothing can be chosen by what has no value: the last checkpoint counts until something has one.
        progress.best_step = progress.total_step
    else:
        progress.stale += 1
        progress.stale_examples += _epochs_judged(progress) * job.feed.examples("train")
    place = {"phase": progress.phase, "phase_name": stretch.phase.name, "metric": metric}
    record = {**place, "epoch": progress.epoch, "total_step": progress.total_step, **trained, **means}
    progress.history.append(record)
    stopped = stopped_early(progress, stretch.config)
    job.report(
        {
            "kind": "evaluated",
            "metric": metric,
            "best": progress.stale == 0,
            "evaluate_s": evaluate_s,
            "phases": stretch.count,
            "stopped": stopped,
            "why": early_in_words(progress, stretch) if stopped else "",
        }
        | record
    )


def _epochs_judged(progress: TrainingProgress) -> int:
    """Return the epochs that were trained since the last evaluation of the phase."""
    before = [record["epoch"] for record in progress.history if record["phase"] == progress.phase]
    return progress.epoch - (before[-1] if before else 0)


def _take_usage(engine: Engine) -> dict[str, Any]:
    """Return how each mixture layer's experts were used since the last call: metrics, and each expert's load."""
    found: dict[str, Any] = {}
    for name, layer in layers_of(engine.module):
        metrics = {**layer.usage.summary(), **layer.told(), "load": layer.usage.load_E().tolist()}
        found |= {f"moe/{name}/{metric}": value for metric, value in metrics.items()}
        layer.usage.clear()
    return found


def _save(job: Job, engine: Engine, progress: TrainingProgress, best: bool) -> None:
    """Begin to save what this rank owns; a thread writes it."""
    average_running_statistics(engine)
    progress.usage = {name: layer.usage.state() for name, layer in layers_of(engine.module)}
    job.report({"kind": "saving", "rank": engine.rank, "total_step": progress.total_step, **peaks(engine.device)})
    job.saver.save(progress.total_step, engine.pieces(), asdict(progress), best, job.report)
