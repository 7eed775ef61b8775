"""`rec report`: a run's HTML report."""

from __future__ import annotations

from typing import Annotated

from rec.cli.options import Overrides, Run, Seeds, Split, option
from rec.config import RunConfig, load
from rec.errors import RequestError
from rec.filesystems import is_folder
from rec.progress import tell

TEXT = "write a run's HTML report"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec report rec/configs/demo.toml
  rec report out/demo/run
  rec report rec/configs/ml-100k.toml --seeds 3
  rec report rec/configs/ml-1m.toml --user 390 --user 1752"""


def run(
    run: Run,
    overrides: Overrides = None,
    split: Split = "test",
    seeds: Seeds = 0,
    user: Annotated[
        list[str] | None,
        option("--user", help="tell of this user alone as well; may be repeated", metavar="ID"),
    ] = None,
) -> None:
    """Write the report and print its path."""
    from rec.report.page import write_report

    if is_folder(run):
        if overrides:
            raise RequestError(f"report: a folder has its own keys; found {overrides[0]!r}, expected none")
        folder = run.rstrip("/")
    else:
        config = load(run, overrides or ())
        folder = config.out
        _check_runs(config, seeds)
    tell(write_report(folder, split, seeds, user or []))


def _check_runs(config: RunConfig, seeds: int) -> None:
    """Check that the runs to be told of are the config's, whatever their seeds."""
    from rec.evaluation.run import read_config, seed_folders
    from rec.storage import Storage
    from rec.train.job import check_same, require_trained

    for folder in seed_folders(config.out, seeds):
        require_trained(folder)
        if Storage(folder).exists("config.json"):
            seed = config.train.seed if folder == config.out else read_config(folder).train.seed
            train = config.train.model_copy(update={"seed": seed})
            check_same(config.model_copy(update={"out": folder, "train": train}))
