import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rec.config import RunConfig
from rec.errors import CheckpointError, ConfigError, DataError, StorageError
from rec.evaluation.tasks.ranking.index import FaissIndex, build_index, recall
from rec.serving.answers import Answerer
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.serving.example import differs
from rec.serving.export import export
from rec.storage import Storage
from tests.support.object_store import BUCKET, options, reachable


@pytest.fixture
def copy(artifact: Artifact, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact.path, tmp_path / "copy"))


def test_an_artifact_holds_everything_that_answers_need(artifact: Artifact, copy: Path, trained) -> None:
    found = Artifact.open(str(copy))
    found.verify()
    answerer = Answerer(found)
    assert found.example()["request"] == {"user": "u1", "k": 10, "explain": True}
    assert differs(answerer) == ""
    assert (copy / "serve.yaml").read_text().count("rec.runtime.serving:app") == 1
    assert str(artifact.path) in (copy / "serve.yaml").read_text()
    (copy / "serve.yaml").write_text("edited")
    Artifact.open(str(copy)).verify()
    assert {"config.toml", "model.safetensors", "example.json", "rayservice.yaml"} <= {p.name for p in copy.iterdir()}


@pytest.mark.parametrize(
    "name", ["model.safetensors", "entities/item/raw.npy", "catalogue/item_ID.npy", "example.json"]
)
@pytest.mark.parametrize("damage", ["missing", "short", "flipped"])
def test_damage_is_found_and_named(copy: Path, name: str, damage: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(data[:-10])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(DataError) as error:
        Artifact.open(str(copy)).verify()
    assert name in str(error.value)


def test_an_artifact_that_was_on_its_way_to_be_replaced_is_there_again(copy: Path, run_config) -> None:
    copy.rename(copy.with_name(f".{copy.name}.before"))
    copy.with_name(f".{copy.name}.building").mkdir()
    with pytest.raises(CheckpointError, match="never trained: run `rec train CONFIG` first"):
        export(run_config(), str(copy), lambda _: None)
    Artifact.open(str(copy)).verify()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_another_format_and_a_device_that_is_not_there_are_refused(copy: Path) -> None:
    manifest = json.loads((copy / "artifact.json").read_text())
    (copy / "artifact.json").write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(DataError, match="format 1, expected 2; run `rec export CONFIG` again"):
        Artifact.open(str(copy))
    (copy / "artifact.json").write_text(json.dumps(manifest))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"serve\.gpus_per_replica: .* no GPU is visible"):
            Answerer(Artifact.open(str(copy)), "cuda")


def test_other_weights_are_told_by_the_example(copy: Path) -> None:
    values = np.load(copy / "catalogue" / "item_ID.npy")
    np.save(copy / "catalogue" / "item_ID.npy", values[::-1].copy())
    assert differs(Answerer(Artifact.open(str(copy)))).startswith("answer.items[0]")


