"""`rec serve`: artifacts over HTTP."""

from __future__ import annotations

import argparse

from rec.cli.run import count, port
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


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="folders made by `rec export`")
    command.add_argument("--host", help="address to listen at (default: 127.0.0.1, on a cluster 0.0.0.0)")
    command.add_argument("--port", type=port, default=8000, help="port to listen at (default: 8000)")
    text = "let all replicas serve all artifacts, each with the N used last in memory (default: replicas of their own)"
    command.add_argument("--multiplex", type=count, default=0, metavar="N", help=text)


def run(options: argparse.Namespace) -> None:
    """Serve until interrupted."""
    from rec.runtime.ports import check_port, chosen_host

    host = options.host or chosen_host()
    check_port(host, options.port)  # before Ray, whose import takes seconds
    from rec.runtime.serving import serve_artifacts

    overrides = serve_keys(options.overrides)
    serve_artifacts(options.artifacts, overrides, host, options.port, say, options.multiplex)
