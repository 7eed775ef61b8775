"""What is installed on the nodes of a cluster, and whether ranks on them understand each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rec.errors import ConfigError

PACKAGES = ("rec", "ray", "torch", "deepspeed", "numpy", "pyarrow", "pydantic", "safetensors")
SAME = ("rec", "ray")
"""Of which any difference breaks a run: ranks exchange objects of theirs."""
WAIT_S = 60.0
"""Longest wait for the answers of all nodes; one that does not answer is found by those who need it."""
REMEDY = "install the same versions on all nodes: pip install -r requirements.lock, or one container for all"


class VersionQuery:
    """The versions of all nodes but the driver's, asked for while workers start; their processes begin there."""

    def __init__(self) -> None:
        here = ray.get_runtime_context().get_node_id()
        nodes = {one["NodeID"]: one["NodeManagerAddress"] for one in ray.nodes() if one["Alive"]}
        ask = ray.remote(num_cpus=0, max_retries=0)(_asking())
        self.answers = {
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(PACKAGES): where
            for node, where in nodes.items()
            if node != here
        }

    def look(self, say: Callable[[str], None]) -> None:
        """Do what `require` does once all answers are there, and nothing before."""
        if self.answers and len(ray.wait(list(self.answers), num_returns=len(self.answers), timeout=0)[0]) == len(
            self.answers
        ):
            self.require(say)

    def require(self, say: Callable[[str], None]) -> None:
        """Check that every node has what the driver has; small differences are said.

        Raises:
            ConfigError: a node has another version with which a run would break, or lacks a package.
        """
        if not self.answers:
            return
        ready, _ = ray.wait(list(self.answers), num_returns=len(self.answers), timeout=WAIT_S)
        expected, answers, self.answers = _versions(PACKAGES), self.answers, {}
        broken: list[str] = []
        odd: list[str] = []
        for answer in ready:
            try:
                found = ray.get(answer)
            except ray.exceptions.RayError:  # the node is gone by now
                continue
            for name, there in differing(found, expected).items():
                words = f"node {answers[answer]}: {name} {there or 'is not installed'}, expected {expected[name]}"
                (broken if breaks(name, there, str(expected[name])) else odd).append(words)
        if broken:
            raise ConfigError(f"{'; '.join(sorted(broken))}, as on the driver's; {REMEDY}")
        for words in sorted(odd):
            say(f"warning: {words}, as on the driver's; it may do")


def differing(found: Mapping[str, str | None], expected: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what a node has of each package of the driver, where it differs; builds of one version are the same."""
    return {name: found[name] for name, ours in expected.items() if ours and _release(found[name]) != _release(ours)}


def breaks(name: str, found: str | None, expected: str) -> bool:
    """Return whether ranks with these versions of a package do not understand each other: not so for patches."""
    if found is None or name in SAME:
        return True
    return _release(found).split(".")[:2] != _release(expected).split(".")[:2]


def _release(version: str | None) -> str:
    """Return a version without its build, such as that of CUDA."""
    return (version or "").partition("+")[0]


def _versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    """Return the versions of Python and packages in this process."""
    found: dict[str, str | None] = _asking()(packages)
    return found


def _asking() -> Callable[[tuple[str, ...]], dict[str, str | None]]:
    """Return a function that travels with its code, as functions in functions do: another rec may lie on a node."""

    def versions(packages: tuple[str, ...]) -> dict[str, str | None]:
        import importlib.metadata
        import platform

        found: dict[str, str | None] = {"python": platform.python_version()}
        for name in packages:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = None
        return found

    return versions
