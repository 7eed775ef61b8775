"""Serving on Ray Serve: one application per artifact, upgrades without a gap, and back where they fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psutil
import ray

from rec.errors import ConfigError, DataError, RequestError
from rec.progress import Progress
from rec.runtime.cluster import starting
from rec.runtime.errors_log import NAME, FileFollower
from rec.runtime.proxies import addresses, serving_runtime
from rec.runtime.served import ServedState
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.strict import idle_keys

if TYPE_CHECKING:
    from fastapi import FastAPI

Say = Callable[[str], None]
DEPLOYMENT = "Replica"


def app(args: Mapping[str, Any]) -> Any:
    """Return the Serve application of an artifact: what `import_path: rec.runtime.serving:app` names.

    Args:
        args: `artifact`, the path of an artifact on every node, and keys of `[serve]` that override its own.
    """
    from rec.runtime.replica import Replica

    overrides = {name: value for name, value in args.items() if name != "artifact"}
    return _deployment(Replica, limits(Artifact.open(str(args["artifact"])), overrides)).bind(
        str(args["artifact"]), overrides
    )


def multiplexed(args: Mapping[str, Any]) -> Any:
    """Return one Serve application for several artifacts, each at `/NAME`, loaded when they are asked for.

    Args:
        args: `artifacts`, their paths; `most`, how many a replica keeps in memory; and keys of `[serve]`, where the
            first artifact decides what they do not.
    """
    from rec.runtime.replica import Multiplexed

    overrides = {name: value for name, value in args.items() if name not in ("artifacts", "most")}
    artifacts = [Artifact.open(str(path)) for path in args["artifacts"]]
    paths = {artifact.name: artifact.place for artifact in artifacts}
    return _deployment(Multiplexed, limits(artifacts[0], overrides)).bind(paths, overrides, int(args["most"]))


def _deployment(cls: type, config: ServeConfig) -> Any:
    from ray import serve

    scale: dict[str, Any] = {"num_replicas": config.replicas}
    if config.max_replicas > config.replicas:
        scale = {
            "autoscaling_config": {
                "min_replicas": config.replicas,
                "max_replicas": config.max_replicas,
                "target_ongoing_requests": config.target_ongoing_requests,
                "look_back_period_s": 10,
                "upscale_delay_s": 5,
                "downscale_delay_s": config.downscale_delay_s,
            }
        }
    return serve.deployment(
        name=DEPLOYMENT,
        # The application refuses what is too much itself, with Retry-After; Serve's own queue is never reached.
        max_ongoing_requests=2 * (config.max_queued + config.max_batch_size),
        ray_actor_options={"num_cpus": config.cpus_per_replica, "num_gpus": config.gpus_per_replica},
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=10,
        max_constructor_retry_count=2,
        # New replicas answer before old ones stop.
        max_surge_percent=100,
        **scale,
    )(serve.ingress()(cls))


def limits(artifact: Artifact, overrides: Mapping[str, Any]) -> ServeConfig:
    """Return the `[serve]` section of an artifact under overrides.

    Raises:
        ConfigError: an override is unknown, out of range, has no effect, or is of what was made at export.
    """
    from rec.config import check

    config: ServeConfig = check(ServeConfig, artifact.config.serve.model_dump() | dict(overrides), "serve.")
    for key in ("index", "index_candidates"):
        if (ours := getattr(config, key)) != (theirs := getattr(artifact.config.serve, key)):
            raise ConfigError(f"serve.{key}: {ours!r}, but the artifact was made with {theirs!r}; export it again")
    for name, (other, value) in idle_keys(config, "serve.").items():
        raise ConfigError(f"{name}: has no effect with {other}={value!r}; leave it out")
    return config


def serve_artifacts(
    paths: Sequence[str], overrides: Mapping[str, Any], host: str, port: int, say: Say, most: int = 0
) -> None:
    """Serve artifacts until interrupted: one alone at `/`, several each at `/NAME`.

    Args:
        paths: Folders of the artifacts.
        overrides: Keys of `[serve]`.
        host: Address to listen at.
        port: Port to listen at.
        say: Told where things are.
        most: Artifacts that a replica keeps in memory, all replicas serving all; 0 gives each artifact its own.

    Raises:
        ConfigError: the cluster is too small, a token is asked for and not set, or two artifacts have one name.
        DataError: an artifact is not whole.
    """
    artifacts = [Artifact.open(path) for path in paths]
    for artifact in artifacts:
        artifact.verify()
    names = [artifact.name for artifact in artifacts]
    if len(set(names)) < len(names):
        raise ConfigError(f"artifacts: names must differ, got {', '.join(names)}")
    configs = [limits(artifact, overrides) for artifact in (artifacts[:1] if most else artifacts)]
    say(f"{', '.join(names)}: {starting()}, to serve")
    with serving_runtime(configs, host, port) as state:
        if most:
            args = {"artifacts": [artifact.place for artifact in artifacts], "most": most, **overrides}
            run(multiplexed(args), "multiplexed", "/")
        for artifact in artifacts:
            route = "/" if len(artifacts) == 1 and not most else f"/{artifact.name}"
            if not most:
                deploy(artifact, overrides, route)
                state.add(artifact, overrides, route)
            ways = [f"http://{address}:{port}{route}" for address in (addresses() if state.on_cluster else [host])]
            say(f"{artifact.name}: {' '.join(ways)}  API: {ways[0].rstrip('/')}/docs")
        if state.metrics_port:
            say(f"metrics for Prometheus: http://{host}:{state.metrics_port}/metrics")
        if not most:
            say(f"another version without a gap: rec upgrade {names[0]} ARTIFACT")
        say("end with Ctrl-C")
        try:
            FileFollower(state.folder / NAME, say).follow()
        finally:
            say("ending")


def deploy(artifact: Artifact, overrides: Mapping[str, Any], route: str) -> None:
    """Start an application, or replace what runs under its name; return when it answers.

    Raises:
        DataError: its replicas do not start; the cause is named.
    """
    run(app({"artifact": artifact.place, **overrides}), artifact.name, route)


def run(application: Any, name: str, route: str) -> None:
    """Start or replace an application and return when it answers.

    Raises:
        DataError: its replicas do not start; the cause is named.
    """
    from ray import serve

    try:
        with Progress(f"{name}: replicas load the artifact"):
            serve.run(application, name=name, route_prefix=route)
    except RuntimeError as error:
        raise DataError(f"{name}: cannot be served: {_cause(name)}") from error


def deploy_web(web: FastAPI, name: str, route: str, replicas: int) -> None:
    """Start replicas, of a CPU each, of any web application under a name; return when they answer.

    Raises:
        DataError: its replicas do not start; the cause is named.
    """
    from ray import serve

    class Plain:
        """A replica that holds nothing but the application."""

    deployment = serve.deployment(
        name="Plain", num_replicas=replicas, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1}
    )(serve.ingress(web)(Plain))
    run(deployment.bind(), name, route)


def replica_pids(name: str) -> list[int]:
    """Return the processes of an application's replicas on this machine."""
    word = f"ServeReplica:{name}:"
    return sorted(p.pid for p in psutil.process_iter(["cmdline"]) if word in " ".join(p.info["cmdline"] or []))


