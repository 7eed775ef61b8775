"""RayCluster, RayJob and RayService of KubeRay as plain values."""

from __future__ import annotations

import math
import shlex
from pathlib import PurePosixPath
from typing import Any

import yaml

from rec.cluster.values import Kind, PodSizes, Values, WorkerPods, byte_count

SERVED = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response junk-response response-timeout",
    "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
}
"""Of services: HAProxy in front of replicas is the router that retries. Requests only read, so that one whose replica
died, or whose node no longer answers, may be sent to another. Autoscaling goes by what replicas tell of their load."""
ANSWER, CHECK = "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S", "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER"
"""Seconds of silence after which a request is sent to another replica, and the time between checks and for each: two
that fail in a row take a replica out. Shorter checks take out busy replicas that still answer."""


def served(deadline_ms: float) -> dict[str, str]:
    """Return what all processes of Ray have in their environment where artifacts with this deadline are served.

    A living replica answers by `serve.deadline_ms`, if only that it is late.
    """
    seconds = math.ceil(deadline_ms / 1000) + 1
    return SERVED | {ANSWER: str(seconds), CHECK: f"{seconds}s"}


Manifest = dict[str, Any]


def ray_cluster(values: Values, group: str) -> Manifest:
    """Return a cluster with one kind of workers that jobs are submitted to."""
    spec = _cluster(values, values.workers[group], group) | _external_state(values)
    return _document("RayCluster", f"{values.name}-{group}", "cluster", spec)


def ray_job(values: Values, group: str, kind: Kind) -> Manifest:
    """Return a job on a cluster of its own, which goes when the job has ended."""
    job, workers = values.job(kind), values.workers[group]
    spec = {
        "entrypoint": shlex.join(command(values, group, kind)),
        "submissionMode": "K8sJobMode",
        "backoffLimit": job.retries,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": job.keep_s,
        **({"activeDeadlineSeconds": job.deadline_s} if job.deadline_s else {}),
        "rayClusterSpec": _cluster(values, workers.model_copy(update={"min_nodes": workers.nodes}), group),
    }
    return _document("RayJob", f"{values.name}-{group}-{kind}", kind, spec)


def command(values: Values, group: str, kind: Kind) -> list[str]:
    """Return the words that a job runs."""
    if kind == "benchmark":
        return ["rec", "benchmark", *(values.job(kind).arguments or ("train",))]
    overrides = [*values.overrides, *values.workers[group].overrides]
    return ["rec", kind, values.config, *overrides, *values.job(kind).arguments]


def ray_service(values: Values, group: str) -> Manifest:
    """Return a service that answers from an artifact, and starts new nodes beside the old ones for another one."""
    service = values.service
    env: list[Manifest] = [{"name": name, "value": value} for name, value in served(service.deadline_ms).items()]
    if service.token_secret:
        env.append(_secret_variable("REC_SERVE_TOKEN", service.token_secret, "token"))
    spec = {
        "upgradeStrategy": {"type": "NewCluster"},
        "excludeHeadPodFromServeSvc": True,
        "serveConfigV2": yaml_text(serve_config(PurePosixPath(service.artifact).name, service.artifact)),
        "rayClusterConfig": _cluster(values, values.workers[group], group, env) | _external_state(values),
    }
    return _document("RayService", f"{values.name}-{group}-serve", "serve", spec)


def serve_config(name: str, artifact: str) -> Manifest:
    """Return what Ray Serve is told of an artifact."""
    application = {
        "name": name,
        "route_prefix": "/",
        "import_path": "rec.runtime.serving:app",
        "args": {"artifact": artifact},
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": [application],
    }


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes texts of several lines as such, and every value where it stands."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def yaml_text(value: Any) -> str:
    """Return a value as YAML, its keys in their order."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True))


def _document(kind: str, name: str, component: str, spec: Manifest) -> Manifest:
    labels = {"app.kubernetes.io/name": "rec", "app.kubernetes.io/component": component}
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec}


def _cluster(values: Values, workers: WorkerPods, group: str, env: list[Manifest] | None = None) -> Manifest:
    """Return the spec of a cluster: a head without tasks, one kind of workers, autoscaling, token authentication."""
    return {
        "rayVersion": values.ray_version,
        "authOptions": {"mode": "token", "secretName": values.token_secret},
        "enableInTreeAutoscaling": workers.min_nodes < workers.max_nodes,
        "autoscalerOptions": {
            "version": "v2",
            "upscalingMode": "Default",
            "idleTimeoutSeconds": values.idle_s,
            "resources": {bound: {"cpu": "500m", "memory": "512Mi"} for bound in ("requests", "limits")},
        },
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", **_object_store(values.head)},
            "template": _pod(values, values.head, "ray-head", env or []),
        },
        "workerGroupSpecs": [
            {
                "groupName": group,
                "replicas": workers.nodes,
                "minReplicas": workers.min_nodes,
                "maxReplicas": workers.max_nodes,
                "rayStartParams": _object_store(workers),
                "template": _worker_pod(values, workers, env or []),
            }
        ],
    }


def _object_store(sizes: PodSizes) -> dict[str, str]:
    return {"object-store-memory": str(byte_count(sizes.object_store))}


def _pod(
    values: Values, sizes: PodSizes, name: str, env: list[Manifest], gpus: dict[str, str] | None = None
) -> Manifest:
    """Return the template of a pod with one container."""
    resources = {"cpu": str(sizes.cpus), "memory": sizes.memory, **(gpus or {})}
    container = {
        "name": name,
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "resources": {"requests": resources, "limits": resources},
        "env": [*({"name": key, "value": value} for key, value in values.environment.items()), *env],
        "envFrom": [{"secretRef": {"name": secret}} for secret in values.secrets],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *(
                {"name": volume.claim, "mountPath": volume.path, "readOnly": volume.read_only}
                for volume in values.volumes
            ),
        ],
    }
    spec = {
        "terminationGracePeriodSeconds": values.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": values.user,
            "runAsGroup": values.user,
            "fsGroup": values.user,
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        "containers": [{key: value for key, value in container.items() if value != []}],
        "volumes": [
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": sizes.shared_memory}},
            *(
                {
                    "name": volume.claim,
                    "persistentVolumeClaim": {"claimName": volume.claim, "readOnly": volume.read_only},
                }
                for volume in values.volumes
            ),
        ],
    }
    if values.image_pull_secret:
        spec["imagePullSecrets"] = [{"name": values.image_pull_secret}]
    return {"spec": spec}


def _worker_pod(values: Values, workers: WorkerPods, env: list[Manifest]) -> Manifest:
    """Return the template of a worker: where it may run, and its GPUs."""
    gpus = {workers.gpu_resource: str(workers.gpus)} if workers.gpus else {}
    pod = _pod(values, workers, "ray-worker", env, gpus)
    if workers.node_selector:
        pod["spec"]["nodeSelector"] = dict(workers.node_selector)
    if workers.tolerations:
        pod["spec"]["tolerations"] = [
            {"key": taint, "operator": "Exists", "effect": "NoSchedule"} for taint in workers.tolerations
        ]
    return pod


def _external_state(values: Values) -> Manifest:
    """Return where the head keeps its state, if anywhere but in itself."""
    state = values.external_state
    if state is None:
        return {}
    password = {"secretKeyRef": {"name": state.password_secret, "key": "password"}}
    options = {"redisPassword": {"valueFrom": password}} if state.password_secret else {}
    return {"gcsFaultToleranceOptions": {"redisAddress": state.address, **options}}


def _secret_variable(name: str, secret: str, key: str) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
