"""What starts clusters elsewhere: `ray up`, Slurm, the image. No cloud, no Slurm and no builder of images is here."""

import json
import os
import re
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rec.cluster.values import load_values

ROOT = Path(__file__).parents[3]
CLOUDS = sorted((ROOT / "cluster").glob("ray-up-*.yaml"))
SCRIPT = ROOT / "cluster" / "slurm.sh"
IMAGE = (ROOT / "cluster" / "Dockerfile").read_text()


def schema() -> Any:
    """Return Ray's own schema of such files, without importing Ray."""
    found = find_spec("ray")
    assert found is not None
    assert found.origin is not None
    return json.loads((Path(found.origin).parent / "autoscaler" / "ray-schema.json").read_text())


def wrong(config: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(schema()).iter_errors(config)]


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_ray_knows_every_key(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert wrong(config) == []
    config["max_worker"] = config.pop("max_workers")
    assert wrong(config) == ["Additional properties are not allowed ('max_worker' was unexpected)"]
    config["available_node_types"]["cpu"].pop("node_config")
    assert len(wrong(config)) == 2


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_ray_takes_the_file_with_its_own_defaults(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    config["available_node_types"]["cpu"]["min_workers"] = 99
    with pytest.raises(ValueError):
        validate_config(config)


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_clouds_share_a_token_and_start_no_more_than_they_may(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert config["provider"]["type"] == path.stem.rpartition("-")[2]
    assert config["max_workers"] == sum(kind.get("max_workers", 0) for kind in types.values())
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert {kind["resources"].get("GPU", 0) for kind in types.values()} == {0, 1}


def test_there_are_two_clouds() -> None:
    assert [path.name for path in CLOUDS] == ["ray-up-aws.yaml", "ray-up-gcp.yaml"]


def test_the_image_is_of_the_locked_versions_and_of_files_that_are_there() -> None:
    copied = [word for line in re.findall(r"^COPY (.*)$", IMAGE, re.MULTILINE) for word in line.split()[:-1]]
    assert {"requirements.lock", "rec", "jobs", "pyproject.toml"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    assert IMAGE.index("--requirement requirements.lock") < IMAGE.index("COPY rec rec"), "a change of code installs all"
    kept = {line[1:] for line in (ROOT / "cluster/Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert kept == set(copied)


def test_the_user_and_the_version_of_the_image_are_those_of_the_manifests() -> None:
    values = load_values(ROOT / "cluster" / "values.toml")
    assert IMAGE.rstrip().endswith(f"USER {values.user}")
    assert "\nWORKDIR /app\n" in IMAGE
    assert (ROOT / values.config.removeprefix("/app/")).exists()
    assert f"\nray=={values.ray_version}\n" in (ROOT / "requirements.lock").read_text()


SLEEP = "sleep 60 >/dev/null 2>&1 & wait"
STAND_INS = {
    "scontrol": 'if [ "$1" = show ]; then printf "%s\\n" $NODES; fi',
    "srun": f"""while [ "${{1#--}}" != "$1" ]; do shift; done
if [ "$1" = bash ]; then trap 'echo workers ended >>$LOG; kill $!; exit 0' TERM; echo workers up >>$LOG; {SLEEP}; fi""",
    "ray": "",
    "python": """cat >/dev/null
if [ "${NODES/ /}" != "$NODES" ]; then until grep -q "workers up" $LOG; do sleep 0.1; done; fi
exit ${WAIT_STATUS:-0}""",
    "hostname": "echo 10.0.0.1 192.168.0.1",
    "rec": f"""trap 'echo rec told >>$LOG; kill $!; exit 9' TERM
if [ -n "${{SLOW:-}}" ]; then echo rec works >>$LOG; {SLEEP}; fi
exit ${{STATUS:-0}}""",
}
"""Stand-ins for what is not here; each notes its words first, so that what the script does with them can be read."""


class Job:
    """A run of the script under stand-ins for Slurm, Ray and `rec`."""

    def __init__(self, folder: Path, nodes: str, **environment: str) -> None:
        self.log, tools = folder / "log", folder / "bin"
        tools.mkdir()
        for name, body in STAND_INS.items():
            note = f'#!/bin/bash\nprintf "%s" {name} >>$LOG; printf " [%s]" "$@" >>$LOG; echo >>$LOG\n'
            secret = f'echo "{name} $RAY_AUTH_MODE $RAY_ADDRESS $RAY_AUTH_TOKEN" >>$LOG.env\n'
            (tools / name).write_text(f"{note}{secret}{body}\n")
            (tools / name).chmod(0o755)
        slurm = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "123456", "SLURM_CPUS_ON_NODE": "8"}
        self.environment = {
            **slurm,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "LOG": str(self.log),
            "NODES": nodes,
            **environment,
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(["bash", str(SCRIPT), *words], env=self.environment, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str) -> tuple[int, list[str]]:
        process = self.start(*words)
        process.communicate(timeout=30)
        return process.returncode, self.lines()

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def test_slurm_runs_a_head_the_workers_and_the_command_and_returns_its_status(tmp_path: Path) -> None:
    job = Job(tmp_path, "n1 n2 n3", STATUS="7")
    status, lines = job.run("train", "my config.toml", "parallel.workers=4")
    assert status == 7
    head, workers = (next(line for line in lines if line.startswith(start)) for start in ("ray [start]", "srun"))
    assert "[--head] [--node-ip-address=10.0.0.1] [--port=23456] [--num-cpus=8]" in head
    assert "[--nodes=2] [--ntasks=2] [--nodelist=n2,n3]" in workers
    assert "rec [train] [my config.toml] [parallel.workers=4]" in lines
    order = [line.split(" [")[0] for line in lines]
    assert order.index("python") < order.index("rec") < order.index("workers ended")
    assert "ray [stop] [--grace-period] [10]" in lines
    assert lines[-1].endswith("[--nodes=3] [--ntasks=3] [rm] [-rf] [--] [/tmp/rec-123456]")


def test_all_of_slurm_share_a_token_that_no_command_shows(tmp_path: Path) -> None:
    job = Job(tmp_path, "n1 n2")
    job.run("train", "a.toml")
    told = {
        tuple(line.split()[1:])
        for line in Path(f"{job.log}.env").read_text().splitlines()
        if not line.startswith(("scontrol", "hostname"))
    }
    ((mode, address, token),) = told
    assert (mode, address) == ("token", "10.0.0.1:23456")
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert token not in job.log.read_text()


def test_one_node_of_slurm_needs_no_workers(tmp_path: Path) -> None:
    status, lines = Job(tmp_path, "n1", REC_HEAD_ADDRESS="10.9.9.9").run("evaluate", "a.toml")
    assert status == 0
    assert not any("bash" in line for line in lines)
    assert any("--node-ip-address=10.9.9.9" in line for line in lines)


def test_nodes_of_slurm_that_do_not_come_up_end_the_job_with_an_error(tmp_path: Path) -> None:
    status, lines = Job(tmp_path, "n1 n2", WAIT_STATUS="1").run("train", "a.toml")
    assert status == 1
    assert not any(line.startswith("rec") for line in lines)
    assert "ray [stop] [--grace-period] [10]" in lines


@pytest.mark.parametrize("again", ["0", "1"])
def test_a_notice_of_slurm_ends_the_command_first_and_queues_the_job_again_where_wanted(
    tmp_path: Path, again: str
) -> None:
    job = Job(tmp_path, "n1 n2", SLOW="1", REC_REQUEUE=again)
    process = job.start("train", "a.toml")
    end = time.monotonic() + 20
    while "rec works" not in job.lines() and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    lines = job.lines()
    assert process.returncode in (9, 143)
    assert ("scontrol [requeue] [123456]" in lines) == (again == "1")
    if again == "1":
        assert lines.index("rec told") < lines.index("scontrol [requeue] [123456]")


def test_slurm_without_a_command_says_how(tmp_path: Path) -> None:
    process = Job(tmp_path, "n1").start()
    _, told = process.communicate(timeout=10)
    assert process.returncode == 2
    assert told.startswith("usage: sbatch")