def upgrade(state: ServedState, name: str, path: str, say: Say) -> None:
    """Do what `replace` does in a `rec serve` of this machine, from another process."""
    ray.init(address=state.content["address"], log_to_driver=False, logging_level="ERROR", namespace="serve")
    try:
        replace(state, name, path, say)
    finally:
        ray.shutdown()


def replace(state: ServedState, name: str, path: str, say: Say) -> None:
    """Replace the artifact that runs under a name by another one, without a gap.

    New replicas start beside the old ones and take over when their example gets the exported answer. Where it does not,
    or they do not start, everything goes back to the artifact before.

    Raises:
        RequestError: nothing runs under that name.
        DataError: the new artifact is not whole, or was rolled back.
    """
    artifact = Artifact.open(path)
    artifact.verify()
    if name not in state.apps:
        raise RequestError(f"{name}: is not served; there are {', '.join(state.apps) or 'none'}")
    before = state.apps[name]
    if (deadline_ms := limits(artifact, before["overrides"]).deadline_ms) >= 1000 * state.answer_s:
        raise DataError(
            f"{path}: serve.deadline_ms is {deadline_ms:g}, but the proxies give up replicas that are silent for "
            f"{state.answer_s} s, by what was served when they started; end rec serve and start it with this one"
        )
    overrides, route, started_s = before["overrides"], before["route"], time.monotonic()
    try:
        run(app({"artifact": artifact.place, **overrides}), name, route)
    except DataError as error:
        run(app({"artifact": before["artifact"], **overrides}), name, route)
        raise DataError(f"{path}: rolled back to {before['artifact']}: {error}") from error
    before["artifact"] = artifact.place
    state.write()
    say(f"{name}: now {artifact.place} ({time.monotonic() - started_s:.1f} s)")


def _cause(name: str) -> str:
    """Return why an application's replicas do not start: the last line of what the replica said."""
    from ray import serve

    status = serve.status().applications.get(name)
    told = "" if status is None else "\n".join([status.message, *(d.message for d in status.deployments.values())])
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    named = [line for line in lines if "rec.errors." in line or "Error: " in line]
    return (named or lines or ["unknown"])[-1].removeprefix("rec.errors.")
