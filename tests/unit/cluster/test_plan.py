"""What is told of a run: shares, bytes, memory, by phases, on a page and in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rec.batch import Batch
from rec.cli import main
from rec.cluster.machines import machines
from rec.cluster.plan import ClusterPlan, StepSample, plan
from rec.cluster.plan_page import page, spans
from rec.data.prepared import Prepared
from rec.errors import ConfigError
from rec.nn.memory import HEAP, PROCESS
from rec.report.terminal import render
from rec.systems.msmrec import MSMRec
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.phases import stretches

MODEL = {"width": 16, "blocks": 1, "max_length": 20, "feedforward_mixture": {"experts": 4}}


def of(model: dict[str, Any], nodes: list[int], train: TrainConfig | None = None, **keys: Any) -> ClusterPlan:
    """The plan of MSMRec on its sample, on nodes of 8 CPUs."""
    rows, tables = MSMRec.sample(16, np.random.default_rng(0))
    system = MSMRec(MSMRec.Config.model_validate(MODEL | model), tables)
    batch: Batch = system.collate(rows)
    parallel = ParallelConfig(workers=len(nodes), **keys)
    there = machines(f"{max(nodes) + 1}x8")
    found = stretches(system, train or TrainConfig())
    return plan(system, found, lambda _: StepSample([(batch, True)], 2.0), parallel, machines=there, nodes=nodes)


def text_of(told: ClusterPlan) -> str:
    return render(page(told), 100)


def test_who_holds_which_experts_is_told() -> None:
    told = of({}, [0, 0, 1, 1], expert_parallel=2)
    assert told.groups == [[0, 1], [2, 3]]
    (layer,) = told.experts
    assert (layer.experts, layer.choices, layer.ranges) == (4, 2, [(0, 2), (2, 4)])
    assert told.counts.total - told.counts.active == layer.parameters / 2
    assert told.stages[0].traffic.kinds["rows"][0, 1] == 0


def test_groups_that_no_node_has_room_for_are_a_warning() -> None:
    told = of({}, [0, 0, 0, 1], expert_parallel=2)
    assert told.across == [[2, 3]]
    assert told.stages[0].traffic.sent(1, "rows") > 0
    assert "Warning: 1 group of ranks that share experts on several nodes" in text_of(told)


def test_rows_of_a_sharded_table_are_those_that_a_rank_will_hold() -> None:
    from rec.nn.sharded import ShardedEmbedding

    told = of({"item_table": "sharded", "loss": "gbce"}, [0, 0, 1])
    (table,) = told.tables

    class Rank:
        world_size = 3

        def __init__(self, rank: int) -> None:
            self.rank = rank

    for rank, (first, end) in enumerate(table.ranges):
        held = ShardedEmbedding(table.rows, table.width)
        held.share(Rank(rank), torch.device("cpu"))  # type: ignore[arg-type]
        assert (held.first, held.first + held.count) == (first, end)
    assert told.stages[0].work.tables[0].backward
    assert told.stages[0].traffic.sent(1, "tables") > 0
    assert told.table_bytes == -(-table.rows // 3) * (table.width + 1) * 4


def test_a_sample_of_half_the_rows_tells_of_all() -> None:
    half, whole = of({}, [0, 1], expert_parallel=2).stages[0].work.mixtures[0].rows, 0.0
    rows, tables = MSMRec.sample(16, np.random.default_rng(0))
    system = MSMRec(MSMRec.Config.model_validate(MODEL), tables)
    sample = StepSample([(system.collate(rows), True)])
    there, parallel = machines("2x8"), ParallelConfig(workers=2, expert_parallel=2)
    told = plan(system, stretches(system, TrainConfig()), lambda _: sample, parallel, machines=there, nodes=[0, 1])
    whole = told.stages[0].work.mixtures[0].rows
    assert half == 2 * whole > 0


def test_memory_is_that_of_the_parameters_and_what_a_forward_keeps() -> None:
    told = of({"feedforward_mixture": {}}, [0, 1])
    memory, trained = told.stages[0].memory, told.stages[0].trained
    assert memory.optimiser == 3 * 4 * (trained // 2)
    assert memory.activations > 0
    half = of({"feedforward_mixture": {}}, [0, 1], precision="bf16").stages[0]
    assert half.memory.activations == pytest.approx(memory.activations / 2, rel=0.01)
    assert told.resident(told.stages[0]) == PROCESS + round(HEAP * memory.total)
    assert half.traffic.sent(0, "gradients") == told.stages[0].traffic.sent(0, "gradients") / 2


def test_experts_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^parallel.expert_parallel: must divide the 4 experts of .*, got 3"):
        of({}, [0, 0, 0], expert_parallel=3)
    with pytest.raises(ConfigError, match=r"^parallel.expert_parallel: the model has no experts"):
        of({"feedforward_mixture": {}}, [0, 0], expert_parallel=2)


def test_many_nodes_are_told_in_few_lines_of_100_columns() -> None:
    told = of({}, [rank // 8 for rank in range(512)], expert_parallel=4)
    lines = text_of(told).splitlines()
    assert len(lines) < 90
    assert max(map(len, lines)) <= 100


def test_ranks_are_told_by_the_ends_of_runs() -> None:
    assert spans([3, 0, 1, 7, 8]) == "0-1, 3, 7-8"


def test_the_command_prints_and_writes_a_plan(
    planted: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [f"data.root={planted.root}", "data.read.interactions=6000", "data.read.users=301", "data.read.items=120"]
    keys += ['data.read.modalities=["narrative","visual","audio"]', "data.text.width=16", "data.shard_rows=64"]
    keys += ['data.text.modalities=["narrative","visual","audio"]', f"out={tmp_path / 'run'}", "model.width=16"]
    command = ["plan", "rec/configs/demo.toml", "--nodes", "2x2", "parallel.workers=2", *keys]
    assert main([*command, "--json", str(tmp_path / "plan.json")]) == 0
    told = capsys.readouterr().out
    assert "Ranks on nodes" in told
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["node_of_rank"] == [0, 0]
    assert written["phases"][0]["links"][0]["sends"] == 0
    assert not (tmp_path / "run").exists()  # a plan is no run
    assert main([*command, "parallel.workers=0"]) == 0
    assert "One rank sends nothing." in capsys.readouterr().out
    assert main([*command[:3], "nowhere", *command[4:]]) == 1
    assert "--nodes: expected nodes" in capsys.readouterr().err
    assert main([*command, "parallel.workers=8"]) == 1
    assert "parallel.workers: the nodes (2 CPUs + 2 CPUs) have room for 3 workers" in capsys.readouterr().err
