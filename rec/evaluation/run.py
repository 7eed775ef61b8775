"""The measurement of a trained run: every number of its tasks, and what a report tells, on file.

The run's folder holds:

    evaluation/{split}/metrics.json          every number, and checksums of the next two; written last
    evaluation/{split}/measurement.json      what it cost, by which code, where; see rec.evaluation.measurement
    evaluation/{split}/sections.json         the parts of a report
    evaluation/{split}/{task}.parquet        one row per example: ids, group, records, `metric/NAME` for each metric
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from rec.config import RunConfig, load, override
from rec.data.prepared import Prepared, open_prepared
from rec.data.stream import CachedReader
from rec.data.writing import write_table
from rec.errors import EvaluationError
from rec.evaluation import experts
from rec.evaluation.bootstrap import equals
from rec.evaluation.groups import of_all, of_group
from rec.evaluation.headline import same_everywhere
from rec.evaluation.measure import directions, measure, metrics, told_of
from rec.evaluation.measurement import METRICS, Stopwatch, keep_former, read_measurement, write_measurement
from rec.evaluation.records import Records, with_columns
from rec.evaluation.settled import settle
from rec.evaluation.shared import beside_baselines, by_group
from rec.evaluation.task import Measured, Task
from rec.filesystems import is_folder, uri_below
from rec.nn.making import made_empty
from rec.progress import Progress
from rec.run_folder import CONFIG, recorded
from rec.sections import Section, to_plain
from rec.seeds import generator
from rec.storage import Storage, to_bytes
from rec.systems.api import System
from rec.systems.capabilities import Reporter
from rec.train.checkpoint import CheckpointStore
from rec.train.device import device_of
from rec.train.engine import LocalEngine, load_model
from rec.train.feed import PlannedFeed
from rec.train.job import build, load_chosen, require_trained
from rec.train.training_record import read_training

FORMAT = 2
SECTIONS = "sections.json"
SYNTHETIC = "labels are synthetic: nobody has judged what is relevant"
GENERATED = (
    "generated data: users, items and labels are synthetic, made by a program with planted preferences; numbers tell "
    "whether the method finds these, not how well it serves people"
)
"""Notes that must be read before all numbers."""
Numbers = dict[str, Any]


def warning_of(manifest: Mapping[str, Any]) -> str:
    """Return what people must know of a data set before all numbers and answers, "" where there is nothing."""
    if manifest.get("generated", False):
        return GENERATED
    return SYNTHETIC if manifest.get("synthetic_labels", False) else ""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's best checkpoint, ready to be measured."""

    config: RunConfig
    data: Prepared
    system: System[Any, Any]
    engine: LocalEngine
    step: int

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self.engine.module

    @property
    def feed(self) -> PlannedFeed:
        """All batches of every split."""
        reader = CachedReader(self.data.storage, self.system.columns)
        return PlannedFeed(self.data, self.system, self.config.train, reader, 0, 1)

    def batches(self, split: str) -> Iterator[Any]:
        """Yield the batches of a split on the model's device."""
        for batch, _ in self.feed.evaluate(split):
            yield batch.to(self.engine.device)


class Workers(Protocol):
    """Processes that make records of a split."""

    count: int

    def records(self, run: Trained, split: str, told: Callable[[int], None]) -> dict[str, Records]:
        """Return the records of each task by its name, those that `measure` returns.

        `told` receives, now and then, how many examples are done.
        """


def open_run(config: RunConfig) -> Trained:
    """Return the checkpoint that validation chose.

    Raises:
        CheckpointError, DataError: the run or its data set is missing or damaged.
        ConfigError: the folder holds a run with another config.
    """
    require_trained(config.out)
    device = device_of(config.parallel)
    data = open_prepared(config)
    checkpoint = load_chosen(config, data)
    system = build(config, data)
    module = made_empty(system.model).eval()
    load_model(module, checkpoint.tensors)
    torch.set_num_threads(max(config.parallel.threads, torch.get_num_threads()))
    engine = LocalEngine(module, config.train, device)
    settle(config, data, system, module, checkpoint.step)
    return Trained(config=config, data=data, system=system, engine=engine, step=checkpoint.step)


