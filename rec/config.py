"""Read one TOML file and dotted overrides into frozen models that refuse what they do not know."""

from __future__ import annotations

import difflib
import importlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from rec.errors import ConfigError

MODALITIES = ("narrative", "dialogue", "visual", "set", "audio", "pace", "direction", "acting", "poster")
"""The nine texts per film of MSMRec (table 2)."""


class Strict(BaseModel):
    """Base of every config model: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _arrays_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class ColumnNames(Strict):
    """Which columns of the user's own tables hold what."""

    user: str = "user"
    item: str = "item"
    time: str | None = None
    """Sort key within a user; without it the order of rows is the order of events."""
    rating: str | None = None


class PlantedConfig(Strict):
    """A generated catalogue whose users truly follow one or two modalities."""

    interactions: int = Field(100_000, ge=1_000, le=100_000_000)
    """Events over all users."""
    users: int = Field(0, ge=0)
    """0 makes one user per 50 events."""
    items: int = Field(0, ge=0)
    """0 makes one item per 200 events, at least 100 and at most 5,000."""
    modalities: tuple[str, ...] = ("narrative", "visual", "audio", "pace", "direction", "acting")
    topics: int = Field(12, ge=2)
    """Values that one modality of an item can take."""
    seed: int = 0
    shards: int = Field(8, ge=1)

    @property
    def num_users(self) -> int:
        """How many users are generated."""
        return self.users or self.interactions // 50

    @property
    def num_items(self) -> int:
        """How many items are generated."""
        return self.items or min(max(self.interactions // 200, 100), 5_000)


class SourceConfig(Strict):
    """Where interactions and item metadata come from."""

    kind: Literal["table", "movielens", "sasrec", "planted"] = "table"
    interactions: tuple[str, ...] = ()
    """Paths of any file system that pyarrow opens: files or folders; Parquet or CSV for kind "table"."""
    columns: ColumnNames = ColumnNames()
    minimum_rating: float | None = None
    """Events with a lower rating are dropped."""
    minimum_item_count: int = Field(0, ge=0)
    """Items with fewer events are dropped first ..."""
    minimum_user_count: int = Field(4, ge=4)
    """... then users with fewer events: 4 is what a training target, validation and test need."""
    items: str | None = None
    """Table of item metadata: movies.dat, u.item, or CSV / Parquet with a column for the item id."""
    item_ids: str | None = None
    """Lines `id original_id` that map the interactions' item ids to the ids of `items` (SASRec files)."""
    metadata: tuple[str, ...] = ()
    """More metadata, later files fill what earlier ones leave empty: MeLU's .dat, or TMDB / IMDb-like csv."""
    sha1: str | None = None
    """Git blob hash the first interactions file must have; unset checks nothing."""
    planted: PlantedConfig = PlantedConfig()


class TextConfig(Strict):
    """How K texts per item are written and encoded."""

    modalities: tuple[str, ...] = MODALITIES
    """For kind "table", names of text columns of `items` are taken as they are; others come from the template."""
    encoder: str = "tfidf"
    """"tfidf" (TF-IDF and truncated SVD, offline) or the name or path of a transformers text model."""
    width: int = Field(128, ge=2)
    """Components the SVD keeps; a transformers model has its own width."""
    pooling: Literal["mean", "cls"] = "mean"
    batch_size: int = Field(64, ge=1)
    max_tokens: int = Field(128, ge=8)
    actors: int = Field(1, ge=1)
    """Copies of a transformers encoder that work at the same time."""


class DataConfig(Strict):
    """The prepared data set and what it is made from."""

    root: str
    """Folder made by `rec prepare`; holds manifest.json."""
    source: SourceConfig = SourceConfig()
    text: TextConfig | None = None
    """Unset prepares interactions only."""
    shard_rows: int = Field(4096, ge=1)
    """Users per Parquet file."""


class TrainConfig(Strict):
    """How the shared loop runs."""

    batch_size: int = Field(128, ge=1)
    """Examples per optimiser step over all workers."""
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    adam_beta2: float = Field(0.98, gt=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(0.0, ge=0)
    """Largest global gradient norm; 0 does not clip."""
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls after the warm-up, to zero at the last step of the last epoch."""
    metric: str = "ndcg@10"
    """What validation chooses the best checkpoint by; higher is better."""
    patience: int = Field(0, ge=0)
    """Evaluations without a better `metric` after which training stops; 0 never stops early."""
    evaluate_every: int = Field(1, ge=1)
    """Epochs between evaluations on validation."""
    evaluate_batch_size: int = Field(256, ge=1)
    """Examples per evaluation batch of one worker."""
    checkpoint_steps: int = Field(0, ge=0)
    """Optimiser steps between checkpoints beside those at evaluations; 0 makes none."""
    checkpoint_minutes: float = Field(0.0, ge=0)
    """Minutes between checkpoints beside those at evaluations; 0 makes none."""
    shuffle_window: int = Field(65_536, ge=1)
    """Rows that are shuffled together and held in memory; files are shuffled as well."""
    seed: int = 0


class ParallelConfig(Strict):
    """How many workers, and how they share the work."""

    workers: int = Field(0, ge=0)
    """Ray Train workers under DeepSpeed; 0 trains in this process without Ray or DeepSpeed."""
    expert_parallel: int = Field(1, ge=1)
    """Ranks that share one copy of the experts; must divide workers."""
    moe_backend: Literal["grouped", "deepspeed"] = "grouped"
    """What computes experts: our grouped products and exchange, or DeepSpeed's stock layer, to compare with."""
    zero_stage: Literal[0, 1, 2] = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    gpu: bool = False
    """One GPU per worker."""
    threads: int = Field(1, ge=1)
    """CPU cores and torch threads per worker."""
    max_failures: int = Field(3, ge=0)
    """Restarts from the last checkpoint after a lost worker before the job gives up."""
    stall_timeout_s: float = Field(600.0, gt=0)
    """Seconds without progress of any rank after which the job names the rank and restarts."""

    @model_validator(mode="after")
    def _experts_divide(self) -> Self:
        if max(self.workers, 1) % self.expert_parallel:
            raise ValueError(f"expert_parallel: must divide workers ({self.workers}), got {self.expert_parallel}")
        return self


class EvaluateConfig(Strict):
    """What `rec evaluate` adds to the metrics."""

    popular_share: float = Field(0.001, gt=0, lt=1)
    """An item is popular when it has more than this share of all events (MSMRec, section 5.4)."""
    cold_count: int = Field(10, ge=0)
    """Items with at most so many training events are reported as cold."""
    bootstrap: int = Field(1000, ge=100)
    """Resamples of users behind each interval."""


class RunConfig(Strict):
    """One run: which system, with which keys, on which data, trained how."""

    system: str
    """Import path `package.module:Class`."""
    out: str
    """Folder of the run: checkpoints, log, metrics, report."""
    model: SerializeAsAny[Strict]
    data: DataConfig
    train: TrainConfig = TrainConfig()
    parallel: ParallelConfig = ParallelConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
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


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the checked config at `path` with `a.b=value` overrides applied.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or missing, or a value has the wrong type or range.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from error
    for text in overrides:
        _put(table, text)
    return from_table(table)


def from_table(table: dict[str, Any]) -> RunConfig:
    """Return the checked config for a nested table of plain values."""
    if not isinstance(table.get("system"), str):
        raise ConfigError("system: required key is missing; expected an import path like 'rec.systems.msmrec:MSMRec'")
    system = resolve(table["system"])
    model = check(system.Config, table.get("model", {}), "model.")
    run: RunConfig = check(RunConfig, table | {"model": model}, "")
    return run


def to_json(config: RunConfig) -> str:
    """Return the resolved config as JSON text; `from_table(json.loads(...))` reads it back."""
    return config.model_dump_json(indent=1)


def from_json(text: str) -> RunConfig:
    """Return the config that `to_json` wrote."""
    return from_table(json.loads(text))


def resolve(name: str) -> Any:
    """Return the class that `package.module:Class` names."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"system: no class {name!r} ({error})") from error


def check(cls: type[Strict], table: dict[str, Any], at: str) -> Any:
    """Return `cls` filled from `table`; errors start with `at` and the dotted key."""
    try:
        return cls.model_validate(table)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(cls, at, dict(e)) for e in error.errors())) from error


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
    if error["type"] == "value_error" and not where:
        return f"{at}{message}"
    return f"{key}: {message[0].lower()}{message[1:]}, got {error['input']!r}"


def _fields(cls: type[Strict], path: Sequence[str]) -> list[str]:
    """Return the keys that the model at the dotted `path` below `cls` knows."""
    for name in path:
        field = cls.model_fields.get(name)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, Strict)]
        if not inner:
            return []
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
