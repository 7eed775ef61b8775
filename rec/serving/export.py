"""`rec export`: a run's best checkpoint as an artifact, with its example and files for clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rec.config import RunConfig
from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.errors import ConfigError
from rec.serving.answers import Answerer
from rec.serving.artifact import Artifact, export_run
from rec.serving.example import make_example

SERVE_YAML = """# serve deploy serve.yaml; every node needs the project installed and the artifact at this path.
# Set RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_HAPROXY_RETRY_ON="conn-failure empty-response" where Ray starts.
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
applications:
  - name: {name}
    route_prefix: /
    import_path: rec.runtime.serving:app
    args:
      artifact: {path}
"""
RAYSERVICE_YAML = """# kubectl apply -f rayservice.yaml; the image holds the project, the volume the artifact.
apiVersion: ray.io/v1
kind: RayService
metadata:
  name: {name}
spec:
  serveConfigV2: |
    applications:
      - name: {name}
        route_prefix: /
        import_path: rec.runtime.serving:app
        args:
          artifact: /artifacts/{name}
  rayClusterConfig:
    headGroupSpec:
      rayStartParams:
        num-cpus: "0"
      template:
        spec:
          containers:
            - name: ray-head
              image: rec:latest
              env: &env
                - {{name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}}
                - {{name: RAY_SERVE_HAPROXY_RETRY_ON, value: "conn-failure empty-response junk-response"}}
              volumeMounts: &mounts
                - {{name: artifacts, mountPath: /artifacts, readOnly: true}}
          volumes: &volumes
            - name: artifacts
              persistentVolumeClaim: {{claimName: artifacts, readOnly: true}}
    workerGroupSpecs:
      - groupName: replicas
        replicas: 2
        minReplicas: 1
        maxReplicas: 8
        template:
          spec:
            containers:
              - name: ray-worker
                image: rec:latest
                env: *env
                resources:
                  limits: {{cpu: "2", memory: 4Gi}}
                volumeMounts: *mounts
            volumes: *volumes
"""


def export(config: RunConfig, target: str, say: Callable[[str], None]) -> Artifact:
    """Write a run's artifact into a folder, in the place of what was there, and return it.

    Raises:
        ConfigError: the folder is no local path, or the index does not fit the system.
        CheckpointError, DataError: the run or its data set is missing or damaged.
    """
    if "://" in target:
        raise ConfigError(f"{target}: an artifact is written to a local folder; copy it from there")
    path = Path(target).absolute()

    def finish(artifact: Artifact) -> dict[str, Any]:
        row = to_columns(Prepared.open(config.data.root).rows("test").slice(0, 1))
        return make_example(Answerer(artifact), row)

    extras = {
        "serve.yaml": SERVE_YAML.format(name=path.name, path=path),
        "rayservice.yaml": RAYSERVICE_YAML.format(name=path.name),
    }
    return export_run(config, target, finish, extras, say)
