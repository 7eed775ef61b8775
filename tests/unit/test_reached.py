"""Every file of the package is reached by a test of its own name, or listed with the test that reaches it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "rec/benchmarks/bare_encoders.py": "tests/distributed/benchmarks/test_encoders.py",
    "rec/benchmarks/chat_client.py": "tests/end_to_end/benchmarks/test_modalities.py",
    "rec/benchmarks/cluster/bench.py": "tests/unit/benchmarks/test_cluster.py",
    "rec/benchmarks/cluster/probe.py": "tests/unit/benchmarks/test_cluster.py",
    "rec/benchmarks/evaluate.py": "tests/unit/benchmarks/test_run.py",
    "rec/benchmarks/load.py": "tests/distributed/benchmarks/test_serve.py",
    "rec/benchmarks/serve_faults.py": "tests/distributed/benchmarks/test_serve.py",
    "rec/benchmarks/train_ray.py": "tests/unit/benchmarks/test_run.py",
    "rec/benchmarks/tune.py": "tests/unit/benchmarks/test_run.py",
    "rec/benchmarks/visits_served.py": "tests/unit/benchmarks/test_run.py",
    "rec/benchmarks/work.py": "tests/end_to_end/benchmarks/test_writer.py",
    "rec/cli/benchmark.py": "tests/unit/benchmarks/test_run.py",
    "rec/cli/evaluate.py": "tests/end_to_end/test_cli.py",
    "rec/cli/export.py": "tests/end_to_end/test_cli.py",
    "rec/cli/sweep.py": "tests/end_to_end/test_cli.py",
    "rec/cli/tune.py": "tests/end_to_end/test_cli.py",
    "rec/cli/upgrade.py": "tests/end_to_end/test_cli.py",
    "rec/cluster/rehearsal.py": "tests/unit/cluster/test_plan.py",
    "rec/conformance/checks.py": "tests/guests/test_conformance.py",
    "rec/data/cells.py": "tests/unit/data/test_attributes.py",
    "rec/data/generated/shards.py": "tests/unit/data/generated/test_visits.py",
    "rec/data/modalities/batched.py": "tests/end_to_end/data/modalities/test_local.py",
    "rec/data/modalities/budget.py": "tests/end_to_end/data/modalities/test_chat.py",
    "rec/data/modalities/compare.py": "tests/end_to_end/data/modalities/test_command.py",
    "rec/data/modalities/cost.py": "tests/end_to_end/data/modalities/test_stage.py",
    "rec/data/modalities/counting.py": "tests/end_to_end/data/modalities/test_chat.py",
    "rec/data/modalities/documents.py": "tests/unit/data/modalities/test_retrieval.py",
    "rec/data/modalities/pacing.py": "tests/end_to_end/data/modalities/test_chat.py",
    "rec/data/modalities/prompts.py": "tests/end_to_end/data/modalities/test_chat.py",
    "rec/data/modalities/questions.py": "tests/unit/data/modalities/test_retrieval.py",
    "rec/data/modalities/shard.py": "tests/unit/data/modalities/test_retrieval.py",
    "rec/data/modalities/summary.py": "tests/end_to_end/data/modalities/test_stage.py",
    "rec/data/modalities/template.py": "tests/end_to_end/data/modalities/test_stage.py",
    "rec/data/modalities/writers.py": "tests/end_to_end/data/modalities/test_chat.py",
    "rec/data/reviews/found.py": "tests/unit/data/sources/test_reviews.py",
    "rec/data/reviews/items.py": "tests/unit/data/sources/test_reviews.py",
    "rec/data/reviews/lexicon.py": "tests/unit/data/reviews/test_finder.py",
    "rec/data/reviews/lines.py": "tests/unit/data/sources/test_reviews.py",
    "rec/data/reviews/nlg4rs.py": "tests/unit/data/sources/test_reviews.py",
    "rec/data/static_embedding.py": "tests/unit/data/test_pooling.py",
    "rec/data/stages/entities.py": "tests/unit/data/sources/test_tables.py",
    "rec/data/stages/event_tables.py": "tests/unit/data/test_events.py",
    "rec/data/stages/event_texts.py": "tests/unit/data/test_events.py",
    "rec/data/stages/idle.py": "tests/end_to_end/data/test_refusals.py",
    "rec/data/stages/narrow.py": "tests/unit/data/test_visits.py",
    "rec/data/stages/relations.py": "tests/unit/data/test_prepare.py",
    "rec/data/tables/parquet.py": "tests/unit/data/test_tables.py",
    "rec/data/tables/raw.py": "tests/unit/data/test_tables.py",
    "rec/data/tables/times.py": "tests/unit/data/test_tables_times.py",
    "rec/data/tables/types.py": "tests/unit/data/test_tables_times.py",
    "rec/evaluation/groups.py": "tests/end_to_end/evaluation/test_predict.py",
    "rec/evaluation/measurement.py": "tests/end_to_end/evaluation/test_predict.py",
    "rec/evaluation/settled.py": "tests/end_to_end/evaluation/test_predict.py",
    "rec/evaluation/shared.py": "tests/end_to_end/evaluation/test_predict.py",
    "rec/evaluation/tasks/ranking/known.py": "tests/unit/evaluation/tasks/ranking/test_task.py",
    "rec/evaluation/tasks/ranking/members.py": "tests/unit/evaluation/tasks/ranking/test_blocks.py",
    "rec/evaluation/tasks/ranking/requests.py": "tests/unit/evaluation/tasks/ranking/test_task.py",
    "rec/evaluation/tasks/ranking/service.py": "tests/unit/evaluation/tasks/ranking/test_task.py",
    "rec/evaluation/tasks/rating/service.py": "tests/unit/evaluation/tasks/rating/test_task.py",
    "rec/evaluation/tasks/sets/service.py": "tests/unit/evaluation/tasks/sets/test_task.py",
    "rec/evaluation/tasks/writing/late.py": "tests/end_to_end/evaluation/tasks/writing/test_task.py",
    "rec/evaluation/tasks/writing/service.py": "tests/end_to_end/evaluation/tasks/writing/test_task.py",
    "rec/data/modalities/requests_config.py": "tests/end_to_end/data/test_refusals.py",
    "rec/data/table_format.py": "tests/unit/data/test_tables.py",
    "rec/moe/feed_forward.py": "tests/unit/moe/test_dispatch.py",
    "rec/nn/base.py": "tests/end_to_end/train/test_phases.py",
    "rec/nn/stepwise.py": "tests/end_to_end/train/test_update.py",
    "rec/runtime/members.py": "tests/end_to_end/benchmarks/test_reading.py",
    "rec/runtime/messages.py": "tests/distributed/runtime/test_exchange.py",
    "rec/runtime/pool.py": "tests/distributed/runtime/test_prepare.py",
    "rec/runtime/pump.py": "tests/distributed/runtime/test_ends.py",
    "rec/runtime/replica.py": "tests/distributed/benchmarks/test_serve.py",
    "rec/runtime/search_watch.py": "tests/distributed/runtime/test_tuning.py",
    "rec/serving/documents.py": "tests/unit/serving/test_endpoints.py",
    "rec/serving/remote.py": "tests/end_to_end/serving/test_predict.py",
    "rec/serving/schema.py": "tests/end_to_end/serving/test_app.py",
    "rec/serving/streaming.py": "tests/end_to_end/serving/test_predict.py",
    "rec/systems/attribution.py": "tests/end_to_end/systems/test_absent.py",
    "rec/systems/gavamoe/samples.py": "tests/unit/systems/gavamoe/test_mixture.py",
    "rec/systems/gavamoe/trace.py": "tests/unit/systems/gavamoe/test_mixture.py",
    "rec/systems/healthmoe/analysis.py": "tests/end_to_end/systems/test_healthmoe.py",
    "rec/systems/healthmoe/system.py": "tests/end_to_end/systems/test_healthmoe.py",
    "rec/systems/lightgcn/model.py": "tests/end_to_end/systems/test_lightgcn.py",
    "rec/systems/lightgcn/system.py": "tests/end_to_end/systems/test_lightgcn.py",
    "rec/systems/magnet/model.py": "tests/end_to_end/systems/test_magnet.py",
    "rec/systems/magnet/system.py": "tests/end_to_end/systems/test_magnet.py",
    "rec/systems/msmrec/system.py": "tests/end_to_end/systems/test_msmrec.py",
    "rec/systems/nlammr/layers.py": "tests/end_to_end/systems/test_nlammr.py",
    "rec/systems/nlammr/medications.py": "tests/end_to_end/systems/test_nlammr.py",
    "rec/systems/nlammr/model.py": "tests/unit/systems/test_nlammr_model.py",
    "rec/systems/nlammr/patients.py": "tests/end_to_end/systems/test_nlammr.py",
    "rec/systems/nlammr/system.py": "tests/end_to_end/systems/test_nlammr.py",
    "rec/systems/safedrug/model.py": "tests/unit/systems/test_safedrug.py",
    "rec/systems/safedrug/system.py": "tests/unit/systems/test_safedrug.py",
    "rec/train/validation.py": "tests/end_to_end/train/test_evaluating.py",
}
"""Files without a test of their name, by the test that reaches them through what it imports."""
STARTED = {
    "rec/benchmarks/chaos/driver.py": (
        "tests/distributed/runtime/test_local_faults.py",
        "the process that the benchmark of faults starts",
    ),
    "rec/benchmarks/cluster/driver.py": (
        "tests/distributed/runtime/test_streaming_nodes.py",
        "the process that the benchmark of clusters starts",
    ),
    "rec/cli/__main__.py": ("tests/end_to_end/test_ends.py", "python -m rec.cli, which tests run as a command"),
}
"""Files that no test imports, by the test that starts a process of them, and why."""
NAMED = re.compile(r"rec(?:\.\w+)+")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for folder in ("rec", "tests") for path in sorted((ROOT / folder).rglob("*.py"))}
OWN = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}


def names_in(path: Path) -> Iterator[str]:
    """Yield what a file imports, wherever it does, and the import paths that stand in its texts."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from NAMED.findall(node.value)