def test_weights_of_another_config_are_refused(copy: Path) -> None:
    text = (copy / "config.toml").read_text().replace("width = 16", "width = 24", 1)
    (copy / "config.toml").write_text(text)
    manifest = json.loads((copy / "artifact.json").read_text())
    manifest["files"] = []
    (copy / "artifact.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="the weights do not fit the config"):
        Artifact.open(str(copy)).system(torch.device("cpu"))


def test_an_export_that_fails_leaves_what_was_there(trained, tmp_path: Path) -> None:
    target = tmp_path / "a"
    export(trained, str(target), lambda _: None)
    before = sorted(p.name for p in target.iterdir())
    broken = trained.model_copy(update={"out": str(tmp_path / "nowhere")})
    with pytest.raises(CheckpointError):
        export(broken, str(target), lambda _: None)
    assert sorted(p.name for p in target.iterdir()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="exists and is no artifact"):
        export(trained, str(tmp_path / "mine"), lambda _: None)
    with pytest.raises(DataError, match="nowhere://bucket/a: no file system for this path"):
        export(trained, "nowhere://bucket/a", lambda _: None)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    pytest.importorskip("moto", reason="needs the extra `dev`")
    with reachable() as port:
        yield port


def test_an_artifact_elsewhere_stays_until_another_one_is_whole(
    trained: RunConfig, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{BUCKET}/artifacts/a{options(port)}"
    first = export(trained, uri, lambda _: None)
    assert (first.name, first.place) == ("a", uri)
    assert differs(Answerer(first)) == ""
    other = trained.model_copy(update={"out": str(tmp_path / "run")})
    shutil.copytree(trained.out, other.out)
    copy, seen = Storage.copy, list[str]()

    def cut(storage: Storage, name: str, target: Storage) -> None:
        seen.append(name)
        if len(seen) == 5:
            raise StorageError("cut")
        copy(storage, name, target)

    monkeypatch.setattr("rec.serving.remote.Storage.copy", cut)
    with pytest.raises(StorageError, match=r"^cut$"):
        export(other, uri, lambda _: None)
    monkeypatch.undo()
    shutil.rmtree(first.path.parent)  # as on a machine that has not fetched it yet
    assert Artifact.open(uri).manifest == first.manifest
    second = export(other, uri, lambda _: None)
    assert second.manifest["folder"] != first.manifest["folder"]
    found = Storage(uri).list()
    assert second.manifest["folder"] in found
    assert first.manifest["folder"] not in found
    assert "serve.yaml" in found
    assert differs(Answerer(Artifact.open(uri))) == ""


@pytest.mark.slow
def test_replicas_on_a_machine_share_weights_and_tables(copy: Path) -> None:
    """After answering, no page of weights, tables and catalogue is a copy of this process's own."""
    code = """
import re, sys
from pathlib import Path
from rec.serving.answers import Answerer
from rec.serving.artifact import Artifact

answerer = Answerer(Artifact.open(sys.argv[1]))
for n in range(20):
    answerer.respond("recommend", {"user": f"u{n}", "explain": True})
found, name = {}, ""
for line in Path("/proc/self/smaps").read_text().splitlines():
    if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
        name = line.split()[-1]
    elif sys.argv[1] in name and re.match("Rss|Anonymous", line):
        kind, size, _ = line.split()
        found.setdefault(Path(name).name, {}).setdefault(kind, 0)
        found[Path(name).name][kind] += int(size)
print(found)
"""
    done = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True, check=True)
    found = ast.literal_eval(done.stdout)
    assert {"item_ID.npy", "modality_IKD.npy", "model.safetensors", "history.npy"} <= found.keys()
    for name, size in found.items():
        assert size["Rss:"] > 0 or name in ("text.npy",), name
        assert size["Anonymous:"] == 0, name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_index_answers_like_exact_search(trained, artifact: Artifact, tmp_path: Path, kind: str) -> None:
    serve = trained.serve.model_copy(update={"index": kind, "index_candidates": 60})
    said: list[str] = []
    found = export(trained.model_copy(update={"serve": serve}), str(tmp_path / kind), said.append)
    told = found.manifest["tasks"]["ranking"]["index"]
    assert told["recall"] > 0.5
    assert told["agreement"] > 0.9
    assert f"{told['recall']:.4f}, {told['agreement']:.4f} of" in said[0]
    exact, near = Answerer(artifact), Answerer(Artifact.open(str(found.path)))
    assert near.services["ranking"].index is not None
    answers = [[a.respond("recommend", {"user": f"u{n}", "k": 10}) for n in range(40)] for a in (exact, near)]
    pairs = zip(*answers, strict=True)
    same = [len({i["item"] for i in a["items"]} & {i["item"] for i in b["items"]}) for a, b in pairs]
    assert np.mean(same) > 9  # of 10


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_recall_among_many_items(kind: str) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, 32))
    vectors = (centres[rng.integers(0, 50, 20_001)] + 0.5 * rng.standard_normal((20_001, 32))).astype(np.float32)
    queries = (centres[rng.integers(0, 50, 40)] + 0.5 * rng.standard_normal((40, 32))).astype(np.float32)
    built = build_index(vectors, ServeConfig(index=kind, index_candidates=500))
    index = FaissIndex(built, torch.from_numpy(vectors), 500)
    assert recall(index, queries, 50) > 0.9
    assert torch.from_numpy(index.search(queries, 10)).min() >= 1
