"""`rec serve` over two real nodes: a proxy on each, a lost node, upgrades and autoscaling under load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.benchmarks.serve_nodes import Crowd, Loss, lose, replicas_by_node, scaled, service, upgraded
from rec.config import RunConfig
from rec.runtime.local_cluster import LocalCluster
from rec.serving.artifact import Artifact

pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(600)]
TWO = {"replicas": 2, "cpus_per_replica": 0.5}
CROWD = Crowd(clients=16, per_s=40.0, before_s=5.0, after_s=25.0)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bodies") / "bodies.jsonl"
    path.write_text("".join(json.dumps({"user": f"u{user}", "k": 10}) + "\n" for user in range(50)))
    return path


@pytest.fixture(scope="module")
def second(trained: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact that answers otherwise."""
    from rec.serving.export import export
    from rec.train.job import train_here

    folder = tmp_path_factory.mktemp("second")
    train = trained.train.model_copy(update={"learning_rate": 1e-3, "epochs": 1})
    config = trained.model_copy(update={"out": str(folder / "run"), "train": train})
    train_here(config, lambda _: None, lambda _: None)
    return export(config, str(folder / "second"), lambda _: None)


def nothing_failed_but_there(loss: Loss) -> None:
    """Check that clients of the living proxy saw nothing, and those of the lost one at most one attempt each."""
    assert loss.seen.failed() == 0
    assert [one for one in loss.seen.unanswered if one.way == 0] == []
    assert 0 < len(loss.seen.unanswered) <= CROWD.clients / 2
    assert all(a.way == 0 for a in loss.seen.answers if a.start_s > loss.lost_s + 15)
    print([round(1e3 * p99_s) for p99_s in loss.windows_s], "ms, before", round(1e3 * loss.before_s))


def test_an_upgrade_over_nodes_and_a_cut_link_fail_nothing(
    local_nodes: LocalCluster, artifact: Artifact, second: Artifact, bodies: Path
) -> None:
    with service(local_nodes, artifact.path, TWO) as served:
        assert [len(pids) for pids in replicas_by_node(local_nodes, served.name)] == [1, 1]
        assert served.health(0)["status"] == served.health(1)["status"] == "ok"
        upgrade = upgraded(served, bodies, second.path, CROWD)
        assert upgrade.seen.failed() == 0
        assert upgrade.seen.unanswered == []
        assert upgrade.mixed == 0
        assert upgrade.versions[0] != upgrade.versions[1]
        assert {a.way for a in upgrade.seen.answers} == {0, 1}
        try:
            nothing_failed_but_there(lose(served, bodies, lambda: local_nodes.cut(1), CROWD))
        finally:
            local_nodes.heal(1)


def test_replicas_follow_the_load(local_nodes: LocalCluster, artifact: Artifact, bodies: Path) -> None:
    keys = {"max_replicas": 4, "cpus_per_replica": 0.5, "target_ongoing_requests": 2, "downscale_delay_s": 5}
    with service(local_nodes, artifact.path, keys) as served:
        scaling = scaled(served, bodies, 4, CROWD, 2000.0)
        print(f"4 after {scaling.most_s:.0f} s, 1 after {scaling.fewest_s:.0f} s")
        assert scaling.seen.failed() == 0
        assert scaling.seen.unanswered == []


def test_a_killed_node_fails_nothing_elsewhere(local_nodes: LocalCluster, artifact: Artifact, bodies: Path) -> None:
    with service(local_nodes, artifact.path, TWO) as served:
        assert [len(pids) for pids in replicas_by_node(local_nodes, served.name)] == [1, 1]
        try:
            nothing_failed_but_there(lose(served, bodies, lambda: local_nodes.kill(1), CROWD))
        finally:
            local_nodes.heal(1)
