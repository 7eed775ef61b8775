"""Read one TOML file and dotted overrides into frozen models that refuse what they do not know."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_origin

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from rec.data.config import TABLES, DataConfig, source_keys
from rec.errors import ConfigError
from rec.evaluation.tasks.config import EvaluateConfig
from rec.json_text import json_text
from rec.serving.config import ServeConfig
from rec.strict import Strict, check_whole, idle_keys, is_among, on_path, resolve
from rec.train.config import ParallelConfig, TrainConfig
from rec.tuning.config import TuneConfig

TOML_WORDS = {"a valid tuple": "a list, as in [1, 2]", "a valid dictionary": "a table", "a valid string": "a text"}
"""How kinds of values are called in TOML files, in the place of Python's names."""

STARTS_WITH_KEYS = re.compile(r"[a-z_]+(\.[a-z_]+)*(, [a-z_.]+)*: ")
"""How a message begins that tells of several keys of a table."""


class RunConfig(Strict):
    """One run: which system, with which keys, on which data, trained how."""

    system: str
    """Import path `package.module:Class`."""
    out: str = Field(min_length=1)
    """Folder of the run: checkpoints, log, metrics, report."""
    model: SerializeAsAny[Strict]
    """The system's own keys."""
    data: DataConfig
    train: TrainConfig = TrainConfig()
    parallel: ParallelConfig = ParallelConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    tune: TuneConfig = TuneConfig()
    serve: ServeConfig = ServeConfig()
    expect: dict[str, float] = {}
    """Metrics on test that this run must reach; `rec evaluate` compares."""

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.parallel.workers and self.train.batch_size % self.parallel.workers:
            raise ValueError(
                f"train.batch_size: must be a multiple of parallel.workers ({self.parallel.workers}), "
                f"got {self.train.batch_size}"
            )
        return self


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the table in a file.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from error


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the checked config at `path` with `a.b=value` overrides applied.

    A system or source of one's own may lie beside the file: its folder can be imported from.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or missing, a value has the wrong type or range, or a key
            is set that has no effect beside the others.
    """
    table = read_toml(path)
    on_path(Path(path).resolve().parent)
    return _overridden(table, overrides)


def override(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return a config with `a.b=value` overrides applied.

    Raises:
        ConfigError: as `load`.
    """
    return _overridden(to_table(config), overrides)


def _overridden(table: dict[str, Any], overrides: Sequence[str]) -> RunConfig:
    for text in overrides:
        _put(table, text)
    return without_idle(table, [text.partition("=")[0].strip() for text in overrides])


def without_idle(table: dict[str, Any], overridden: Sequence[str], drop_own: bool = False) -> RunConfig:
    """Return the checked config of a table in which no key is set that has no effect.

    A key of the model that an override leaves without one, as `model.gate=none` does those of the gate, goes back to
    its default: that is what a control is. Where it was set beside what keeps it from having one, it is refused.

    Args:
        table: Nested plain values, overrides included; dropped keys are taken out.
        overridden: The dotted keys that were overridden.
        drop_own: Takes out overridden keys as well, as a search draws keys that do not count at a point.

    Raises:
        ConfigError: a key is set and has no effect; that which keeps it from one is named.
    """
    config = from_table(table)
    idle = idle_keys(config)
    for key, (other, value) in idle.items():
        by_override = any(is_among(other, [name]) or is_among(name, [other]) for name in overridden)
        own = any(is_among(key, [name]) or is_among(name, [key]) for name in overridden)
        if not key.startswith("model.") or (own and not drop_own) or not by_override:
            raise ConfigError(f"{key}: has no effect with {other}={json_text(value)}; leave it out")
        _take_out(table, key)
    _refuse_unread(config)
    return from_table(table) if idle else config