def evaluate_run(
    config: RunConfig,
    split: str,
    predictions: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    workers: Workers | None = None,
) -> Numbers:
    """Measure the run's best checkpoint on a split, write the results beside it, and return them.

    What was measured before by other keys is kept in a folder of its own, which is said.

    Args:
        config: The run.
        split: The split.
        predictions: A folder of `rec predict`, whose records are read; None runs the model.
        say: Receives what a person should know.
        workers: Processes that run the model, each on batches of its own; None runs it in this one.
    """
    watch = Stopwatch(device_of(config.parallel))
    run = open_run(config)
    if predictions is None:
        records = _records(run, split, workers)
    else:
        from rec.evaluation.predict import read_records

        records = read_records(predictions, run, split)
    storage, folder = Storage(config.out), f"evaluation/{split}"
    if told := keep_former(storage, split, config.evaluate):
        say(told)
    with Progress("evaluate: metrics, simple answers, intervals"):
        numbers = conclude(run, split, records)
    files = [f"{folder}/{name}" for name in (*(f"{task.name}.parquet" for task in run.system.tasks), SECTIONS)]
    filed = to_bytes(numbers | {"files": [storage.entry(name) for name in files]})
    write_measurement(
        storage,
        split,
        filed,
        watch=watch,
        module=run.module,
        manifest=run.data.manifest,
        keys=config.evaluate,
        from_predictions=predictions is not None,
        workers=workers.count if workers is not None else 0,
    )
    storage.write(f"{folder}/{METRICS}", filed)
    return numbers


def _records(run: Trained, split: str, workers: Workers | None) -> dict[str, Records]:
    """Return the records of a split, by running the model."""
    feed = run.feed
    line, total = Progress(f"evaluate {split}", feed.examples(split)), feed.examples(split)
    line.show(0, "examples", force=True)

    def told(done: int) -> None:
        line.show(done, "examples", force=done == total)

    with line:
        if workers is not None:
            return workers.records(run, split, told)
        return measure(run.system, run.engine, feed.evaluate(split), run.config.evaluate, told=told)


def conclude(run: Trained, split: str, records: Mapping[str, Records]) -> Numbers:
    """Return every number that follows from the records of a split; write records and sections beside the run."""
    config, system = run.config, run.system
    storage = Storage(config.out)
    numbers: Numbers = {"format": FORMAT, "system": config.system, "split": split, "step": run.step}
    numbers |= {"seed": config.train.seed, "notice": system.notice, "notes": [], "metrics": metrics(system, records)}
    manifest = run.data.manifest
    if warning := warning_of(manifest):
        numbers["notes"].append(warning)
    if manifest.get("licence"):
        numbers["notes"].append(f"licence of the data: {manifest['licence']}")
    numbers |= {"interval": {}, "baselines": {}, "same": {}, "meanings": {}, "tasks": {}}
    numbers |= {"settings": {}, "apart": {}, "told_more": [], "oracles": []}
    numbers["directions"] = directions(system.tasks)
    found: list[Section] = []
    history = storage.read_json("history.json")
    for task in system.tasks:
        measured = measured_task(run, task, split, records)
        told = measured.numbers
        numbers["notes"] += told.pop("notes")
        numbers["metrics"] |= told["metrics"]
        for name in ("interval", "baselines", "same", "meanings"):
            numbers[name] |= told[name]
        if settings := task.settings(system):
            numbers["settings"][task.name] = settings
            numbers["apart"] |= {task.name: own} if (own := {name: settings[name] for name in task.apart}) else {}
        numbers["oracles"] += [name for name in task.oracles if name in told["baselines"]]
        numbers["told_more"] += [name for name in task.told_more(system) if name in told["baselines"]]
        numbers["tasks"][task.name] = told
        found += _sections(run, task, measured, history)
        _write_records(storage, split, task, measured)
    numbers["examples"] = max(told["examples"] for told in numbers["tasks"].values())
    numbers["shown"] = [name for task in system.tasks for name in task.shown if name in numbers["metrics"]]
    numbers["expect"] = {
        name: {"expected": wanted, "found": value, "met": met(value, wanted, numbers["directions"].get(name, True))}
        for name, wanted in config.expect.items()
        for value in [numbers["metrics"].get(name)]
    }
    storage.write_json(f"evaluation/{split}/{SECTIONS}", to_plain(found))
    return numbers


