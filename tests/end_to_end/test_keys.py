"""Every key has an effect, or is refused where it has none.

Small runs note which keys of their config are read while they prepare, train, measure and export. A key that a run does
not read must be refused when it is set beside the run's others; keys of other commands are read where their code is.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest

from rec.cli.run import prepare as prepare_by_command
from rec.config import RunConfig, from_table, load, override, without_idle
from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.errors import ConfigError, DataError, RecError
from rec.evaluation.run import evaluate_run
from rec.evaluation.tasks.config import EvaluateConfig
from rec.serving.config import ServeConfig
from rec.serving.export import export
from rec.strict import Strict, idle_keys, resolve
from rec.systems.msmrec import MSMRec
from rec.train.config import ParallelConfig, PhaseConfig, TrainConfig
from rec.train.job import train_here
from rec.train.phases import stretches
from rec.tuning.config import TuneConfig
from tests.golden.runs import GRAPH, KNOWN, ONE, PAIRS, REVIEWS, SEQUENCES, WRITTEN
from tests.support.own import own_tables
from tests.unit.data.test_images import encoded

ROOT = Path(__file__).resolve().parents[2] / "rec"
CHECKS = ("pydantic/main.py", "rec/strict.py", "rec/config.py")
"""Files whose reads are no effects: they check values, or look for keys without an effect."""
REFUSALS = ("has no effect", "is propagated", "needs mixture.experts=0", "one of both", "must divide")
TINY_BERT = {"width": 8, "layers": 1, "heads": 2}
MIXTURE = {"experts": 2, "per_row": 1}
TEMPLATES = ONE | {
    "text": {"modalities": ["text", "mood"], "width": 16},
    "modalities": {"templates": {"mood": "{title} {text}"}, "fields": ["text"]},
}
"""Texts of which one is written by a template of the config."""
DATA: dict[str, dict[str, Any]] = {
    "sequences": SEQUENCES,
    "known": KNOWN,
    "pairs": PAIRS,
    "graph": GRAPH,
    "one": ONE,
    "reviews": REVIEWS,
    "written": WRITTEN,
    "templates": TEMPLATES,
}
MSMREC, HEALTHMOE = "rec.systems.msmrec:MSMRec", "rec.systems.healthmoe:HealthMoE"
LIGHTGCN, MAGNET = "rec.systems.lightgcn:LightGCN", "rec.systems.magnet:Magnet"
PETER, GAVAMOE = "rec.systems.peter:PETER", "rec.systems.gavamoe:GaVaMoE"
SMALL: dict[str, dict[str, Any]] = {
    MSMREC: {"width": 8, "blocks": 1, "max_length": 10},
    HEALTHMOE: {"width": 8, "hidden": 8, "out": 8, "text": TINY_BERT, "image": TINY_BERT},
    LIGHTGCN: {"width": 8},
    MAGNET: {"width": 8},
    PETER: {"width": 8, "hidden": 8},
    GAVAMOE: {
        "pairs": {"embedding": 8, "latent": 4, "hidden": 8},
        "language": {"width": 8, "heads": 2, "hidden": 8, "max_tokens": 16},
    },
}
CIRCUMSTANCES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    MSMREC: [
        ("sequences", {}),
        ("sequences", {"gate": "none"}),
        ("sequences", {"gate": "mean", "loss": "bce"}),
        ("sequences", {"gate": "user", "loss": "gbce", "feedforward_mixture": MIXTURE}),
        ("sequences", {"gate": "published", "loss": "ss", "feedforward_mixture": MIXTURE | {"router": "sigmoid"}}),
        ("sequences", {"input_mix": False}),
        ("known", {"knowledge": {"towers": "both", "per_row": 2, "balance_weight": 0.1}}),
        ("sequences", {"gate": "none", "loss": "sampled", "item_table": "sharded"}),
    ],
    HEALTHMOE: [
        ("pairs", {}),
        ("pairs", {"mixture": {"experts": 0}}),
        ("pairs", {"head": "classification", "image": {}}),
        ("one", {"encoders": "frozen", "text": {}, "image": {}, "mixture": MIXTURE | {"router": "sigmoid"}}),
    ],
    LIGHTGCN: [
        ("graph", {}),
        ("graph", {"layers": 0}),
        ("graph", {"content": {"text": 1.0}}),
        ("graph", {"fanout": 3, "features": ["text"]}),
    ],
    MAGNET: [
        ("graph", {"trigger": {"warmup": 0, "window": 1, "threshold": 0.01}}),
        ("graph", {"view": "joint", "trigger": {"kind": "fixed_step", "step": 1}}),
        ("graph", {"mixture": "off"}),
        ("graph", {"routing_terms": False, "contrast_weight": 0.0}),
        ("graph", {"fanout": 3, "trigger": {"warmup": 0, "window": 1, "threshold": 0.01}}),
    ],
    PETER: [("reviews", {}), ("reviews", {"feature": True})],
    GAVAMOE: [
        ("written", {}),
        ("written", {"pairs": SMALL[GAVAMOE]["pairs"] | {"layers": 0}, "experts": {"experts": 0}}),
        ("written", {"experts": {"gates": "one"}, "prompt": {"feature": False, "rating": "predicted"}}),
    ],
}


@contextmanager
def reads() -> Iterator[set[tuple[str, str]]]:
    """Note which keys of which sections are read inside, but for what only checks them."""
    found: set[tuple[str, str]] = set()

    def spy(self: Any, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name[0] != "_" and name in type(self).model_fields and not _is_check():
            found.add((type(self).__name__, name))
        return value

    Strict.__getattribute__ = spy  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del Strict.__getattribute__


def _is_check() -> bool:
    frame = sys._getframe(2)
    for _ in range(6):
        if frame is None:
            return False
        if frame.f_code.co_filename.endswith(CHECKS):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def sections(model: Strict, at: str) -> Iterator[tuple[str, Strict]]:
    """Yield every model of a section with the start of its keys."""
    yield at, model
    for name in type(model).model_fields:
        if isinstance(value := getattr(model, name), Strict):
            yield from sections(value, f"{at}{name}.")


def others(model: Strict, name: str) -> Iterator[Any]:
    """Yield other values that a key may have by itself."""
    field = type(model).model_fields[name]
    value, kinds = getattr(model, name), [field.annotation, *get_args(field.annotation)]
    candidates: list[Any] = []
    for kind in kinds:
        candidates += get_args(kind) if str(get_origin(kind)).endswith("Literal") else []
    candidates += [not value] if isinstance(value, bool) else []
    candidates += [value + 1, value * 2, 2, 3] if isinstance(value, int) and not isinstance(value, bool) else []
    candidates += [value / 2, 0.25, 0.75, 2.0] if isinstance(value, float) else []
    candidates += [[3], ["text"], [{"answer": {}}]] if isinstance(value, tuple) else []
    candidates += [{"text": 0.5}, {"text": "told"}] if isinstance(value, dict) else []
    candidates += [5, "2020-01-01", ["item"], 0.5, {"encoder": "tfidf"}] if value is None else []
    candidates += ["other"] if isinstance(value, str) and kinds == [str] else []
    for candidate in candidates:
        as_held = tuple(candidate) if isinstance(candidate, list) else candidate
        if as_held == value or as_held == field.get_default(call_default_factory=True):
            continue
        try:
            type(model).model_validate({name: candidate})
        except ValueError as error:
            if not any(word in str(error) for word in REFUSALS):
                continue
        yield candidate


def with_key(config: RunConfig, key: str, value: Any) -> dict[str, Any]:
    """Return the table of a config with another value of a dotted key."""
    table: dict[str, Any] = config.model_dump(mode="json")
    inner = table
    *parents, last = key.split(".")
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return table


def loaded(config: RunConfig) -> None:
    """Do no more than check a config."""


def check_unread(
    config: RunConfig, found: set[tuple[str, str]], names: tuple[str, ...], run: Callable[[RunConfig], None] = loaded
) -> None:
    """Assert that each key of some sections that was not read is refused when it is set, at once or when it is run."""
    ignored = {}
    for name in names:
        for at, model in sections(getattr(config, name), f"{name}."):
            for key in type(model).model_fields:
                if (type(model).__name__, key) in found or isinstance(getattr(model, key), Strict):
                    continue
                told = [refusal(with_key(config, f"{at}{key}", value), run) for value in others(model, key)]
                if not any(word in line for line in told for word in REFUSALS):
                    ignored[f"{at}{key}"] = told
    assert not ignored


def refusal(table: dict[str, Any], run: Callable[[RunConfig], None]) -> str:
    """Return what is said of a config, empty where it is taken."""
    try:
        run(without_idle(table, []))
    except RecError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return what makes the table `[data]` of a small data set, which is prepared once."""
    made: dict[str, dict[str, Any]] = {}

    def make(name: str) -> dict[str, Any]:
        if name not in made:
            made[name] = {**DATA[name], "root": str(tmp_path_factory.mktemp(name))}
        return made[name]

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "name", "model"),
    [(system, *rest) for system, found in CIRCUMSTANCES.items() for rest in found],
    ids=lambda value: str(value).replace(" ", "")[:60],
)
def test_a_key_is_read_or_refused(
    system: str, name: str, model: dict[str, Any], data: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    config = from_table(
        {
            "system": system,
            "out": str(tmp_path / "run"),
            "model": SMALL[system] | model,
            "data": data(name),
            "train": {"epochs": 1, "batch_size": 64},
            "evaluate": {"bootstrap": 100},
        }
    )
    assert not idle_keys(config)
    with reads() as found:
        prepare(config.data, InProcess(), lambda _: None, [])
        train_here(config, lambda _: None, lambda _: None)
        evaluate_run(config, "test")
        export(config, str(tmp_path / "artifact"), lambda _: None)
        assert config.parallel.worker_resources == {"CPU": 1.0}  # what trials of a search reserve
    check_unread(config, found, ("model", "train", "parallel", "evaluate"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DATA))
def test_a_key_of_data_is_read_or_refused(name: str, tmp_path: Path) -> None:
    folders = iter(range(1000))

    def run(config: RunConfig) -> None:
        there = config.data.model_copy(update={"root": str(tmp_path / str(next(folders)))})
        prepare(there, InProcess(), lambda _: None, ["sequences"] if name in ("sequences", "known") else [])

    config = from_table({"system": MSMREC, "out": "o", "data": {**DATA[name], "root": "d"}})
    with reads() as found:
        run(config)
    check_unread(config, found, ("data",), run)


@pytest.mark.parametrize(("share", "fault"), [(0.0, "1 of 10 pictures are bad"), (0.05, "at most 5.0%"), (0.2, "")])
def test_the_share_of_bad_pictures_counts_once_one_is_bad(share: float, fault: str, tmp_path: Path) -> None:
    photo = [encoded() for _ in range(9)] + [b"no picture"]
    config = DataConfig.model_validate(
        {"root": str(tmp_path / "data"), **own_tables(tmp_path, photo=photo, maximum_bad_share=share)}
    )
    told = ""
    with reads() as found:
        try:
            prepare(config, InProcess(), lambda _: None, [])
        except DataError as error:
            told = str(error)
    assert ("EncodeConfig", "maximum_bad_share") in found
    assert fault in told
    assert bool(told) == bool(fault)


@pytest.mark.parametrize("key", ["data.encode.actors=2", "data.encode.gpus_per_actor=0.5", "data.text.actors=3"])
def test_processes_of_encoders_are_refused_where_all_runs_in_one(key: str, tmp_path: Path) -> None:
    text = {"modalities": ["text", "title"], "encoder": "some/model"}
    table = {"system": MSMREC, "out": "o", "data": {"root": str(tmp_path), **ONE, "text": text}}
    config = override(from_table(table), [key])
    with pytest.raises(ConfigError, match=f"{key.partition('=')[0]}: has no effect with parallel.workers=0"):
        prepare_by_command(config)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["train.phases.nope.epochs=3"], "train.phases.nope: no such phase; there are train"),
        (["train.phases.train.metric=ndgc@10"], "train.phases.train.metric: 'ndgc@10' is not measured"),
        (
            ["train.phases.train.batch_size=3", "parallel.workers=2"],
            "train.phases.train.batch_size: must be a multiple",
        ),
        (["parallel.expert_parallel=2"], "parallel.expert_parallel: must divide workers (0), got 2"),
        (["parallel.expert_parallel=2", "parallel.workers=3"], "parallel.expert_parallel: must divide workers (3)"),
        (["parallel.gpus_per_worker=0.5"], "parallel.gpus_per_worker: has no effect with parallel.gpu=false"),
        (["parallel.zero_stage=3", "parallel.workers=2"], "parallel.zero_stage: 3 shares weights, which DeepSpeed ref"),
        (["parallel.offload=true", "parallel.workers=2"], "parallel.offload: has no effect with parallel.gpu=false"),
        (
            ["parallel.offload=true", "parallel.workers=2", "parallel.gpu=true", "parallel.zero_stage=0"],
            "parallel.offload: has no effect with parallel.zero_stage=0",
        ),
        (["train.tokens=9", "train.accumulate=2"], "train.tokens: has no effect with train.accumulate=2; leave one"),
        (
            ["train.phases.train.tokens=9", "train.accumulate=2"],
            "train.phases.train.tokens: has no effect with train.accumulate=2",
        ),
    ],
)
def test_keys_of_phases_and_workers_are_refused_where_they_cannot_hold(words: list[str], found: str) -> None:
    with pytest.raises(ConfigError) as error:
        phases_of(words)
    assert found in str(error.value)