def _refuse_unread(config: RunConfig) -> None:
    """Refuse keys of `[evaluate]` that no task of the system reads."""
    fields = type(config.evaluate).model_fields
    read = {"bootstrap", *(key for task in resolve(config.system).tasks for key in task.evaluate_keys)}
    for key in fields.keys() - read:
        if getattr(config.evaluate, key) != fields[key].default:
            raise ConfigError(f"evaluate.{key}: has no effect: no task of {config.system} reads it; leave it out")


def _take_out(table: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    for name in parents:
        table = table[name]
    table.pop(last, None)


def to_table(config: RunConfig) -> dict[str, Any]:
    """Return a config as plain values, of `[data]` what it says; `from_table` reads it back.

    What it does not say of the data is left to the data set that is there.
    """
    said = {"data": config.data.model_dump(mode="json", exclude_unset=True)}
    return config.model_dump(mode="json") | said


def serve_keys(overrides: Sequence[str]) -> dict[str, Any]:
    """Return what `serve.key=value` overrides set, by key.

    Raises:
        ConfigError: one is of another section.
    """
    table: dict[str, Any] = {}
    for text in overrides:
        _put(table, text)
    if other := sorted(table.keys() - {"serve"}):
        raise ConfigError(f"{other[0]}: is part of the artifact; only keys of serve can be overridden")
    keys: dict[str, Any] = table.get("serve", {})
    return keys


def from_table(table: dict[str, Any]) -> RunConfig:
    """Return the checked config for a nested table of plain values."""
    if not isinstance(table.get("system"), str):
        raise ConfigError("system: required key is missing; expected an import path like 'rec.systems.msmrec:MSMRec'")
    system = resolve(table["system"])
    if not (isinstance(getattr(system, "Config", None), type) and getattr(system, "tasks", None)):
        raise ConfigError(f"system: {table['system']!r} is no system: expected a class with Config and tasks")
    check_whole(system, table["system"], "system")
    model = check(system.Config, table.get("model", {}), "model.")
    run: RunConfig = check(RunConfig, table | {"model": model, "data": _with_source(table.get("data", {}))}, "")
    _check_metrics(run, system)
    if not run.train.metric:
        run = run.model_copy(update={"train": run.train.model_copy(update={"metric": system.tasks[0].headline})})
    return run


def _with_source(data: Any) -> Any:
    """Return the table `[data]` with the source's own keys checked."""
    if not isinstance(data, dict) or not isinstance(data.get("read", {}), dict):
        return data
    name = data.get("source", TABLES)
    if not isinstance(name, str):
        return data
    return data | {"read": check(source_keys(name), data.get("read", {}), "data.read.")}


def _check_metrics(run: RunConfig, system: Any) -> None:
    """Refuse to choose by, or to expect, a number that is neither good nor bad, and to expect what is not measured."""
    named = {"train.metric": run.train.metric, "tune.metric": run.tune.metric}
    named |= {f"train.phases.{name}.metric": keys.metric or "" for name, keys in run.train.phases.items()}
    named |= {f"expect.{name}": name for name in run.expect}
    for key, name in named.items():
        for task in system.tasks:
            if name in task.descriptive:
                others = ", ".join(task.directions)
                raise ConfigError(
                    f"{key}: {name!r} describes answers and is neither good nor bad; expected one of {others}"
                )
            if name in task.late and not key.startswith("expect."):
                others = ", ".join(other for other in task.directions if other not in task.late)
                raise ConfigError(f"{key}: {name!r} is known once a run is measured; expected one of {others}")
    known = [name for task in system.tasks for name in task.directions]
    for name in run.expect:
        if fault := unmeasured(name, known):
            raise ConfigError(f"expect.{name}: {fault}")


def unmeasured(name: str, known: Iterable[str]) -> str:
    """Return what is wrong with a metric that is none of the known ones, empty where nothing is.

    Names with a slash are losses, or what a system tells of its own.
    """
    known = list(known)
    if "/" in name or name in known:
        return ""
    near = difflib.get_close_matches(name, known, n=1)
    return "is not measured; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")


