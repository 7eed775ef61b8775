"""What is searched: the space of a run's config, and the run that a point of it stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rec.config import RunConfig, check_keys, to_table, unmeasured, without_idle
from rec.errors import ConfigError
from rec.evaluation.measure import directions
from rec.space import Dimension, parse, prefixed
from rec.strict import Strict, resolve
from rec.systems.api import System
from rec.train.phases import VALIDATION_LOSS, Stretch, higher_is_better, stretches

MAXIMUM, MINIMUM = "max", "min"
EVALUATE_S, LOAD_BALANCE = "evaluate_s", "load_balance"
"""Of a trial beside metrics: seconds of an evaluation, and the least even use of experts of any layer."""


def ready_spaces(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the ready-made spaces of every section of a config, by name, with full keys."""
    found: dict[str, dict[str, Any]] = {}

    def walk(model: Strict, at: str) -> None:
        for name, table in type(model).SPACES.items():
            found[name] = found.get(name, {}) | prefixed(table, at)
        for name in type(model).model_fields:
            if isinstance(value := getattr(model, name), Strict):
                walk(value, f"{at}{name}.")

    walk(config, "")
    return found


def space_of(config: RunConfig) -> dict[str, Dimension]:
    """Return the space that `[tune]` names: the ready-made ones of `use`, and `space` in their place where both do.

    Raises:
        ConfigError: nothing is named, a name or key is unknown, or no value of a key makes a valid run.
    """
    ready = ready_spaces(config)
    table: dict[str, Any] = {}
    for name in config.tune.use:
        if name not in ready:
            raise ConfigError(f"tune.use: no ready-made space {name!r}; there are {', '.join(sorted(ready))}")
        table |= ready[name]
    table |= config.tune.space
    if not table:
        raise ConfigError(
            f"tune.space: nothing to search; fill it, or name some of {', '.join(sorted(ready))} in tune.use"
        )
    try:
        space = parse(table)
    except ValueError as error:
        raise ConfigError(f"tune.space.{error}") from error
    for key, dimension in space.items():
        _check_values(config, key, dimension)
    return space


def apply(config: RunConfig, point: Mapping[str, Any], out: str) -> RunConfig:
    """Return the run at a point of the space, in a folder of its own.

    Raises:
        ConfigError: the values make no valid run together.
    """
    table = to_table(config)
    for key, value in {**point, "out": out}.items():
        put(table, key, value)
    return without_idle(table, list(point), drop_own=True)


def put(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in a nested table."""
    *parents, last = key.split(".")
    for name in parents:
        table = table.setdefault(name, {})
    table[last] = value


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key the shortest end of it, from a dot on, that no other key ends with.

    `train.learning_rate`, `model.top_k`, `model.mixture.top_k` are learning_rate, model.top_k and mixture.top_k.
    """
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-size:]) for size in range(1, len(parts) + 1))
        others = [f".{other}" for other in keys if other != key]
        found[key] = next((end for end in ends if not any(o.endswith(f".{end}") for o in others)), key)
    return found


def value_at(config: RunConfig, key: str) -> Any:
    """Return the value of a dotted key."""
    value: Any = config.model_dump(mode="json")
    for name in key.split("."):
        # A phase of which the config says nothing has no entry.
        value = value.get(name) if value is not None else None
    return value


def for_search(config: RunConfig, system: System[Any, Any]) -> RunConfig:
    """Return the config with what trials are compared by filled in: the metric of the last phase."""
    metric = config.tune.metric or stretches(system, config.train)[-1].config.metric
    return config.model_copy(update={"tune": config.tune.model_copy(update={"metric": metric})})


def objectives(config: RunConfig) -> dict[str, str]:
    """Return what trials are compared by, with "max" or "min"; the first decides about stopping early."""
    metric = config.tune.metric or config.train.metric
    higher = higher_is_better(metric, directions(resolve(config.system).tasks))
    return {metric: MAXIMUM if higher else MINIMUM, **config.tune.objectives}


def check_objectives(config: RunConfig, system: System[Any, Any]) -> None:
    """Check that all that trials are compared by is measured, each in its own direction.

    Raises:
        ConfigError: a name is unknown, or goes the other way.
    """
    known = {**directions(system.tasks), VALIDATION_LOSS: False, EVALUATE_S: False, LOAD_BALANCE: True}
    for name, goal in objectives(config).items():
        key = f"tune.objectives.{name}" if name in config.tune.objectives else "tune.metric"
        if fault := unmeasured(name, known):
            raise ConfigError(f"{key}: {name!r} {fault}")
        higher = higher_is_better(name, known)
        if name != LOAD_BALANCE and goal != (MAXIMUM if higher else MINIMUM):
            better = "higher" if higher else "lower"
            raise ConfigError(f"{key}: {goal!r}, but {better} is better in {name!r}")


def evaluations(found: Sequence[Stretch]) -> int:
    """Return how many evaluations these phases make at most."""
    return sum(math.ceil(stretch.config.epochs / stretch.config.evaluate_every) for stretch in found)


def _check_values(config: RunConfig, key: str, dimension: Dimension) -> None:
    """Check that the key exists and that some value of it is valid, its conditions being met where they can be."""
    needed = {name: values[0] for name, (among, values) in dimension.when.items() if among}
    for name in (key, *dimension.when):
        check_keys(config, name)
    failure: ConfigError | None = None
    for value in dimension.values:
        try:
            apply(config, {**needed, key: value}, config.out)
            return
        except ConfigError as error:
            failure = error
    raise ConfigError(f"tune.space.{key}: no value of it is valid: {failure}") from failure