@pytest.mark.parametrize("name", [LIGHTGCN, HEALTHMOE])
def test_a_budget_of_tokens_is_refused_where_rows_tell_no_lengths(name: str) -> None:
    kind = resolve(name)
    config = from_table({"system": name, "out": "o", "data": {"root": "d"}, "model": SMALL[name]})
    system = kind(config.model, kind.sample(4, np.random.default_rng(0))[1])
    with pytest.raises(ConfigError, match=rf"train.tokens: has no effect: {kind.__name__} tells no lengths"):
        stretches(system, TrainConfig(tokens=64))


def phases_of(words: list[str]) -> Any:
    """Return the phases of a run under some overrides, as it would train them."""
    config = override(from_table({"system": MSMREC, "out": "o", "data": {"root": "d"}}), words)
    system = MSMRec(config.model, MSMRec.sample(4, np.random.default_rng(0))[1])
    return stretches(system, config.train, config.parallel.workers or 1)


@pytest.mark.parametrize(
    ("words", "resources"),
    [
        (["parallel.threads=2"], {"CPU": 2.0}),
        (["parallel.cpus_per_worker=0.5"], {"CPU": 0.5}),
        (["parallel.gpu=true", "parallel.workers=2"], {"CPU": 1.0, "GPU": 1.0}),
        (["parallel.gpu=true", "parallel.workers=2", "parallel.gpus_per_worker=0.25"], {"CPU": 1.0, "GPU": 0.25}),
    ],
)
def test_what_a_worker_or_a_trial_in_one_process_reserves(words: list[str], resources: dict[str, float]) -> None:
    tuning = pytest.importorskip("rec.runtime.tuning", reason="needs the extra `cluster`")
    config = override(from_table({"system": MSMREC, "out": "o", "data": {"root": "d"}}), words)
    assert config.parallel.worker_resources == resources
    if not config.parallel.workers:
        assert tuning._resources(config).required_resources == resources