def met(value: float | None, wanted: float, higher: bool) -> bool:
    """Return whether a metric is at least as good as wanted."""
    return value is not None and (value >= wanted if higher else value <= wanted)


def measured_task(run: Trained, task: Task, split: str, all_records: Mapping[str, Records]) -> Measured:
    """Return what one task says of its records: metrics, intervals, baselines, groups, and numbers of its own."""
    system, data, config, records = run.system, run.data, run.config, all_records[task.name]
    values = task.values(records)
    groups = task.groups(system, data, split, records, config.evaluate)
    measured = Measured(
        system=system,
        module=run.module,
        data=data,
        split=split,
        config=config.evaluate,
        seed=config.train.seed,
        records=records,
        values=values,
        groups=groups,
        batches=run.batches,
        folder=config.out,
        keys=task.keys(system, data, records),
        beside=_beside(system, task, all_records),
    )
    values |= task.late_values(measured)
    rng = generator(config.train.seed, "bootstrap")
    numbers = measured.numbers
    numbers["examples"] = len(records)
    numbers["metrics"] = task.metrics(records, values)
    numbers["meanings"] = _meanings(task, numbers["metrics"])
    numbers["interval"] = of_all(task, measured, task.shown, rng)

    def batches(part: str) -> Iterator[Any]:
        return shown(run.feed, part, f"baselines on {part}")

    told = task.simple_answers(measured, batches)
    numbers["baselines"] = {
        name: {metric: value for metric, value in found.items() if value is not None} for name, found in told.items()
    }
    numbers["same"] = same_everywhere(
        equals({name: values[name] for name in (*task.shown, *values) if name in values}), numbers["baselines"].values()
    )
    numbers["groups"] = {
        name: {"examples": int(inside.sum()), **of_group(task, measured, rng, inside)} for name, inside in groups.each()
    }
    numbers["experts"] = experts.numbers(run.module, records, groups) if task is system.tasks[0] else {}
    numbers["notes"] = [*_without_value(task, measured), *task.enrich(measured)]
    if task is system.tasks[0] and isinstance(system, Reporter):
        numbers["notes"] += system.enrich(measured)
    numbers["meanings"] |= _meanings(task, [name for name in task.late if name in numbers["metrics"]])
    return measured


def _beside(system: System[Any, Any], task: Task, records: Mapping[str, Records]) -> dict[str, Any]:
    """Return what other tasks and the system tell of each example of a task."""
    parts = [other.beside(records[other.name]) for other in system.tasks if other.name != task.name]
    found = {name: values for part in (*parts, told_of(system, records)) for name, values in part.items()}
    return {name: values for name, values in found.items() if len(values) == len(records[task.name])}


def _meanings(task: Task, names: Iterable[str]) -> dict[str, str]:
    return {name: words for name in names if (words := task.meaning(name))}


def _without_value(task: Task, measured: Measured) -> list[str]:
    """Return notes on metrics that are averages over nothing, and on examples that have no value of the first one."""
    metrics = measured.numbers["metrics"]
    empty = [name for name in task.shown if name in metrics and metrics[name] is None]
    notes = [f"{', '.join(empty)}: no value, as no example has one"] if empty else []
    first = next((name for name in task.shown if name in measured.values and name not in empty), None)
    count = int(np.isnan(measured.values[first]).sum()) if first is not None else 0
    if count:
        total = len(measured.records)
        notes.append(f"{count:,} of {total:,} examples have no {first}, and are left out of it")
    return notes


