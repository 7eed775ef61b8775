"""Every key of `[serve]` has an effect, or is refused where it has none: reads are noted while artifacts are served."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rec.config import override
from rec.errors import ConfigError
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.serving.export import export
from tests.end_to_end.serving.test_app import Noted
from tests.end_to_end.test_keys import check_unread, reads

serving = pytest.importorskip("rec.runtime.serving", reason="needs the extra `cluster`")
proxies = pytest.importorskip("rec.runtime.proxies", reason="needs the extra `cluster`")
PORT = 8642


@pytest.mark.parametrize("keys", [{}, {"max_replicas": 2}, {"token": True}, {"index": "hnsw"}], ids=str)
def test_a_key_of_serving_is_read_or_refused(
    keys: dict[str, Any],
    artifact: Artifact,
    writer_artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if "index" in keys:
        pytest.importorskip("faiss", reason="needs the extra `search`")
    monkeypatch.delenv("REC_SERVE_TOKEN", raising=False)
    config = override(artifact.config, [f"serve.{key}={json.dumps(value)}" for key, value in keys.items()])
    with reads() as found:
        made = export(config, str(tmp_path / "artifact"), quiet)
        serving.app({"artifact": str(made.path)})
        for one in (made, writer_artifact):  # a limit of texts counts where texts are written
            with TestClient(create(Answerer(one), config.serve, Noted(), None, "r")) as client:
                assert client.get("/openapi.json").status_code == 200
        with TestClient(create(Answerer(made), config.serve, Noted(), None, "r")) as client:
            assert client.post("/v1/recommend", json={"user": "u1", "k": 3}).status_code == 200
        told = refused_start(config.serve)
    assert ("serve.token" in told) == bool(keys.get("token"))
    check_unread(config, found, ("serve",))


def quiet(_: Any) -> None:
    """Say nothing."""


def refused_start(config: ServeConfig) -> str:
    """Return why no runtime is started: for want of a token, or as a replica takes more than there is."""
    huge = config.model_copy(update={"cpus_per_replica": 1e6})
    with pytest.raises(ConfigError) as error, proxies.serving_runtime([huge], "127.0.0.1", PORT):
        pass
    return str(error.value)
