"""`rec plan`: what a run would do with a cluster, before anything starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from rec.cli.options import Overrides, argument, option
from rec.cli.run import writable

if TYPE_CHECKING:
    from rec.cluster.machines import Machine
    from rec.cluster.plan import ClusterPlan
    from rec.config import RunConfig

TEXT = "tell what a run would do with a cluster: which rank on which node, who holds what, bytes and memory"
INTERRUPTED = "nothing was written"
EXAMPLES = """examples:
  rec plan rec/configs/demo.toml --nodes 2x4 parallel.workers=6
  rec plan rec/configs/ml-1m.toml --nodes 4,2,2 parallel.workers=4 parallel.expert_parallel=2
  rec plan mine.toml --nodes 8x8gpu parallel.workers=64 parallel.gpu=true parallel.precision=bf16
  rec plan mine.toml                      # on the cluster at RAY_ADDRESS, else on this machine
  rec plan mine.toml --nodes 2x4 --json plan.json

No worker is started. The data set has to be there (rec prepare): what a model has and sends follows
from it. One step of one rank is made here, on CPUs, to count rows, lookups and what is kept."""
SAMPLE_ROWS = 512
"""Most examples of a microbatch that is made; what larger ones have follows from these."""


def run(
    config: Annotated[str, argument("CONFIG", "TOML file of a run, or its folder")],
    overrides: Overrides = None,
    nodes: Annotated[
        str | None,
        option(
            "--nodes",
            help="nodes and the CPUs of each, as 2x4 or 4,2,2, or their GPUs, as 2x8gpu",
            metavar="NODES",
        ),
    ] = None,
    json: Annotated[str | None, option("--json", help="write the plan there as well", metavar="FILE")] = None,
) -> None:
    """Print the plan."""
    writable(json)
    from rec.cluster.plan_page import page, to_plain
    from rec.evaluation.run import load_run
    from rec.json_text import json_text
    from rec.progress import tell, terminal_width
    from rec.report.terminal import render

    found = planned(load_run(config, overrides or ()), nodes)
    tell(render(page(found), terminal_width()).rstrip("\n"))
    if json:
        with open(json, "w", encoding="utf-8") as file:
            file.write(json_text(to_plain(found), indent=2))


def planned(config: RunConfig, nodes: str | None) -> ClusterPlan:
    """Return the plan of a run on nodes that a text names, else on the cluster that is there, else on this machine.

    Raises:
        ConfigError: keys and nodes do not fit.
        DataError: the data set is not there.
    """
    from rec.cluster.machines import SPARE_CPUS, machines, seated, sizes
    from rec.cluster.plan import StepSample, plan
    from rec.data.stream import CachedReader
    from rec.progress import Progress
    from rec.train.feed import PlannedFeed
    from rec.train.job import build, open_data
    from rec.train.phases import stretches

    there = machines(nodes) if nodes is not None else None
    data = open_data(config)
    system = build(config, data)
    spare = SPARE_CPUS if there or os.environ.get("RAY_ADDRESS") else 0
    there = there or _there()
    places = seated(there, config.parallel, sizes(config, system), spare) if config.parallel.workers else [0]
    workers = len(places) if config.parallel.workers else 0
    parallel = config.parallel.model_copy(update={"workers": workers, "min_workers": 0})
    feed = PlannedFeed(data, system, config.train, CachedReader(data.storage, system.columns), 0, len(places))
    found = stretches(system, config.train, len(places))
    with Progress("make one step of one rank"):
        return plan(
            system,
            found,
            lambda stretch: StepSample(*feed.sample(stretch.phase, SAMPLE_ROWS)),
            parallel,
            machines=there,
            nodes=places,
        )


def _there() -> list[Machine]:
    """Return the nodes of the cluster that RAY_ADDRESS names, else this machine."""
    from rec.cluster.machines import Machine

    if os.environ.get("RAY_ADDRESS"):
        from rec.runtime.assignment import nodes_there

        return nodes_there()
    import torch

    from rec.provenance import cores

    return [Machine("this machine", float(cores()), float(torch.cuda.device_count()))]
