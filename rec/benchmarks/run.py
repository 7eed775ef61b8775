"""`rec benchmark`: one benchmark by name, its table, its file. What one needs is imported for that one alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from rec.benchmarks.row import Row, load_now, show
from rec.benchmarks.work import Work
from rec.data.prepared import Prepared
from rec.progress import tell
from rec.storage import Storage

Benchmark = Callable[[Work, str], list[Row]]
"""From what is asked for and an empty folder to rows."""


def run(name: str, work: Work, json_file: str | None) -> int:
    """Run one benchmark, print its table, and return 0."""
    before = load_now()
    with tempfile.TemporaryDirectory(prefix="rec-benchmark-") as folder:
        rows = BENCHMARKS[name](work, folder)
    tell(show(rows, before))
    if json_file:
        target = Path(json_file).absolute()
        Storage(str(target.parent)).write_json(target.name, [row.as_json() for row in rows])
    return 0


def _evaluate(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import evaluate

    return evaluate.measure(work.catalogue(folder))


def _train(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import train, train_ray

    data = work.catalogue(folder)
    work.say("the step against bare matrix products")
    return train.measure(data) + train_ray.measure(data, folder, work.say)


def _prepare(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import prepare

    return prepare.measure(work.interactions, folder, work.say)


def _moe(work: Work, _: str) -> list[Row]:
    from rec.benchmarks import moe, moe_ranks
    from rec.runtime.deepspeed_experts import whole_stock_layer

    work.say("the grid takes about ten minutes")
    return moe.measure(whole_stock_layer, "DeepSpeed's layer") + moe_ranks.measure()


def _tune(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import tune

    return tune.measure(folder, work.trials, work.say)


def _serve(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import serve

    return serve.measure(folder, work.minutes, work.only, work.say)


def _encoders(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import encoders

    return encoders.measure(folder, work.images, work.say)


def _graph(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import graph, graph_costs

    rows = graph.measure(Prepared.open(work.data, "graph") if work.data else graph.baby_like(f"{folder}/data"))
    work.say(f"neighbours of {work.items:,} items")
    rows.append(graph.neighbours_row(work.items, 128))
    return rows + graph_costs.costs(work.edges, work.say)


def _visits(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import visits

    return visits.measure(folder, work.prescriptions, work.say)


def _writer(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import pairs, writer

    return writer.measure(work.say) + pairs.measure(folder, work.pairs, work.say)


def _scale(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import scale

    return scale.measure(folder, work.only, work.say)


def _cluster(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import cluster

    return cluster.measure(folder, work.only, work.say)


def _chaos(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import chaos

    return chaos.measure(folder, chaos.Chaos(faults=work.faults, minutes=work.minutes, seed=work.seed), work.say)


def _gpu(work: Work, folder: str) -> list[Row]:
    from rec.benchmarks import gpu

    return gpu.measure(folder, work.say)


BENCHMARKS: Mapping[str, Benchmark] = {
    "train": _train,
    "evaluate": _evaluate,
    "prepare": _prepare,
    "moe": _moe,
    "tune": _tune,
    "serve": _serve,
    "encoders": _encoders,
    "graph": _graph,
    "visits": _visits,
    "writer": _writer,
    "scale": _scale,
    "cluster": _cluster,
    "gpu": _gpu,
    "chaos": _chaos,
}
