"""`rec export`: a trained run as an artifact."""

from __future__ import annotations

from typing import Annotated

from rec.cli.options import Overrides, Run, option
from rec.levels import say
from rec.sections import counted

TEXT = "write a trained run as an artifact to serve"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec export rec/configs/demo.toml
  rec export out/ml-1m/run --to artifacts/ml-1m serve.index=hnsw serve.replicas=2"""


def run(
    run: Run,
    overrides: Overrides = None,
    to: Annotated[
        str | None, option("--to", help="where to (default: the run's folder, export/SYSTEM)", metavar="FOLDER")
    ] = None,
) -> None:
    """Write the artifact."""
    from rec.evaluation.run import load_run
    from rec.filesystems import uri_below
    from rec.serving.export import export

    config = load_run(run, overrides or ())
    name = config.system.rsplit(":", 1)[-1].lower()
    artifact = export(config, to or uri_below(config.out, f"export/{name}"), say)
    counts = ", ".join(counted(told["count"], name) for name, told in artifact.manifest["entities"].items())
    say(f"{artifact.place}: step {artifact.manifest['step']}, {counts}")
