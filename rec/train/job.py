"""One training run in its folder: what it is, where it stands, how it goes on.

The folder holds:

    config.json      the resolved config
    checkpoints/     see rec.train.checkpoint
    history.json     one record per evaluation, for curves
    training.json    see rec.train.training_record
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from rec.config import RunConfig, to_json
from rec.data.prepared import Prepared, hint, open_prepared
from rec.data.stream import CachedReader
from rec.errors import CheckpointError, ConfigError, DataError
from rec.evaluation.measure import directions
from rec.evaluation.protocol import data_of
from rec.nn.making import made_empty
from rec.provenance import machine
from rec.run_folder import CONFIG, alone, recorded
from rec.storage import Storage, absolute, to_bytes
from rec.strict import flat, is_among, resolve
from rec.systems.api import System
from rec.train.checkpoint import MODEL, Checkpoint, CheckpointStore
from rec.train.device import device_of
from rec.train.engine import LocalEngine
from rec.train.feed import PlannedFeed
from rec.train.loop import Job, Report, fit
from rec.train.memory import keep_freed_memory, refuse_beyond, restart_peaks
from rec.train.phases import end_in_words, is_over, refuse_more, stretches
from rec.train.progress import TrainingProgress
from rec.train.ranks import OneRank
from rec.train.saver import Saver
from rec.train.start import start_of
from rec.train.training_record import TrainingRecord, read_training

PHASE_KEYS = ("epochs", "patience", "patience_examples")
"""Of a phase, what may differ when a run goes on."""
FREE_KEYS = ("parallel", "evaluate", "tune", "serve", "expect", "out", "model.notice", "train.epochs", "train.patience",
             "train.patience_examples", "train.checkpoint_steps", "train.checkpoint_minutes",
             "train.evaluate_batch_size")  # fmt: skip
"""What may differ when a run goes on."""


SPLITS = ("train", "val")
"""What training reads."""


def open_data(config: RunConfig) -> Prepared:
    """Return the data set that a run is trained on.

    Raises:
        DataError: it is not there, or has no rows to train on or to choose by.
        ConfigError: it was made by other keys than the config's, or is not what the run in `out` has been trained on.
    """
    data = open_prepared(config)
    for split in SPLITS:
        if not data.split_rows(split):
            raise DataError(f"{config.data.root}: the split {split!r} has no rows; expected at least one")
    data.refuse_differences(config.data)
    check_data(Storage(config.out), data)
    return data


def check_data(storage: Storage, data: Prepared) -> None:
    """Check that a run has been trained on this data set, where it has been trained at all.

    Raises:
        ConfigError: it was another one.
    """
    trained = read_training(storage)
    if trained is None:
        return
    before, now = trained["data"], data_of(data.manifest)
    for name, ours, theirs in (
        ("split", before["split"]["sha256"], now["split"]["sha256"]),
        ("data set", before["sha256"], now["sha256"]),
    ):
        if ours != theirs:
            raise ConfigError(
                f"data.root: {storage.uri} was trained on {name} {ours[:12]}, but {data.root} holds {theirs[:12]} now; "
                "prepare as before, or train into another out="
            )


def build(config: RunConfig, data: Prepared) -> System[Any, Any]:
    """Return the run's system with the tables of its data set.

    Raises:
        DataError: the data set lacks a table; the key that wants it and the key that would make it are told.
    """
    system = resolve(config.system)
    names = system.table_names(config.model)
    if missing := [name for name in dict.fromkeys(names) if not data.holds(name)]:
        raise DataError(f"{config.data.root}: {_missing(config, missing)}")
    further = [name for name in system.further_tables(config.model) if data.holds(name)]
    return build_from(config, data.tables([*names, *further]))


def _missing(config: RunConfig, names: Sequence[str]) -> str:
    """Return in words which tables a data set lacks, which keys want them, what makes them, and what does without."""
    system = resolve(config.system)
    reasons = [system.wanted_by(config.model, name) for name in names]
    tables: dict[str, list[str]] = {}
    for name, reason in zip(names, reasons, strict=True):
        why = (
            f"{reason.key} want{'' if ' and ' in reason.key else 's'}" if reason else f"{system.__name__} always reads"
        )
        tables.setdefault(why, []).append(name)
    lacks = [
        f"no table{'s' if len(part) > 1 else ''} {', '.join(map(repr, part))}, which {why}"
        for why, part in tables.items()
    ]
    without = " ".join(dict.fromkeys(reason.without for reason in reasons if reason and reason.without))
    other = f", or do without: {without}" if without else ""
    return f"the data set holds {' and '.join(lacks)}{hint(*names)}{other}"


def build_from(config: RunConfig, tables: Mapping[str, np.ndarray]) -> System[Any, Any]:
    """Return the run's system with these tables.

    Raises:
        ConfigError: model and tables do not fit, `train.phases` not the system's phases, or `evaluate` not the system.
    """
    system: System[Any, Any] = resolve(config.system)(config.model, tables, config.train.seed)
    system.tasks = tuple(task.configured(system, config.evaluate) for task in system.tasks)
    stretches(system, config.train, max(1, config.parallel.workers))
    return system


def claim(config: RunConfig) -> Storage:
    """Return the run's folder after writing its config, or checking that it holds the same run.

    Raises:
        ConfigError: the folder holds a run with another config.
    """
    check_same(config)
    storage = Storage(config.out)
    storage.tidy()
    storage.renew(CONFIG, to_json(config).encode())
    return storage


def check_same(config: RunConfig) -> None:
    """Check that the config's folder holds no other run; `FREE_KEYS` may differ.

    Raises:
        ConfigError: it does; the key is named with both values.
    """
    storage = Storage(config.out)
    if not storage.exists(CONFIG):
        return
    ours, theirs = _compared(config), _compared(recorded(storage))
    for key in sorted(ours.keys() | theirs.keys()):
        if not _is_free(key) and ours.get(key) != theirs.get(key):
            raise ConfigError(
                f"{key}: {ours.get(key)!r}, but the run in {config.out} was started with {theirs.get(key)!r}; "
                "choose another out= or delete that folder"
            )


def check_start(config: RunConfig, system: System[Any, Any]) -> None:
    """Check that a run that begins can start from what it names.

    Raises:
        ConfigError: it cannot.
    """
    if CheckpointStore(Storage(config.out).below("checkpoints")).steps():
        return
    if (start := start_of(config.train.start_from)) is not None:
        start.taken(made_empty(system.model))


def require_trained(folder: str) -> None:
    """Check that a run's folder holds a checkpoint.

    Raises:
        CheckpointError: it does not.
    """
    store = CheckpointStore(Storage(folder).below("checkpoints"))
    if store.best_step() is None and not store.steps():
        raise CheckpointError(f"{folder}: never trained: run `rec train CONFIG` first")


def load_chosen(config: RunConfig, data: Prepared) -> Checkpoint:
    """Return the checkpoint of a run that validation chose.

    Raises:
        ConfigError: the folder holds a run with another config, or one that was trained on other data.
        CheckpointError: it holds no checkpoint, or a damaged one.
    """
    require_trained(config.out)
    check_same(config)
    check_data(Storage(config.out), data)
    return CheckpointStore(Storage(config.out).below("checkpoints")).load_best()


def _compared(config: RunConfig) -> dict[str, Any]:
    """Return every dotted key; a folder counts as the same however it is written."""
    start = config.train.start_from
    places = {"data.root": absolute(config.data.root), "train.start_from": start and absolute(start)}
    return flat(config.model_dump(mode="json")) | places


def _is_free(key: str) -> bool:
    """Return whether a key may differ when a run goes on."""
    of_phase = key.startswith("train.phases.") and key.rpartition(".")[2] in PHASE_KEYS
    return of_phase or is_among(key, FREE_KEYS)


def nothing_left(config: RunConfig, system: System[Any, Any], storage: Storage) -> str | None:
    """Return in words why the run in a folder is over, None where something is left to train."""
    store = CheckpointStore(storage.below("checkpoints"))
    steps = store.steps()
    if not steps:
        return None
    progress, found = TrainingProgress(**store.state(steps[-1])), stretches(system, config.train)
    refuse_more(progress, found, directions(system.tasks))
    if not is_over(progress, found) or store.newest_valid()[0] != steps[-1]:
        return None
    return f"{config.out}: nothing left to train: {end_in_words(progress, found)}"


def newest(storage: Storage, say: Callable[[str], None], *, deep: bool = True) -> int | None:
    """Return the step of the newest whole checkpoint; what is wrong with newer ones is said.

    What a command has left undone that was stopped right after that checkpoint is done now. Without `deep`, files of
    tensors are whole that have their size.
    """
    store = CheckpointStore(storage.below("checkpoints"))
    step, faults = store.newest_valid(deep=deep)
    for fault in faults:
        say(f"damaged checkpoint passed over: {fault}")
    if step is None and faults:
        say("no whole checkpoint is left: starting from the beginning")
    if step is not None:
        store.settle(step)
        write_history(storage, store.state(step))
        best = store.best_step()
        if best not in (None, step) and (lost := store.faults(best, kinds=MODEL, deep=deep)):
            say(
                f"the checkpoint that validation chose is damaged: {'; '.join(lost)}; until a better one is chosen, "
                "`rec evaluate` and `rec export` refuse this run"
            )
    return step


def write_history(storage: Storage, progress: Mapping[str, Any]) -> None:
    """Write what the curves are drawn from, unless it is on file."""
    storage.renew("history.json", to_bytes(progress["history"]))


def tell_memory(system: System[Any, Any], config: RunConfig, say: Callable[[str], None]) -> None:
    """Say how much memory a worker needs, where a system knows."""
    memory = system.memory(config.train, config.parallel)
    if memory is not None:
        say(f"memory of a worker, estimated: {memory.told()}")


def train_here(
    config: RunConfig, report: Report, say: Callable[[str], None], file: str | None = None
) -> TrainingProgress:
    """Train in this process, without Ray or DeepSpeed; go on where the run's folder stands.

    `file` is the TOML file of the config, where it has one.

    Raises:
        ConfigError, DataError: config and data do not fit, or another command trains in the folder.
        TrainingError: a loss is not finite.
    """
    device = device_of(config.parallel)
    data = open_data(config)
    system = build(config, data)
    check_start(config, system)
    with alone(config.out):
        return _train_here(config, data, system, report, say, file, device=device)


def _train_here(
    config: RunConfig,
    data: Prepared,
    system: System[Any, Any],
    report: Report,
    say: Callable[[str], None],
    file: str | None,
    *,
    device: str,
) -> TrainingProgress:
    storage = claim(config)
    if over := nothing_left(config, system, storage):
        say(over)
    store = CheckpointStore(storage.below("checkpoints"))
    step = newest(storage, say)
    resume = store.load(step, checked=True) if step is not None else None
    if resume is not None and not over:
        say(f"{config.out}: going on from step {step}")
    if not over:
        tell_memory(system, config, say)
        refuse_beyond(system.memory(config.train, config.parallel), device, config.parallel)
    torch.set_num_threads(config.parallel.threads)
    keep_freed_memory()
    restart_peaks(device)
    record = TrainingRecord(storage, config, data.manifest, report, file=file, machine=machine(device))
    reader, ranks = CachedReader(data.storage, system.columns), OneRank(device)
    progress = fit(
        Job(
            system=system,
            config=config.train,
            wrap=lambda module, keys: LocalEngine(module, keys, device),
            feed=PlannedFeed(data, system, config.train, reader, 0, 1),
            report=record,
            saver=Saver(store, ranks, partial(write_history, storage)),
            resume=resume,
            start=start_of(config.train.start_from, checked=True) if resume is None else None,
            ranks=ranks,
            directions=directions(system.tasks),
        )
    )
    record.settle(progress, stretches(system, config.train))
    return progress
