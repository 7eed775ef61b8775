"""A training run on a local cluster, with what its steps cost: bytes on links, CPU time, time in collectives."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rec.benchmarks.cluster.counters import Counters
from rec.benchmarks.cluster.probe import ProbedConfig
from rec.benchmarks.work import Say
from rec.cluster.traffic import StepTraffic, least
from rec.config import RunConfig, to_json
from rec.data.config import DataConfig
from rec.data.generated.catalogue import CatalogueConfig
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.errors import TrainingError
from rec.moe.config import MixtureConfig
from rec.runtime.local_cluster import LocalCluster
from rec.train.config import ParallelConfig, TrainConfig

SOURCE = "rec.data.generated.catalogue:PlantedCatalogue"
CATALOGUE = CatalogueConfig(users=4096, items=2000, interactions=120_000, modalities=("a",), shards=4)
CPUS_PER_WORKER = 1.5
"""Of nodes with two logical CPUs, so that each holds one worker; one for data is left."""
WIDTH, BLOCKS, EXPERTS, PER_ROW, MAX_LENGTH, BATCH = 64, 2, 8, 2, 50, 128
LIMIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a model is trained."""

    workers: int
    expert_parallel: int = 1
    batch: int = BATCH
    """Examples per step and worker."""
    steps: int = 32
    """Steps that are measured."""
    zero_stage: int = 1
    precision: str = "fp32"

    @property
    def in_words(self) -> str:
        """What tells it from others."""
        kind = f"expert-parallel {self.expert_parallel}" if self.expert_parallel > 1 else "data-parallel"
        other = "" if self.precision == "fp32" else f", {self.precision}"
        return f"{self.workers} workers, {kind}, {self.batch} examples each{other}".replace("1 workers", "1 worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """What the measured steps of a run have cost."""

    way: Way
    nodes: int
    steps: int
    seconds: float
    sent: tuple[float, ...]
    """Bytes that each node sent, those of an idle cluster taken off."""
    cpu: dict[str, float]
    """CPU-seconds by kind of process."""
    idle_cpu: float
    """CPU-seconds per second of a cluster that has no run."""
    ranks: tuple[dict[str, Any], ...]
    """Of each rank: calls, seconds and bytes of collectives, CPU-seconds, and the parts of the model it trains."""

    @property
    def samples(self) -> int:
        """Examples of the measured steps, over all workers."""
        return self.steps * self.way.workers * self.way.batch

    @property
    def rows_per_step(self) -> float:
        """Rows that pass each block in a step, over all workers."""
        return sum(rank["passed"] for rank in self.ranks) / self.steps

    @property
    def step_s(self) -> float:
        """Seconds per step."""
        return self.seconds / self.steps

    @property
    def bytes_per_step(self) -> float:
        """Bytes that all nodes together put on links, per step."""
        return sum(self.sent) / self.steps

    @property
    def communication_share(self) -> float:
        """Mean share of the time that ranks were inside collectives, waiting for others included."""
        return statistics.mean(sum(rank["seconds"].values()) for rank in self.ranks) / self.seconds

    @property
    def cpu_per_sample(self) -> float:
        """CPU-seconds of all processes of the cluster per example, without what an idle cluster takes."""
        return (sum(self.cpu.values()) - self.idle_cpu * self.seconds) / self.samples

    @property
    def least_bytes(self) -> float:
        """Bytes per step that have to cross where every rank is on a node of its own.

        Rows are counted as they were sent; for what is held alike the formula of `rec.cluster.traffic` says it.
        """
        parts, way = self.ranks[0]["parts"], self.way
        work = StepTraffic(
            dense=parts["shared"][0],
            experts=parts["experts"][0] * way.expert_parallel,
            expert_parallel=way.expert_parallel,
            zero_stage=way.zero_stage,
            number_bytes=2 if way.precision == "bf16" else 4,
        )
        rows = sum(rank["rows_bytes"] for rank in self.ranks) / self.steps
        return least(work, range(way.workers)).crossing + rows


def data_set(folder: str, say: Say) -> Prepared:
    """Return a generated data set whose epochs are short."""
    say("making a data set")
    return prepare(DataConfig(root=f"{folder}/data", source=SOURCE, read=CATALOGUE), InProcess(), say).seen_as(
        "sequences"
    )


def config_of(way: Way, data: Prepared, folder: Path) -> RunConfig:
    """Return the run of a way to train: an epoch to warm up, one that is measured, and one that ends."""
    mixture = MixtureConfig(experts=EXPERTS, per_row=PER_ROW)
    model = {"gate": "none", "loss": "bce", "width": WIDTH, "blocks": BLOCKS, "max_length": MAX_LENGTH}
    model |= {"feedforward": 4 * WIDTH, "feedforward_mixture": mixture, "marks": str(folder)}
    per_epoch = max(1, data.split_rows("train") // (way.batch * way.workers))
    epochs = 2 + -(-way.steps // per_epoch)
    return RunConfig(
        system="rec.benchmarks.cluster.probe:Probed",
        out=str(folder / "run"),
        model=ProbedConfig.model_validate(model),
        data=DataConfig(root=data.root),
        train=TrainConfig(batch_size=way.batch * way.workers, epochs=epochs, evaluate_every=epochs),
        parallel=ParallelConfig(
            workers=way.workers,
            expert_parallel=way.expert_parallel,
            zero_stage=way.zero_stage,  # type: ignore[arg-type]
            precision=way.precision,  # type: ignore[arg-type]
            cpus_per_worker=CPUS_PER_WORKER,
        ),
    )


def trained(
    cluster: LocalCluster,
    way: Way,
    data: Prepared,
    folder: Path,
    counters: Counters,
    idle: Sequence[float],
    idle_cpu: float,
) -> StepCosts:
    """Train, and return what the epochs between the first and the last have cost.

    `idle` and `idle_cpu` are the bytes of each node and the CPU-seconds per second without a run.

    Raises:
        TrainingError: the run failed.
    """
    folder.mkdir(parents=True)
    config = folder / "config.json"
    config.write_text(to_json(config_of(way, data, folder)))
    run_on(cluster, ["rec.benchmarks.cluster.driver", str(config), str(folder / "events")], folder / "log")
    ranks = [marks_of(folder / f"{rank}.jsonl") for rank in range(way.workers)]
    start_s, end_s = (max(marks[place]["at_s"] for marks in ranks) for place in (1, -1))
    events = [json.loads(line) for line in (folder / "events").read_text().splitlines()]
    per_epoch = next(event["steps"] for event in events if event["kind"] == "step")
    seconds = end_s - start_s
    sent = counters.bytes_between(start_s, end_s)
    return StepCosts(
        way=way,
        nodes=cluster.shape.nodes,
        steps=per_epoch * (len(ranks[0]) - 2),
        seconds=seconds,
        sent=tuple(total - rate * seconds for total, rate in zip(sent, idle, strict=True)),
        cpu=counters.cpu_between(start_s, end_s),
        idle_cpu=idle_cpu,
        ranks=tuple(_between(marks[1], marks[-1]) for marks in ranks),
    )


def run_on(cluster: LocalCluster, words: list[str], log: Path, limit_s: float = LIMIT_S) -> None:
    """Run a module on the head.

    Raises:
        TrainingError: it failed.
    """
    with log.open("wb") as file:
        process = cluster.popen(0, [sys.executable, "-m", *words], stdout=file, stderr=subprocess.STDOUT)
        code = process.wait(limit_s)
    if code:
        raise TrainingError(f"the run failed with exit code {code}: {log.read_text(errors='replace')[-2000:]}")


def marks_of(path: Path) -> list[dict[str, Any]]:
    """Return what a rank has noted at the start of each epoch."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _between(first: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """Return what a rank did between two marks."""
    found: dict[str, Any] = {"parts": last["parts"], "cpu_s": last["cpu_s"] - first["cpu_s"]}
    for key in ("calls", "seconds", "bytes"):
        found[key] = {name: value - first[key].get(name, 0) for name, value in last[key].items()}
    return found | {key: last[key] - first[key] for key in ("passed", "rows", "rows_bytes")}
