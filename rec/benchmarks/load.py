"""Load on a served artifact by wrk, a real load generator: throughput, latency, failures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rec.errors import ConfigError
from rec.json_text import json_text

SCRIPT = """
local bodies, at = {}, 0
for line in io.lines("%(bodies)s") do bodies[#bodies + 1] = line end
local headers = {["Content-Type"] = "application/json"}
math.randomseed(os.time())
at = math.random(#bodies)
request = function()
  at = at %% #bodies + 1
  return wrk.format("POST", "%(path)s", headers, bodies[at])
end
%(delay)s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %%d, "us": %%d, "p50_us": %%d, "p99_us": %%d, "max_us": %%d, '
    .. '"bad": %%d, "socket": %%d, "timeout": %%d}\\n', summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.max, e.status, e.connect + e.read + e.write, e.timeout))
end
"""
POISSON = "delay = function() return math.floor(-math.log(1 - math.random()) * %(mean)f + 0.5) end"


@dataclass(frozen=True, slots=True)
class WrkLoad:
    """What wrk saw."""

    per_s: float
    p50_s: float
    p99_s: float
    max_s: float
    requests: int
    failed: int
    """Answers other than 2xx, connections that broke, and requests that took longer than wrk waits."""


def write_bodies(folder: Path, bodies: Sequence[Any], name: str = "bodies") -> Path:
    """Write requests for wrk to send in turn."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json_text(body) + "\n" for body in bodies))
    return path


def wrk(url: str, bodies: Path, clients: int, seconds: float, pause_ms: float = 0.0) -> WrkLoad:
    """Return what `clients` see who send requests for some seconds, each after a random pause with the given mean.

    Raises:
        ConfigError: wrk is not installed or cannot connect.
    """
    if shutil.which("wrk") is None:
        raise ConfigError("wrk: not found; install it (apt install wrk)")
    path = "/" + url.split("/", 3)[3]
    script = bodies.with_name("load.lua")
    delay = POISSON % {"mean": pause_ms} if pause_ms else ""
    script.write_text(SCRIPT % {"bodies": bodies, "path": path, "delay": delay})
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"RESULT (\{.*\})", done.stdout)
    if found is None:
        raise ConfigError(f"wrk: {(done.stderr or done.stdout).strip()}")
    n = json.loads(found[1])
    return WrkLoad(
        per_s=n["requests"] / (n["us"] / 1e6),
        p50_s=n["p50_us"] / 1e6,
        p99_s=n["p99_us"] / 1e6,
        max_s=n["max_us"] / 1e6,
        requests=n["requests"],
        failed=n["bad"] + n["socket"] + n["timeout"],
    )


def steady(url: str, bodies: Path, per_s: float, seconds: float, clients: int = 64) -> WrkLoad:
    """Return what clients see who together send so many requests per second, each after a random pause."""
    pause_ms = 1e3 * clients / per_s
    for _ in range(2):
        found = wrk(url, bodies, clients, 5, pause_ms)
        pause_ms = max(1.0, pause_ms + 1e3 * (clients / per_s - clients / found.per_s))
    return wrk(url, bodies, clients, seconds, pause_ms)