SEARCHES: list[dict[str, Any]] = [
    {},
    {"search": "random", "scheduler": "none", "objectives": {"evaluate_s": "min"}},
    {"scheduler": "pbt", "trials": 2},
]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("keys", SEARCHES, ids=lambda keys: str(keys.get("scheduler", "asha")))
def test_a_key_of_a_search_is_read_or_refused(
    keys: dict[str, Any], ray_runtime: None, run_config: Callable[..., RunConfig]
) -> None:
    from rec.runtime.tuning import search

    space = {"train.learning_rate": {"log": [1e-3, 1e-2]}}
    config = run_config(train={"epochs": 1}, tune={"trials": 1, "concurrent": 1, "space": space, **keys})
    with reads() as found:
        search(config, lambda _: None)
    check_unread(config, found, ("tune",))


def attributes(path: Path) -> set[str]:
    """Return the names that follow a dot in a file, and those that are asked for by their text."""
    tree = ast.parse(path.read_text())
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("cls", [TuneConfig, ServeConfig, ParallelConfig, TrainConfig, EvaluateConfig, PhaseConfig])
def test_a_key_is_read_by_some_code(cls: type[Strict]) -> None:
    files = [path for path in ROOT.rglob("*.py") if path.name != "strict.py"]
    read = set().union(*(attributes(path) for path in files))
    assert set(cls.model_fields) <= read, set(cls.model_fields) - read


