"""What stands in an artifact for those who serve it on a cluster."""

from __future__ import annotations

from rec.cluster.manifests import ray_service, serve_config, served, yaml_text
from rec.cluster.values import Values

SIZES = {"cpus": 2, "memory": "4Gi", "object_store": "512Mi", "shared_memory": "1Gi"}
"""Of a replica's pod, where nobody says more."""


def files_of_service(name: str, path: str, deadline_ms: float) -> dict[str, str]:
    """Return the texts of `serve.yaml`, for a running cluster, and `rayservice.yaml`, for KubeRay, of an artifact."""
    values = Values.model_validate(
        {
            "image": "rec:latest",
            "volumes": [{"claim": "artifacts", "path": "/artifacts", "read_only": True}],
            "head": SIZES | {"memory": "8Gi"},
            "workers": {"replicas": SIZES},
            "service": {"artifact": f"/artifacts/{name}", "deadline_ms": deadline_ms},
        }
    )
    environment = " ".join(f'{key}="{value}"' for key, value in served(deadline_ms).items())
    serve = f"""# serve deploy serve.yaml; every node needs the project installed and the artifact at this path.
# In the environment of every process of Ray: {environment}
"""
    service = """# kubectl apply -f rayservice.yaml; the image holds the project, the volume the artifact.
# The secret holds Ray's token: docs/cluster.md. Other sizes, names, images: `rec cluster render`.
"""
    return {
        "serve.yaml": serve + yaml_text(serve_config(name, path)),
        "rayservice.yaml": service + yaml_text(ray_service(values, "replicas")),
    }
