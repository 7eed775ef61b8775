"""Phases as a run trains them: their keys, which parameters move, when they end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from torch import nn

from rec.config import unmeasured
from rec.errors import ConfigError
from rec.evaluation.measure import directions
from rec.sections import counted
from rec.systems.api import Phase, System
from rec.train.config import PhaseConfig, TrainConfig
from rec.train.progress import TrainingProgress

KEYS = tuple(PhaseConfig.model_fields)
VALIDATION_LOSS = "val_loss"
FALLING = ("loss/", VALIDATION_LOSS)
"""What names of metrics start with of which lower is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A phase with the keys that this run trains it with."""

    phase: Phase
    config: TrainConfig
    """The run's, with the phase's own keys."""
    index: int
    count: int
    """Phases of the run."""

    @property
    def is_last(self) -> bool:
        """Whether no phase follows."""
        return self.index + 1 == self.count

    def key(self, name: str) -> str:
        """Return the dotted key by which a user sets what holds for this phase."""
        return key_of(self.phase, self.config, name)


def stretches(system: System[Any, Any], config: TrainConfig, workers: int = 1) -> tuple[Stretch, ...]:
    """Return the phases of a system as a run trains them.

    Raises:
        ConfigError: the run has keys of a phase that there is not, or the workers cannot share a phase's batch.
    """
    if not config.metric:
        config = config.model_copy(update={"metric": system.tasks[0].headline})
    phases = system.phases()
    names = [phase.name for phase in phases]
    if unknown := sorted(config.phases.keys() - set(names)):
        raise ConfigError(f"train.phases.{unknown[0]}: no such phase; there are {', '.join(names)}")
    if len(set(names)) < len(names):
        raise ConfigError(f"system: {type(system).__name__} has two phases of one name; there are {', '.join(names)}")
    found = []
    for index, phase in enumerate(phases):
        whole = resolved(phase, config)
        _check_metric(system, phase, whole)
        found.append(Stretch(phase=phase, config=whole, index=index, count=len(phases)))
        if whole.batch_size % workers:
            key = key_of(phase, config, "batch_size")
            raise ConfigError(f"{key}: must be a multiple of {workers} workers, got {whole.batch_size}")
        if whole.accumulate > (rows := whole.batch_size // workers):
            key = key_of(phase, config, "accumulate")
            raise ConfigError(f"{key}: at most the {rows} rows of a worker's batch, got {whole.accumulate}")
        _check_tokens(system, phase, whole, config)
    return tuple(found)


def _check_tokens(system: System[Any, Any], phase: Phase, whole: TrainConfig, config: TrainConfig) -> None:
    """Refuse a budget of tokens that would cut nothing, or beside another cut."""
    key = key_of(phase, config, "tokens")
    if whole.tokens and type(system).lengths is System.lengths:
        raise ConfigError(f"{key}: has no effect: {type(system).__name__} tells no lengths of its rows; leave it out")
    if whole.tokens and whole.accumulate > 1:
        other = key_of(phase, config, "accumulate")
        raise ConfigError(f"{key}: has no effect with {other}={whole.accumulate}; leave one of both out")


def _check_metric(system: System[Any, Any], phase: Phase, config: TrainConfig) -> None:
    """Refuse a metric that is none."""
    if fault := unmeasured(config.metric, [*directions(system.tasks), VALIDATION_LOSS]):
        raise ConfigError(f"{key_of(phase, config, 'metric')}: {config.metric!r} {fault}")


def resolved(phase: Phase, config: TrainConfig) -> TrainConfig:
    """Return the keys that a phase is trained with: the user's for it, else its own, else the run's."""
    given = config.phases.get(phase.name, PhaseConfig())
    chosen = {key: (getattr(given, key), getattr(phase, key)) for key in KEYS}
    update = {key: own if user is None else user for key, (user, own) in chosen.items()}
    return config.model_copy(update={key: value for key, value in update.items() if value is not None})


def key_of(phase: Phase, config: TrainConfig, name: str) -> str:
    """Return the dotted key by which a user sets `name` for a phase."""
    own = getattr(phase, name) is not None or getattr(config.phases.get(phase.name, PhaseConfig()), name) is not None
    return f"train.phases.{phase.name}.{name}" if own else f"train.{name}"


def has_ended(progress: TrainingProgress, config: TrainConfig) -> bool:
    """Return whether the phase in which a run stands has made its epochs, or has stopped early."""
    return progress.epoch >= config.epochs or stopped_early(progress, config)


def stopped_early(progress: TrainingProgress, config: TrainConfig) -> bool:
    """Return whether validation has not improved for as many evaluations and examples as the phase has patience."""
    limits = ((progress.stale, config.patience), (progress.stale_examples, config.patience_examples))
    return any(limit for _, limit in limits) and all(count >= limit for count, limit in limits)


def is_over(progress: TrainingProgress, found: Sequence[Stretch]) -> bool:
    """Return whether nothing is left to train."""
    return progress.phase >= len(found) or (
        progress.phase + 1 == len(found) and has_ended(progress, found[progress.phase].config)
    )


def refuse_more(progress: TrainingProgress, found: Sequence[Stretch], known: Mapping[str, bool]) -> None:
    """Refuse more epochs of a phase that is over: the next ones started from its best weights.

    `known` tells of metrics whether higher is better.

    Raises:
        ConfigError: a phase before the run's present one is to have more epochs than it was trained.
    """
    for stretch in found[: progress.phase]:
        config, told = stretch.config, [r for r in progress.history if r["phase"] == stretch.index]
        values, stale, best = [record.get(config.metric) for record in told], 0, None
        for value in values:
            stale += 1
            if value is not None and better(value, best, higher_is_better(config.metric, known)):
                best, stale = value, 0
        patient = config.patience or config.patience_examples
        done = told[-1]["epoch"] if told else config.epochs
        if config.epochs > done and not (patient and stale >= max(1, config.patience)):
            key = f"train.phases.{stretch.phase.name}.epochs"
            raise ConfigError(
                f"{key}: {config.epochs}, but the phase is over after {counted(done, 'epoch')} and the run is in phase "
                f"{found[min(progress.phase, len(found) - 1)].phase.name!r}, which started from its weights; "
                "train into another out="
            )


def end_in_words(progress: TrainingProgress, found: Sequence[Stretch]) -> str:
    """Return why nothing is left to train, and what would change that."""
    last = found[-1]
    if stopped_early(progress, last.config):
        keys = " or ".join(last.key(name) for name in ("patience", "patience_examples") if getattr(last.config, name))
        why = early_in_words(progress, last)
        return f"stopped early at step {progress.total_step}, {why}; raise {keys} to go on"
    return f"all {last.config.epochs} epochs are trained, up to step {progress.total_step}; raise {last.key('epochs')}"


def early_in_words(progress: TrainingProgress, stretch: Stretch) -> str:
    """Return for how long a phase that stopped early has not improved, and which patience that was."""
    config, limits = stretch.config, []
    if config.patience:
        limits.append(f"{stretch.key('patience')} is {counted(config.patience, 'evaluation')}")
    if config.patience_examples:
        limits.append(f"{stretch.key('patience_examples')} is {counted(config.patience_examples, 'example')}")
    evaluations, examples = counted(progress.stale, "evaluation"), counted(progress.stale_examples, "example")
    steps = counted(progress.total_step - (progress.best_step or 0), "step")
    return f"{evaluations} ({steps}, {examples}) after the best {config.metric}: {' and '.join(limits)}"


def higher_is_better(metric: str, directions: Mapping[str, bool]) -> bool:
    """Return the direction of a metric: as it is said, else falling for losses and rising for all others."""
    return directions.get(metric, not metric.startswith(FALLING))


def better(value: float, best: float | None, higher: bool) -> bool:
    """Return whether a value beats the best one so far; NaN never does."""
    if math.isnan(value):
        return False
    return best is None or (value > best if higher else value < best)


def own_flags(module: nn.Module) -> dict[str, bool]:
    """Return which parameters the model trains of its own accord."""
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def select(module: nn.Module, phase: Phase, own: Mapping[str, bool]) -> int:
    """Let the phase's parameters move, among those that the model trains; return how many of this rank's do.

    Those that the model trains in other phases are told by an attribute, `rests`: no precision of theirs may be lost.
    """
    count = 0
    for name, parameter in module.named_parameters():
        moves = _own_flag(name, own) and any(fnmatch(name, glob) for glob in phase.trains)
        parameter.requires_grad_(moves)
        parameter.rests = _own_flag(name, own) and not moves  # type: ignore[attr-defined]
        count += moves
    return count


def _own_flag(name: str, own: Mapping[str, bool]) -> bool:
    """Return whether the model trains a parameter; a backend may have renamed it inside its module."""
    while name not in own:
        parent = name.rpartition(".")[0]
        inside = [flag for known, flag in own.items() if known.startswith(f"{parent}.")] if parent else [True]
        if inside:
            return any(inside)
        name = parent
    return own[name]
