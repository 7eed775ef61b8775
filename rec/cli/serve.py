"""`rec serve`: artifacts over HTTP."""

from __future__ import annotations

from typing import Annotated

from rec.cli.options import Overrides, argument, count, option, port
from rec.config import serve_keys
from rec.levels import say

TEXT = "serve artifacts over HTTP until interrupted"
INTERRUPTED = "nothing is served any more"
EXAMPLES = """examples:
  rec serve out/demo/run/export/msmrec
  rec serve artifacts/ml-1m artifacts/ml-100k --port 9000 serve.max_replicas=4
  rec serve artifacts/* --multiplex 3
  REC_SERVE_TOKEN=secret rec serve artifacts/ml-1m serve.token=true
  curl -s localhost:8000/v1/recommend -H 'Content-Type: application/json' -d '{"user": "1", "k": 5}'"""


def run(
    artifacts: Annotated[list[str], argument("ARTIFACT", "folders made by `rec export`")],
    overrides: Overrides = None,
    host: Annotated[
        str | None,
        option("--host", help="address to listen at (default: 127.0.0.1, on a cluster 0.0.0.0)", metavar="HOST"),
    ] = None,
    port: Annotated[
        int, option("--port", help="port to listen at (default: 8000)", metavar="PORT", parser=port)
    ] = 8000,
    multiplex: Annotated[
        int,
        option(
            "--multiplex",
            help="let all replicas serve all artifacts, each with the N used last in memory (default: "
            "replicas of their own)",
            metavar="N",
            parser=count,
        ),
    ] = 0,
) -> None:
    """Serve until interrupted."""
    from rec.runtime.ports import check_port, chosen_host

    host = host or chosen_host()
    check_port(host, port)  # before Ray, whose import takes seconds
    from rec.runtime.serving import serve_artifacts

    serve_artifacts(artifacts, serve_keys(overrides or ()), host, port, say, multiplex)
