"""Graph recommenders from files to report, artifact and answers."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.config import RunConfig, from_table, override
from rec.data.prepare import prepare
from rec.data.prepared import open_prepared
from rec.data.runner import InProcess
from rec.errors import DataError
from rec.evaluation.run import evaluate_run
from rec.report.page import write_report
from rec.serving.answers import Answerer
from rec.serving.export import export
from rec.storage import Storage
from rec.train.job import build, train_here

USERS, ITEMS, TASTES = 120, 60, 4
CONFIGS = Path(__file__).parents[3] / "rec" / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who like the items of one of four tastes, and vectors that tell an item's taste."""
    folder = tmp_path_factory.mktemp("graph")
    rng = np.random.default_rng(0)
    taste = rng.integers(0, TASTES, ITEMS)
    lines = ["userID\titemID"]
    for user in range(USERS):
        inside = np.flatnonzero(taste == user % TASTES)
        lines += [f"{user}\t{item}" for item in rng.permutation(inside)[:6]]
    (folder / "x.inter").write_text("\n".join(lines) + "\n")
    for name in ("image", "text"):
        np.save(folder / f"{name}.npy", np.eye(TASTES)[taste] + 0.1 * rng.standard_normal((ITEMS, TASTES)))
    return folder


def run_of(folder: Path, system: str, **model: Any) -> RunConfig:
    read = {"folder": str(folder), "interactions": "x.inter", "columns": {"part": ""}}
    read |= {"features": {name: f"{name}.npy" for name in ("image", "text")}}
    data = {"root": str(folder / "data"), "source": "rec.data.sources.mmrec:MMRec", "read": read}
    config = from_table(
        {
            "system": system,
            "out": str(folder / "run" / (system.partition(":")[2] + "-".join(model))),
            "data": data | {"split": {"protocol": "mmrec"}, "content": {"neighbours": 5}},
            "model": {"width": 16} | model,
            "train": {
                "batch_size": 64,
                "epochs": 12,
                "learning_rate": 0.02,
                "metric": "recall@20",
                "evaluate_every": 4,
            },
            "evaluate": {"bootstrap": 100},
        }
    )
    prepare(config.data, InProcess(), lambda _: None)
    train_here(config, lambda _: None, lambda _: None)
    return config


@pytest.mark.parametrize(
    ("system", "model"),
    [
        ("rec.systems.lightgcn:LightGCN", {}),
        ("rec.systems.lightgcn:LightGCN", {"fanout": 4, "edge_dropout": 0.1}),
        ("rec.systems.magnet:Magnet", {"trigger": {"window": 10, "warmup": 5}}),
    ],
)
def test_a_run_learns_tastes_and_is_reported_and_served(folder: Path, system: str, model: dict[str, Any]) -> None:
    config = run_of(folder, system, **model)
    numbers = evaluate_run(config, "test")
    assert numbers["metrics"]["recall@20"] > 0.8  # 15 items per taste, of which training knows 4 or 5
    assert numbers["metrics"]["recall@20"] > 1.5 * numbers["baselines"]["popularity"]["recall@20"]
    assert 0.5 < numbers["metrics"]["auc"] < 1
    assert "recall@20" in Path(write_report(config.out)).read_text()
    answerer = Answerer(export(config, f"{config.out}-artifact", lambda _: None))
    shown = [answerer.respond("recommend", who | {"k": 5}) for who in ({"user": "3"}, {"history": ["1", "2"]})]
    assert all(len(answer["items"]) == 5 and answer["source"] == "model" for answer in shown)
    assert not {item["item"] for item in shown[1]["items"]} & {"1", "2"}
    history = Storage(config.out).read_json("history.json")
    if system.endswith("Magnet"):
        assert history[-1]["loss/confidence"] > 0
        told = answerer.respond("explain", {"item": shown[0]["items"][0]["item"], "user": "3"})
        assert sum(told["parts"].values()) == pytest.approx(shown[0]["items"][0]["score"], rel=1e-3)
        assert set(told["modalities"]) == {"behaviour", "image", "text"}
        assert len(history[-1]["moe/mixture/load"]) == 9
        assert history[-1]["moe/mixture/switched_at"] >= 5
        filed = Storage(config.out).read_json("evaluation/test/sections.json")
        section = next(section for section in filed if "rely" in section["title"])
        groups = [
            label.split(" (")[0]
            for label in next(part for part in section["parts"] if part["kind"] == "Bars")["groups"]
        ]
        assert groups == list(numbers["tasks"]["ranking"]["groups"])
        serve = config.serve.model_copy(update={"index": "ivf", "index_candidates": ITEMS})
        two_stages = export(config.model_copy(update={"serve": serve}), f"{config.out}-ivf", lambda _: None)
        assert two_stages.manifest["tasks"]["ranking"]["index"]["agreement"] == 1.0  # as every item is a candidate


THREE = {"image": 0.2, "text": 0.5, "audio": 0.3}


def three(folder: Path, modalities: list[str]) -> RunConfig:
    """Return a MAGNET run over generated vectors of these modalities, whose config wants three."""
    table = tomllib.loads((CONFIGS / "graph.toml").read_text())
    read = {"users": 60, "items": 40, "interactions": 600, "width": 6, "modalities": modalities}
    table["data"] |= {"root": str(folder / "data"), "read": read}
    table["model"] |= {"modalities": list(THREE), "content": THREE, "width": 8}
    table["train"] |= {"epochs": 2, "evaluate_every": 1, "batch_size": 128}
    config = from_table(table | {"out": str(folder / "run")})
    prepare(config.data, InProcess(), lambda _: None, ["graph"])
    return config


def test_three_modalities_beside_behaviour_by_config_alone(tmp_path: Path) -> None:
    config = three(tmp_path, list(THREE))
    train_here(config, lambda _: None, lambda _: None)
    assert build(config, open_prepared(config)).model().config.streams_of == ("behaviour", *THREE)
    assert evaluate_run(config, "test")["metrics"]["recall@20"] > 0


def test_a_modality_that_is_not_there_is_named_with_the_keys_that_want_and_make_it(tmp_path: Path) -> None:
    config = three(tmp_path, ["image", "text"])
    lacks = "no tables 'graph_audio_edge', 'graph_audio_weight', which model.modalities and model.content want and "
    lacks += "no table 'feature_audio', which model.modalities wants; they are made by a source that brings 'audio'"
    with pytest.raises(DataError, match=lacks):
        train_here(config, lambda _: None, lambda _: None)


def test_all_that_is_missing_is_told_at_once_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        train_here(three(tmp_path, ["audio"]), lambda _: None, lambda _: None)
    message = str(told.value)
    assert all(f"'{kind}_{name}" in message for kind in ("graph", "feature") for name in ("image", "text"))
    assert "_audio" not in message
    assert (
        "made by data.content.modalities with 'image' and 'text' (vectors by data.encode.image.encoder and " in message
    )


def test_a_graph_that_content_alone_weighs_is_told_with_that_key(tmp_path: Path) -> None:
    config = three(tmp_path, ["image", "text"])
    config = override(config, ['model.modalities=["image"]', "model.content={image=0.5, audio=0.5}"])
    with pytest.raises(
        DataError, match=r"'graph_audio_edge', 'graph_audio_weight', which model.content wants; they are"
    ):
        train_here(config, lambda _: None, lambda _: None)
