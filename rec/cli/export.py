"""`rec export`: a trained run as an artifact."""

from __future__ import annotations

import argparse

from rec.levels import say
from rec.sections import counted

TEXT = "write a trained run as an artifact to serve"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec export rec/configs/demo.toml
  rec export out/ml-1m/run --to artifacts/ml-1m serve.index=hnsw serve.replicas=2"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("config", metavar="RUN", help="TOML file of the run, or its folder")
    command.add_argument("--to", metavar="FOLDER", help="where to (default: the run's folder, export/SYSTEM)")


def run(options: argparse.Namespace) -> None:
    """Write the artifact."""
    from rec.evaluation.run import load_run
    from rec.filesystems import uri_below
    from rec.serving.export import export

    config = load_run(options.config, options.overrides)
    name = config.system.rsplit(":", 1)[-1].lower()
    artifact = export(config, options.to or uri_below(config.out, f"export/{name}"), say)
    counts = ", ".join(counted(told["count"], name) for name, told in artifact.manifest["entities"].items())
    say(f"{artifact.place}: step {artifact.manifest['step']}, {counts}")