def to_json(config: RunConfig) -> str:
    """Return the resolved config as JSON text; `from_table(json.loads(...))` reads it back."""
    return json_text(to_table(config), indent=1)


def from_json(text: str) -> RunConfig:
    """Return the config that `to_json` wrote."""
    return from_table(json.loads(text))


def differing(config: RunConfig) -> dict[str, Any]:
    """Return as plain values the keys that have not their defaults; of `train.metric` that is the headline."""
    found: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    if config.train.metric == resolve(config.system).tasks[0].headline:
        del found["train"]["metric"]
        if not found["train"]:
            del found["train"]
    return found


def to_toml(config: RunConfig) -> str:
    """Return the config as a TOML file, without the keys that keep their defaults; `load` reads it back."""
    import tomli_w

    return tomli_w.dumps(differing(config))


def check(cls: type[Strict], table: dict[str, Any], at: str) -> Any:
    """Return `cls` filled from `table`; errors start with `at` and the dotted key."""
    try:
        return cls.model_validate(table)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(cls, at, dict(e)) for e in error.errors())) from error


def check_keys(config: RunConfig, key: str) -> None:
    """Check that a config has a dotted key.

    Raises:
        ConfigError: it has not; the nearest known key is named.
    """
    model: Any = config
    path = key.split(".")
    for depth, name in enumerate(path):
        if isinstance(model, _Table):
            model = model.entry  # entries have names of their own
            continue
        known = list(type(model).model_fields) if isinstance(model, Strict) else []
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {'.'.join([*path[:depth], near[0]])!r}?" if near else ""
            raise ConfigError(f"{key}: unknown key{hint}")
        inner = _models_of(type(model), name)
        model = getattr(model, name)
        if isinstance(model, dict) and inner:
            model = _Table(inner[0]())


@dataclass(frozen=True, slots=True)
class _Table:
    """A table whose entries are models of one kind."""

    entry: Strict


def _models_of(cls: type[Strict], name: str) -> list[type[Strict]]:
    """Return the kinds of models that a key holds, or that the entries of its table are."""
    field = cls.model_fields.get(name)
    kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Strict)]


def _describe(cls: type[Strict], at: str, error: dict[str, Any]) -> str:
    """Return one line for one pydantic error: the key, what was found, what was expected, the nearest key."""
    where = [str(part) for part in error["loc"]]
    key = at + ".".join(where)
    if error["type"] == "extra_forbidden":
        known = _fields(cls, where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.5)
        return f"{key}: unknown key; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{key}: required key is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    for theirs, ours in TOML_WORDS.items():
        message = message.replace(theirs, ours)
    if error["type"] == "value_error" and not where:
        return f"{at}{message}"
    if error["type"] == "value_error" and STARTS_WITH_KEYS.match(message):
        return f"{key}.{message}"
    return f"{key}: {message[0].lower()}{message[1:]}, got {error['input']!r}"


def _fields(cls: type[Strict], path: Sequence[str]) -> list[str]:
    """Return the keys that the model at the dotted `path` below `cls` knows."""
    names = iter(path)
    for name in names:
        inner = _models_of(cls, name)
        if not inner:
            return []
        if get_origin(cls.model_fields[name].annotation) is dict:
            next(names, None)  # the entry's own name
        cls = inner[0]
    return list(cls.model_fields)


def _put(table: dict[str, Any], text: str) -> None:
    """Set one `a.b=value` override; a value that is no TOML value is taken as text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r}: an override is written key=value")
    *parents, last = _path(key.strip())
    for name in parents:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{key}: {name} is not a table")
    try:
        table[last] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        table[last] = value.strip()


def _path(key: str) -> list[str]:
    """Return the parts of a dotted key; parts with other characters are quoted as in TOML: expect."hit@10"."""
    try:
        table = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f'{key}: not a key; write parts with other characters in quotes, as in expect."hit@10"'
        ) from error
    path: list[str] = []
    while isinstance(table, dict):
        (name,) = table
        path.append(name)
        table = table[name]
    return path
