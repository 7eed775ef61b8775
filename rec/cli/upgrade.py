"""`rec upgrade`: another artifact in the place of a served one."""

from __future__ import annotations

from typing import Annotated

from rec.cli.options import argument
from rec.levels import say

TEXT = "replace a served artifact without a gap; back where the new one fails"
INTERRUPTED = "the command may have replaced the artifact or not; ask the service which one it answers from"
EXAMPLES = """examples:
  rec upgrade ml-1m artifacts/ml-1m-v2"""


def run(
    name: Annotated[str, argument("NAME", "name under which it is served")],
    artifact: Annotated[str, argument("ARTIFACT", "folder of the new artifact")],
) -> None:
    """Replace it."""
    from rec.runtime.served import newest

    state = newest()
    from rec.runtime.serving import upgrade

    upgrade(state, name, artifact, say)
