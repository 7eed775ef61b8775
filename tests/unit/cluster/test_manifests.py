"""The manifests that are shipped are those of their values, and what Kubernetes and KubeRay know."""

import copy
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from referencing import Registry, Resource

from rec.cli import commands, main
from rec.cli.command import parsed
from rec.cluster.render import manifests, render
from rec.cluster.schemas import faults, read_crds
from rec.cluster.service import files_of_service
from rec.cluster.values import KINDS, ExternalState, Values, byte_count, load_values
from rec.config import load

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster" / "kuberay"
FIELDS = Path(__file__).with_name("kuberay.yaml")
REAL = ROOT.parent / "shared" / "kuberay" / "crds"
PODS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.37.0-local-strict"
VALUES = load_values(ROOT / "cluster" / "values.toml")
MADE = manifests(VALUES)
SCHEMAS = read_crds(FIELDS)
FULL = Values.model_validate(
    VALUES.model_dump()
    | {
        "image_pull_secret": "pull",
        "secrets": ("store",),
        "external_state": ExternalState(address="redis:6379", password_secret="redis"),
        "service": {"artifact": "/data/a", "token_secret": "serve"},
        "workers": {
            name: workers.model_dump() | {"node_selector": {"pool": "a"}, "tolerations": ("spot",)}
            for name, workers in VALUES.workers.items()
        },
    }
)
"""With every key set that changes what is made."""


@pytest.fixture(scope="module")
def registry() -> Registry[Any]:
    """Kubernetes' own schemas, which take no unknown key."""
    return Resource.from_contents(json.loads((PODS / "_definitions.json").read_text())) @ Registry()


def test_the_shipped_manifests_are_those_of_the_values(tmp_path: Path) -> None:
    render(VALUES, tmp_path)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.yaml")}
    assert made == {path.relative_to(FOLDER): path.read_text() for path in FOLDER.rglob("*.yaml")}
    assert len(made) == 2 * (1 + len(KINDS) + 1)


def test_the_command_writes_what_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "render", str(ROOT / "cluster" / "values.toml"), "--out", str(tmp_path)]) == 0
    paths = capsys.readouterr().out.split()
    assert {Path(path).relative_to(tmp_path).as_posix() for path in paths} == set(MADE)
    assert all(
        yaml.safe_load(Path(path).read_text()) == MADE[Path(path).relative_to(tmp_path).as_posix()] for path in paths
    )


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("values", [VALUES, FULL], ids=["shipped", "full"])
def test_every_key_is_known(values: Values, name: str, registry: Registry[Any]) -> None:
    assert faults(manifests(values)[name], SCHEMAS, registry) == []


@pytest.fixture(scope="module")
def real() -> Mapping[tuple[str, str], Any]:
    return read_crds(REAL)


@pytest.mark.data
@pytest.mark.skipif(not REAL.exists(), reason="KubeRay's own files are not in shared/kuberay/crds")
@pytest.mark.parametrize("name", MADE)
def test_every_key_is_known_to_the_files_of_kuberay_itself(name: str, real: Mapping[tuple[str, str], Any]) -> None:
    assert faults(manifests(FULL)[name], real) == []


def cluster_of(manifest: dict[str, Any]) -> Any:
    spec = manifest["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def misspell(path: str, old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        inner: Any = cluster_of(manifest)
        for part in path.split("."):
            inner = inner[int(part) if part.isdigit() else part] if part else inner
        inner[new] = inner.pop(old)

    return change


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        ("workerGroupSpecs.0", "maxReplicas", "maxReplica", "workerGroupSpecs[0].maxReplica: unknown key"),
        ("", "enableInTreeAutoscaling", "enableInTreeAutoScaling", "enableInTreeAutoScaling: unknown key"),
        ("authOptions", "secretName", "secretname", "authOptions.secretname: unknown key; did you mean 'secretName'?"),
        (
            "headGroupSpec.template.spec.containers.0.resources",
            "limits",
            "limit",
            "headGroupSpec.template.spec.containers[0].resources.limit: unknown key; did you mean 'limits'?",
        ),
        (
            "workerGroupSpecs.0.template.spec.volumes.0.emptyDir",
            "sizeLimit",
            "size",
            "workerGroupSpecs[0].template.spec.volumes[0].emptyDir.size: unknown key",
        ),
    ],
)
@pytest.mark.parametrize("name", ["gpu/cluster.yaml", "cpu/train.yaml", "gpu/serve.yaml"])
def test_one_misspelt_key_is_found(
    name: str, path: str, old: str, new: str, told: str, registry: Registry[Any]
) -> None:
    manifest = copy.deepcopy(MADE[name])
    misspell(path, old, new)(manifest)
    assert any(told in line for line in faults(manifest, SCHEMAS, registry))


