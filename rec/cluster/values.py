"""What manifests for KubeRay are made from: the keys of one TOML file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from rec.config import check, read_toml
from rec.strict import Strict

Kind = Literal["prepare", "train", "tune", "evaluate", "predict", "benchmark"]
KINDS: tuple[Kind, ...] = ("prepare", "train", "tune", "evaluate", "predict", "benchmark")
"""Commands that a manifest of a job is made for."""

UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
QUANTITY = re.compile(r"([1-9][0-9]*)(Ki|Mi|Gi|Ti|)")

Bytes = Annotated[str, StringConstraints(pattern=rf"^{QUANTITY.pattern}$")]
"""An amount of memory as Kubernetes writes it: "16Gi"."""
Label = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")]
"""A name that Kubernetes takes as a part of the names of pods and services."""


def byte_count(quantity: str) -> int:
    """Return how many bytes an amount like "16Gi" is."""
    number, unit = QUANTITY.fullmatch(quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


class PodSizes(Strict):
    """What one pod has. Shared memory counts as memory of the pod, and Ray keeps its objects there."""

    cpus: int = Field(ge=1)
    """CPUs of a pod."""
    memory: Bytes
    """Memory of a pod, shared memory included."""
    object_store: Bytes
    """Ray's objects on this node: blocks of data on their way, and what `ray.put` holds."""
    shared_memory: Bytes
    """Size of /dev/shm: the object store, and what NCCL and processes that share tensors need beside it."""

    @model_validator(mode="after")
    def _fit_into_each_other(self) -> Self:
        if byte_count(self.shared_memory) < byte_count(self.object_store):
            raise ValueError(
                f"shared_memory: at least object_store ({self.object_store}), which lies in it; got "
                f"{self.shared_memory}: Ray would keep its objects on the disk"
            )
        if byte_count(self.memory) <= byte_count(self.shared_memory):
            raise ValueError(
                f"memory: more than shared_memory ({self.shared_memory}), which counts as memory of the pod; got "
                f"{self.memory}"
            )
        return self


class HeadPod(PodSizes):
    """The pod with Ray's own services and the driver of a job; it runs no tasks."""

    cpus: int = Field(2, ge=1)
    """CPUs of the pod."""
    memory: Bytes = "8Gi"
    """Memory of the pod."""
    object_store: Bytes = "1Gi"
    """Ray's objects on this node."""
    shared_memory: Bytes = "2Gi"
    """Size of /dev/shm, the object store included."""


class WorkerPods(PodSizes):
    """One kind of worker pods; a set of manifests is made for each."""

    nodes: int = Field(2, ge=1)
    """Pods at the start. A job is refused where they have no room for it: it does not wait for the autoscaler."""
    min_nodes: int = Field(1, ge=0)
    """Fewest that autoscaling keeps of a cluster or a service; a job keeps `nodes`."""
    max_nodes: int = Field(8, ge=1)
    """Most that autoscaling starts."""
    gpus: int = Field(0, ge=0)
    """GPUs per pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """What Kubernetes calls a GPU of these pods."""
    node_selector: dict[str, str] = {}
    """Labels of nodes that the pods may run on."""
    tolerations: tuple[str, ...] = ()
    """Taints of nodes that do not keep the pods away, such as "nvidia.com/gpu"."""
    overrides: tuple[str, ...] = ()
    """Keys of a run's config that go with these workers, such as "parallel.gpu=true"."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min_nodes <= self.nodes <= self.max_nodes:
            raise ValueError(
                f"nodes: from min_nodes ({self.min_nodes}) to max_nodes ({self.max_nodes}), got {self.nodes}"
            )
        return self


class Volume(Strict):
    """A claim that all pods mount: storage that every node opens."""

    claim: Label
    """Name of the PersistentVolumeClaim."""
    path: str = Field(pattern="^/")
    """Where it lies in the pods."""
    read_only: bool = False
    """Whether pods may not write to it."""


class JobValues(Strict):
    """What one kind of job is told beside the config."""

    arguments: tuple[str, ...] = ()
    """Further words of the command: options, and keys of the config."""
    retries: int = Field(2, ge=0)
    """New clusters after a job that failed; the same command goes on where it was."""
    deadline_s: int = Field(0, ge=0)
    """Seconds after which the job is ended; 0 lets it run."""
    keep_s: int = Field(600, ge=0)
    """Seconds that the cluster of a job stays after its end."""


class ServiceValues(Strict):
    """An artifact of `rec export` that is served."""

    artifact: str = Field("/data/artifacts/msmrec", pattern="^/")
    """Its folder on a volume; the last part is the name of the application."""
    token_secret: str = ""
    """Secret whose key `token` is REC_SERVE_TOKEN, for artifacts with serve.token=true."""
    deadline_ms: float = Field(2000.0, gt=0)
    """The artifact's `serve.deadline_ms`: where a replica is silent a second longer, another one gets the request."""


class ExternalState(Strict):
    """Redis that keeps the state of Ray's head, so that a new head goes on; clusters and services use it."""

    address: str = Field(min_length=1)
    """HOST:PORT of Redis."""
    password_secret: str = ""
    """Secret whose key `password` opens it."""


class Values(Strict):
    """All that the manifests say."""

    name: Annotated[Label, Field(max_length=20)] = "rec"
    """First part of all names."""
    image: str = Field(min_length=1)
    """Of cluster/Dockerfile, with your registry in front of it."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When a node fetches the image."""
    image_pull_secret: str = ""
    """Secret that opens the registry; "" needs none."""
    ray_version: str = Field("2.60.0", pattern=r"^\d+\.\d+\.\d+$")
    """As in the image."""
    token_secret: Label = "rec-token"
    """Secret whose key `auth_token` all processes of Ray and those who ask them have to know."""
    secrets: tuple[Label, ...] = ()
    """Secrets that are put into the environment of all pods, such as keys of an object store."""
    environment: dict[str, str] = {"RAY_USAGE_STATS_ENABLED": "0"}
    """Variables of all pods."""
    user: int = Field(1000, ge=1)
    """User and group of the processes, and group of files on volumes."""
    grace_s: int = Field(120, ge=0)
    """Seconds between the notice that a pod has to go and its end."""
    idle_s: int = Field(300, ge=1)
    """Seconds without work after which autoscaling ends a node."""
    config: str = Field("/app/rec/configs/demo.toml", pattern="^/")
    """Of the jobs: in the image, where the project lies in /app, or on a volume."""
    overrides: tuple[str, ...] = ()
    """Keys of the config that hold for all jobs, such as "out=/data/run"."""
    volumes: tuple[Volume, ...] = ()
    """Storage that all pods mount."""
    head: HeadPod = HeadPod()
    workers: dict[Annotated[Label, Field(max_length=12)], WorkerPods] = Field(min_length=1)
    jobs: dict[Kind, JobValues] = {}
    service: ServiceValues = ServiceValues()
    external_state: ExternalState | None = None

    def job(self, kind: Kind) -> JobValues:
        """Return what is said of a kind of job."""
        return self.jobs.get(kind, JobValues())


def load_values(path: str | Path) -> Values:
    """Return the checked values of a TOML file.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, missing or wrong.
    """
    values: Values = check(Values, read_toml(path), "")
    return values
