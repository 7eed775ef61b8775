"""`rec upgrade`: another artifact in the place of a served one."""

from __future__ import annotations

import argparse

from rec.levels import say

TEXT = "replace a served artifact without a gap; back where the new one fails"
INTERRUPTED = "the command may have replaced the artifact or not; ask the service which one it answers from"
EXAMPLES = """examples:
  rec upgrade ml-1m artifacts/ml-1m-v2"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("name", metavar="NAME", help="name under which it is served")
    command.add_argument("artifact", metavar="ARTIFACT", help="folder of the new artifact")


def run(options: argparse.Namespace) -> None:
    """Replace it."""
    from rec.runtime.served import newest

    state = newest()
    from rec.runtime.serving import upgrade

    upgrade(state, options.name, options.artifact, say)