def _sections(run: Trained, task: Task, measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
    shared = [*beside_baselines(task, measured), *by_group(measured, task)]
    if len(run.system.tasks) > 1:
        shared = [replace(section, title=f"{section.title}: {task.name}") for section in shared]
    found = [*shared, *task.sections(measured)]
    if task is run.system.tasks[0]:
        if isinstance(run.system, Reporter):
            found += run.system.sections(measured, history)
        found += experts.sections(measured.numbers["experts"], history)
    return found


def _write_records(storage: Storage, split: str, task: Task, measured: Measured) -> None:
    label = np.array([*measured.groups.names, ""])[measured.groups.label_B] if measured.groups.names else None
    columns: dict[str, Any] = dict(measured.keys)
    columns |= {"group": list(label)} if label is not None else {}
    columns |= {f"metric/{name}": value for name, value in measured.values.items()}
    table = with_columns(measured.records, columns)
    write_table(storage, f"evaluation/{split}/{task.name}.parquet", table)


def shown(feed: PlannedFeed, split: str, title: str) -> Iterator[Any]:
    """Yield the batches of a split and show how many of its examples are done."""
    total, done = feed.examples(split), 0
    line = Progress(title, total)
    for batch, _ in feed.evaluate(split):
        yield batch
        done += len(batch)
        line.show(done, "examples", force=done == total)


def load_run(path: str, overrides: Sequence[str]) -> RunConfig:
    """Return the config of a TOML file, or of a run's folder, wherever that lies now."""
    if not is_folder(path):
        return load(path, overrides)
    return override(read_config(path).model_copy(update={"out": path.rstrip("/")}), overrides)


def read_config(folder: str) -> RunConfig:
    """Return the resolved config that a run's folder holds.

    Raises:
        EvaluationError: the folder holds no run.
    """
    if not Storage(folder).exists(CONFIG):
        raise EvaluationError(
            f"{folder}: never trained: found no config.json of a run; run `rec train CONFIG` first, or name its `out`"
        )
    return recorded(Storage(folder))


def seed_folders(folder: str, seeds: int = 0) -> list[str]:
    """Return the folders of a run's seeds, of the first ones alone where a number is given; without seeds the run."""
    names = [name for name in Storage(folder).list() if name.startswith("seed-")]
    names = [f"seed-{seed}" for seed in range(seeds)] if seeds else names
    return [uri_below(folder, name) for name in names] or [folder]


def read_numbers(folder: str, split: str) -> Numbers:
    """Return the numbers of a measured run.

    Raises:
        EvaluationError: it was not measured on this split, at another checkpoint, on other data, or by another version.
    """
    storage, name = Storage(folder), f"evaluation/{split}/{METRICS}"
    if not storage.exists(name):
        raise EvaluationError(f"{folder}: not evaluated on {split}; run `rec evaluate` first")
    numbers: Numbers = storage.read_json(name)
    if numbers.get("format") != FORMAT:
        raise EvaluationError(f"{folder}/{name}: written by another version; run `rec evaluate` again")
    for entry in numbers.pop("files", ()):
        if fault := storage.fault(entry):
            raise EvaluationError(f"{fault}, as of an evaluation that was stopped; run `rec evaluate` again")
    chosen = CheckpointStore(storage.below("checkpoints")).best_step()
    if chosen not in (None, numbers["step"]):
        raise EvaluationError(
            f"{folder}: measured at step {numbers['step']}, but validation has chosen step {chosen} since; "
            "run `rec evaluate` again"
        )
    training, measurement = read_training(storage), read_measurement(storage, split)
    if training and measurement and training["data"]["sha256"] != measurement["data"]["sha256"]:
        raise EvaluationError(
            f"{folder}: measured on another data set than it was trained on; run `rec evaluate` again"
        )
    return numbers
