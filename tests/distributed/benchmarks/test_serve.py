"""What the serving benchmark puts beside a model: a web application of constant answers, on Serve."""

import http.client
import json

import psutil
import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.benchmarks.serve import constant
from rec.runtime.ports import free_port
from rec.runtime.proxies import serving_runtime
from rec.runtime.serving import deploy_web, replica_pids
from rec.serving.config import ServeConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_the_constant_answers_everyone_alike_from_its_replicas(ray_runtime: None) -> None:
    port = free_port()
    with serving_runtime([ServeConfig()], "127.0.0.1", port):
        deploy_web(constant("/v1/recommend", 100), "constant", "/constant", 2)
        answers = set()
        for user in ("1", "2", "nobody"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request(
                "POST", "/constant/v1/recommend", json.dumps({"user": user}), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            assert answer.status == 200
            answers.add(answer.read())
        pids = replica_pids("constant")
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        assert replica_pids("model") == []
    (body,) = answers
    assert json.loads(body) == {"items": "x" * 100}