def test_a_value_of_the_wrong_kind_is_found(registry: Registry[Any]) -> None:
    manifest = copy.deepcopy(MADE["cpu/train.yaml"])
    manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    manifest["spec"]["rayClusterSpec"]["autoscalerOptions"]["version"] = "2"
    assert faults(manifest, SCHEMAS, registry) == [
        "spec.rayClusterSpec.autoscalerOptions.version: '2' is not one of ['v1', 'v2']",
        "spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus: 0 is not of type 'string'",
    ]


@pytest.mark.parametrize("name", [name for name, made in MADE.items() if made["kind"] == "RayJob"])
def test_the_command_of_every_job_is_one_of_ours_with_keys_that_are_known(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    program, kind, *words = shlex.split(MADE[name]["spec"]["entrypoint"].replace("/app/", ""))
    assert program == "rec"
    overrides = [word for word in words if "=" in word]
    options = parsed(commands(), [kind, *words]).run.keywords
    if kind == "benchmark":
        return
    assert options["overrides"] == overrides
    config = load(words[0], overrides)
    workers = VALUES.workers[name.split("/")[0]]
    fit = workers.nodes * (workers.cpus // config.parallel.threads)
    assert max(1, config.parallel.workers) <= fit
    assert config.parallel.workers * config.parallel.threads < workers.nodes * workers.cpus, "no CPU is left for data"
    assert config.parallel.gpu == bool(workers.gpus)


@pytest.mark.parametrize("name", MADE)
def test_sizes_secrets_and_bounds_are_those_of_the_values(name: str) -> None:
    group, file = name.split("/")
    workers, cluster = VALUES.workers[group], cluster_of(MADE[name])
    (found,) = cluster["workerGroupSpecs"]
    pod = found["template"]["spec"]
    memory = next(volume for volume in pod["volumes"] if volume["name"] == "shared-memory")["emptyDir"]
    assert memory == {"medium": "Memory", "sizeLimit": workers.shared_memory}
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    assert found["rayStartParams"]["object-store-memory"] == str(byte_count(workers.object_store))
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu", "0") == str(workers.gpus)
    assert cluster["authOptions"] == {"mode": "token", "secretName": "rec-token"}
    fewest = workers.min_nodes if file in ("cluster.yaml", "serve.yaml") else workers.nodes
    assert (found["minReplicas"], found["replicas"], found["maxReplicas"]) == (fewest, workers.nodes, workers.max_nodes)
    assert len(MADE[name]["metadata"]["name"]) <= 41, "the names that KubeRay makes from it would be too long"


def test_no_secret_and_no_registry_stands_in_a_manifest() -> None:
    for path in FOLDER.rglob("*.yaml"):
        images = [line.split("image:")[1].strip() for line in path.read_text().splitlines() if "image:" in line]
        assert images
        assert all("/" not in image for image in images)
        assert "auth_token" not in path.read_text()


def test_a_service_tells_ray_serve_which_artifact() -> None:
    told = yaml.safe_load(manifests(FULL)["cpu/serve.yaml"]["spec"]["serveConfigV2"])
    assert told["applications"][0]["args"] == {"artifact": "/data/a"}
    assert told["applications"][0]["name"] == "a"
    env = cluster_of(manifests(FULL)["cpu/serve.yaml"])["workerGroupSpecs"][0]["template"]["spec"]["containers"][0][
        "env"
    ]
    assert {"name": "REC_SERVE_TOKEN", "valueFrom": {"secretKeyRef": {"name": "serve", "key": "token"}}} in env


def test_an_artifact_brings_a_service_that_is_known(registry: Registry[Any]) -> None:
    files = files_of_service("mine", "/home/artifacts/mine", 2000.0)
    service = yaml.safe_load(files["rayservice.yaml"])
    assert faults(service, SCHEMAS, registry) == []
    told = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert told["applications"][0]["args"] == {"artifact": "/artifacts/mine"}
    assert yaml.safe_load(files["serve.yaml"])["applications"][0]["args"] == {"artifact": "/home/artifacts/mine"}


def test_only_what_stays_keeps_its_state_elsewhere() -> None:
    kept = {name for name, made in manifests(FULL).items() if "gcsFaultToleranceOptions" in cluster_of(made)}
    assert kept == {"cpu/cluster.yaml", "cpu/serve.yaml", "gpu/cluster.yaml", "gpu/serve.yaml"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["render", "values.toml", "--out", "a", "name=b"], "cluster render: takes no keys, got 'name=b'"),
        (["check", "manifests", "--crds", "none.yaml"], "none.yaml"),
        (["render", "none.toml", "--out", "a"], "none.toml: cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", *words]) == 1
    assert told in capsys.readouterr().err.splitlines()[-1]
