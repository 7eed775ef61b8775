"""What the nodes of a local cluster show to Prometheus."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator

from rec.runtime.local_cluster import LocalCluster

FOUND = "prom_metrics_service_discovery.json"
"""Ray's list of where each node shows its metrics, on the head."""
LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ANSWER_S = 5.0

Metric = tuple[str, dict[str, str], float]
"""Name, labels, value."""


def addresses(cluster: LocalCluster) -> list[str]:
    """Return where the nodes show metrics, as the head tells Prometheus."""
    path = cluster.folder / "0" / FOUND
    if not path.exists():
        return []
    targets = [target for entry in json.loads(path.read_text()) for target in entry["targets"]]
    return sorted(target for target in targets if target.startswith(f"{cluster.subnet}."))


def shown(address: str) -> list[Metric]:
    """Return the metrics that a node shows, none where it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/metrics", timeout=ANSWER_S) as answer:
            return list(read(answer.read().decode()))
    except OSError:
        return []


def read(text: str) -> Iterator[Metric]:
    """Yield the metrics of a page."""
    for line in text.splitlines():
        if found := LINE.match(line):
            yield found[1], dict(LABEL.findall(found[2] or "")), float(found[3])
