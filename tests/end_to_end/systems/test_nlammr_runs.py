"""NLA-MMR from generated visits to report, artifact and answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rec.config import RunConfig, from_table
from rec.data.prepare import prepare
from rec.data.prepared import open_prepared
from rec.data.runner import InProcess
from rec.data.stream import to_columns
from rec.evaluation.run import evaluate_run, open_run
from rec.report.page import write_report
from rec.serving.answers import Answerer
from rec.serving.export import export
from rec.storage import Storage
from rec.systems.nlammr.losses import accuracy_share
from rec.train.job import train_here


def run_of(folder: Path, name: str, *, epochs: int = 2, **model: Any) -> RunConfig:
    """Return a trained run on generated visits."""
    config = from_table(
        {
            "system": "rec.systems.nlammr:NLAMMR",
            "out": str(folder / name),
            "data": {
                "root": str(folder / "data"),
                "source": "rec.data.generated.visits:PlantedVisits",
                "read": {"visits": 200, "medications": 24, "conditions": 8},
                "split": {"protocol": "given"},
                "encode": {"text": {"encoder": "tfidf", "width": 16, "max_tokens": 16}},
            },
            "model": {"width": 16, "graph_width": 8, "graph_layers": 2, "graph_dropout": 0.1, "unit_texts": True}
            | model,
            "train": {"batch_size": 16, "epochs": epochs, "learning_rate": 5e-3, "optimiser": "adam"},
            "evaluate": {"bootstrap": 100},
        }
    )
    prepare(config.data, InProcess(), lambda _: None)
    train_here(config, lambda _: None, lambda _: None)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("visits")


@pytest.fixture(scope="module")
def run(folder: Path) -> RunConfig:
    return run_of(folder, "run", epochs=30, missing_text_mask=True, history_gate=True)


def test_an_artifact_of_private_records_shows_none_of_them(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_prepared(run)
    data.manifest["private"] = True
    monkeypatch.setattr("rec.serving.export.open_prepared", lambda _: data)
    answerer = Answerer(export(run, f"{run.out}-private", lambda _: None))
    request = answerer.example["request"]
    for name, entity in (("diagnoses", "diagnosis"), ("procedures", "procedure"), ("symptoms", "symptom")):
        assert request["rows"][0][name] == data.entity(entity)["id"].to_pylist()[:2]
    assert request["rows"][0]["earlier_medications"] == []
    assert answerer.example["answer"] == answerer.respond("predict", request)


def test_a_run_learns_more_than_what_is_given_most_and_is_reported(run: RunConfig) -> None:
    numbers = evaluate_run(run, "test")
    popularity = numbers["baselines"]["labels of half of training"]["jaccard_patient"]
    assert numbers["metrics"]["jaccard_patient"] > 0.03 + popularity
    assert "jaccard_patient" in Path(write_report(run.out)).read_text()


def test_served_sets_are_those_of_the_data_and_tell_why(run: RunConfig) -> None:
    artifact = export(run, f"{run.out}-artifact", lambda _: None)
    texts = [name for name in artifact.manifest["tables"] if name.startswith("text_")]
    assert {name for name in texts if len(artifact.array(f"tables/{name}"))} == {"text_encoder"}  # of nobody's visits
    assert "patient" not in artifact.manifest["entities"]
    answerer = Answerer(artifact)
    assert "patient" not in answerer.example["row"]
    data = open_prepared(run)
    ids = {name: data.entity(name)["id"].to_pylist() for name in ("diagnosis", "procedure", "symptom", "medication")}
    rows = data.rows("test").slice(0, 40)
    table = {name: rows[name].to_pylist() for name in rows.column_names}
    place = max(range(len(rows)), key=lambda row: len(table["earlier"][row]))
    asked = {
        name: [ids[entity][code] for code in table[name][place]]
        for name, entity in (("diagnoses", "diagnosis"), ("procedures", "procedure"), ("symptoms", "symptom"))
    }
    asked["earlier_medications"] = [
        [ids["medication"][v] for v in part] for part in table["earlier_medications"][place]
    ]
    asked["gap"] = table["gap"][place]
    options = {"threshold": 0.0, "explain": True}
    (answer,) = answerer.respond("predict", {"rows": [asked], **options})["answers"]
    trained = open_run(run)
    batch = trained.system.collate(to_columns(rows.select([*_stored(trained.system)])))
    with torch.inference_mode():
        wanted_V = trained.system.probabilities(trained.module.eval(), batch)[place].numpy()
        (reasons,) = [trained.system.reasons(trained.module, batch)[place]]
    found = {one["label"]: one["probability"] for one in answer["labels"]}
    assert [found[name] for name in ids["medication"]] == pytest.approx(wanted_V.tolist(), abs=1e-5)
    assert answer["reasons"]["sections"] == pytest.approx(reasons["sections"], abs=1e-4)
    weights = {one["visit"]: one["weight"] for one in answer["reasons"]["earlier"]}
    assert weights == pytest.approx({one["visit"] + 1: one["weight"] for one in reasons["earlier"]}, abs=1e-4)
    assert weights.keys() == set(range(1, len(asked["gap"]) + 1)[-2:])
    (told,) = answerer.respond("predict", {"rows": [{"symptom_text": "fever at night"}], **options})["answers"]
    assert {"diagnoses", "procedures"} <= set(told["missing"])
    assert "symptom text" not in told["missing"]
    assert {one["severity"] for one in told["interactions"]} <= {
        "severe",
        "moderate",
        "mild",
        "fatal",
        "contraindicated",
    }


def _stored(system: Any) -> list[str]:
    return [column.name for column in system.columns if not column.asked_only]


def test_the_target_rate_turns_the_loss_of_the_step(folder: Path) -> None:
    config = run_of(folder, "target", ddi_weight=1.0, ddi_target=0.001)
    plain = run_of(folder, "plain")
    history, other = (Storage(one.out).read_json("history.json") for one in (config, plain))
    rates = [record["loss/ddi_rate"] for record in history]
    assert rates[0] > 0.001
    assert accuracy_share(rates[0], 0.001) < 1
    assert history[-1]["loss/bce"] > other[-1]["loss/bce"]  # accuracy counts less
    assert "loss/ddi" not in other[-1]


@pytest.mark.parametrize("model", [{"fusion": "moe", "patient_moe": True}, {"train_plm": "lora"}])
def test_experts_and_a_trained_encoder_go_through_every_command(folder: Path, model: dict[str, Any]) -> None:
    if "train_plm" in model:
        pytest.importorskip("peft", reason="needs the extra `encoders`")
        model = {**model, "unit_texts": False, "text": {"width": 16, "layers": 1, "heads": 2, "pooling": "mean"}}
    config = run_of(folder, "-".join(model), **model)
    numbers = evaluate_run(config, "test")
    assert np.isfinite(numbers["metrics"]["jaccard_patient"])
    write_report(config.out)
    answerer = Answerer(export(config, f"{config.out}-artifact", lambda _: None))
    row = {"diagnosis_text": "fever", "symptom_text": "cough"}
    assert answerer.respond("predict", {"rows": [row], "threshold": 0.0})["answers"][0]["labels"]