@cache
def imports(module: str) -> frozenset[str]:
    return frozenset(name for name in names_in(MODULES[module]) if name in MODULES)


@cache
def reached(module: str) -> frozenset[str]:
    """Return all modules that a module comes to through imports."""
    found, new = {module}, [module]
    while new:
        more = imports(new.pop()) - found
        found |= more
        new += more
    return frozenset(found)


DIRECT = frozenset(name for module in MODULES if module.startswith("tests.") for name in imports(module))


def has_code(path: Path) -> bool:
    return path.name != "__init__.py" or len(ast.parse(path.read_text()).body) > 1


@pytest.mark.parametrize(
    "path", [path for module, path in MODULES.items() if module.startswith("rec") and has_code(path)]
)
def test_a_file_has_a_test(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    own = path.stem in OWN or module_of(path) in DIRECT
    listed = [table for table in (ELSEWHERE, STARTED) if name in table]
    assert own or listed, f"{name}: no test has its name or imports it; write one, or list the test that reaches it"
    assert not (own and listed), f"{name}: has a test of its name, or one that imports it: take it from the list"
    if name in ELSEWHERE:
        assert module_of(path) in reached(module_of(ROOT / ELSEWHERE[name])), (
            f"{ELSEWHERE[name]} does not come to {name}"
        )
    if name in STARTED:
        assert (ROOT / STARTED[name][0]).is_file()


def test_what_is_listed_is_there() -> None:
    assert {name for name in (*ELSEWHERE, *STARTED) if not (ROOT / name).is_file()} == set()