BASE = """
system = "rec.systems.msmrec:MSMRec"
out = "o"
[data]
root = "d"
"""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["parallel.precision=bf16"], "parallel.precision: has no effect with parallel.workers=0; leave it out"),
        (["parallel.zero_stage=2"], "parallel.zero_stage: has no effect with parallel.workers=0"),
        (["parallel.moe_backend=deepspeed"], "parallel.moe_backend: has no effect with parallel.workers=0"),
        (["parallel.stall_timeout_s=30.0"], "parallel.stall_timeout_s: has no effect with parallel.workers=0"),
        (["parallel.gpus_per_worker=0.5", "parallel.workers=2"], "has no effect with parallel.gpu=false"),
        (["tune.grace=3", "tune.scheduler=none"], 'tune.grace: has no effect with tune.scheduler="none"'),
        (["tune.perturb_every=3"], 'tune.perturb_every: has no effect with tune.scheduler="asha"'),
        (["serve.index_candidates=50"], 'serve.index_candidates: has no effect with serve.index="exact"'),
        (["serve.target_ongoing_requests=8"], "has no effect with serve.max_replicas=0"),
        (["model.gate=none", "model.temperature=0.5"], 'model.temperature: has no effect with model.gate="none"'),
        (["model.calibration=0.5"], 'model.calibration: has no effect with model.loss="ce"'),
        (["model.feedforward_mixture.noise=true"], "has no effect with model.feedforward_mixture.experts=0"),
        (["data.text.pooling=cls"], 'data.text.pooling: has no effect with data.text.encoder="tfidf"'),
        (
            ["system=rec.systems.lightgcn:LightGCN", "evaluate.popular_share=0.1"],
            "evaluate.popular_share: has no effect",
        ),
        (["evaluate.decoding.beams=4"], "evaluate.decoding: has no effect: no task of rec.systems.msmrec:MSMRec reads"),
        ([f"system={PETER}", "evaluate.decoding.top_p=0.9"], "has no effect with evaluate.decoding.temperature=null"),
        (
            [f"system={PETER}", "evaluate.decoding.seed=1", "evaluate.decoding.temperature=0.0"],
            "evaluate.decoding.seed: has no effect with evaluate.decoding.temperature=0.0",
        ),
        (
            [f"system={PETER}", "evaluate.decoding.length_penalty=0.5", "evaluate.decoding.beams=1"],
            "evaluate.decoding.length_penalty: has no effect with evaluate.decoding.beams=1",
        ),
        (
            [f"system={PETER}", "evaluate.decoding.beams=2", "evaluate.decoding.temperature=0.5"],
            "evaluate.decoding.beams: a search draws nothing at random",
        ),
        ([f"system={GAVAMOE}", "evaluate.decoding.tempreature=1.0"], "did you mean 'temperature'?"),
    ],
)
def test_a_key_without_effect_is_refused_by_name(words: list[str], found: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(BASE)
    with pytest.raises(ConfigError) as error:
        load(path, words)
    assert found in str(error.value)


def test_what_a_control_leaves_without_effect_goes_back_to_its_default(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"{BASE}[model]\ntemperature = 0.5\nfusion = 'bilinear'\nwidth = 8\n")
    assert load(path).model.model_dump()["temperature"] == 0.5
    for config in (load(path, ["model.gate=none"]), override(load(path), ["model.gate=none"])):
        found = config.model.model_dump()
        assert (found["temperature"], found["fusion"], found["width"]) == (1.0, "inner", 8)
    path.write_text(f"{BASE}[model]\ntemperature = 0.5\ngate = 'none'\n")
    with pytest.raises(ConfigError, match=r'model.temperature: has no effect with model.gate="none"'):
        load(path)
