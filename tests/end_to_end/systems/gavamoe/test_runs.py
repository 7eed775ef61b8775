"""GaVaMoE from generated reviews to report, predictions, artifact and answers."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec.config import RunConfig, from_table
from rec.data.prepare import prepare
from rec.data.prepared import open_prepared
from rec.data.runner import InProcess
from rec.errors import ConfigError
from rec.evaluation.compare import compare
from rec.evaluation.predict import PredictionOrder, predict
from rec.evaluation.predictor import predict_here
from rec.evaluation.records import column
from rec.evaluation.run import evaluate_run, open_run, read_numbers
from rec.report.page import write_report
from rec.serving.answers import Answerer
from rec.serving.export import export
from rec.storage import Storage
from rec.systems.gavamoe import GaVaMoEConfig
from rec.systems.gavamoe.model import GaVaMoEModel, assign
from rec.systems.gavamoe.report import CLUSTER
from rec.train.job import train_here
from rec.train.ranks import OneRank, RankFeed

MODEL = {
    "pairs": {"clusters": 3, "latent": 4, "embedding": 8, "hidden": 16, "heads": 2},
    "language": {"width": 16, "layers": 1, "heads": 2, "hidden": 16, "max_tokens": 24},
    "experts": {"experts": 2, "per_row": 1},
    "prompt": {"words": "short"},
}
PHASES = {"vae": {"epochs": 2, "batch_size": 128}, "mixture": {"epochs": 2}, "writer": {"epochs": 2}}


def config_of(folder: Path, name: str, **changes: Any) -> RunConfig:
    return from_table(
        {
            "system": "rec.systems.gavamoe:GaVaMoE",
            "out": str(folder / name),
            "data": {
                "root": str(folder / "data"),
                "source": "rec.data.generated.reviews:PlantedReviews",
                "read": {"reviews": 1000, "users": 60, "items": 40, "clusters": 3, "words": 24, "details": 2},
                "filter": {"core": 2},
                "split": {"protocol": "warm", "validation": 0.1, "test": 0.1},
                "encode": {"text": {"tokenizer": "bytes", "vocabulary": 300}},
            },
            "model": MODEL,
            "train": {"batch_size": 64, "learning_rate": 5e-3, "phases": PHASES} | changes,
            "evaluate": {"bootstrap": 100},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reviews")


def trained(folder: Path, name: str, phases: Any = PHASES) -> RunConfig:
    config = config_of(folder, name, phases=phases)
    prepare(config.data, InProcess(), lambda _: None)
    train_here(config, lambda _: None, lambda _: None)
    return config


@pytest.fixture(scope="module")
def run(folder: Path) -> RunConfig:
    config = trained(folder, "run")
    evaluate_run(config, "test")
    return config


def history(config: RunConfig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Storage(config.out).read_json("history.json")
    return found


class Stop(Exception):
    """What ends a run from outside."""


@pytest.mark.parametrize(("phase", "epoch"), [("vae", 1), ("mixture", 1), ("writer", 1)])
def test_a_run_that_is_stopped_in_any_phase_goes_on_to_the_same_numbers(
    run: RunConfig, folder: Path, phase: str, epoch: int
) -> None:
    config = config_of(folder, f"stopped-{phase}")

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "saved" and history(config)[-1]["phase_name"] == phase:
            raise Stop

    with pytest.raises(Stop):
        train_here(config, stop, lambda _: None)
    assert [(told["phase_name"], told["epoch"]) for told in history(config)][-1] == (phase, epoch)
    train_here(config, lambda _: None, lambda _: None)
    losses = [[told["val_loss"] for told in history(one)] for one in (config, run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert len(losses[0]) == 6


def test_evaluation_tells_each_pairs_cluster(run: RunConfig) -> None:
    opened = open_run(run)
    module = opened.module.eval()
    assert isinstance(module, GaVaMoEModel)
    with torch.no_grad():
        wanted = torch.cat([module.clusters(batch) for batch in opened.batches("test")])
    records = pq.read_table(f"{run.out}/evaluation/test/writing.parquet")
    assert column(records, CLUSTER).tolist() == wanted.tolist()
    assert column(records, "cluster_stability").shape == (len(wanted), 3)
    assert len(set(wanted.tolist())) > 1


def test_predictions_hold_the_cluster_of_each_pair(run: RunConfig, folder: Path) -> None:
    order = PredictionOrder(config=run, folder=str(folder / "predictions"), split="test")
    predict(order, predict_here, lambda _: None)
    records = pq.read_table(f"{order.folder}/records/writing")
    wanted = pq.read_table(f"{run.out}/evaluation/test/writing.parquet")
    assert column(records, CLUSTER).tolist() == column(wanted, CLUSTER).tolist()
    answers = pq.read_table(f"{order.folder}/answers")
    assert {"user", "item", "rating", "text"} <= set(answers.column_names)
    assert column(answers, CLUSTER).tolist() == column(wanted, CLUSTER).tolist()


def test_answers_to_requests_hold_the_cluster_of_each_pair(run: RunConfig, folder: Path) -> None:
    data, wanted = open_prepared(run), pq.read_table(f"{run.out}/evaluation/test/writing.parquet")
    users, items = (data.entity(name)["id"].to_pylist() for name in ("user", "item"))
    rows = data.rows("test").slice(0, 6).to_pylist()
    table = pa.table(
        {
            "user": [users[row["user"]] for row in rows] + ["nobody"],
            "item": [items[row["item"]] for row in rows] + ["nothing"],
            "feature": [row["feature"] for row in rows] + ["seal"],
        }
    )
    pq.write_table(table, folder / "asked.parquet")
    order = PredictionOrder(
        config=run, folder=str(folder / "asked"), split=None, requests=str(folder / "asked.parquet")
    )
    predict(order, predict_here, lambda _: None)
    answers = pq.read_table(f"{order.folder}/answers")
    heaviest = int(open_run(run).module.prior.weight_C.argmax())
    assert column(answers, CLUSTER).tolist() == [*column(wanted, CLUSTER)[:6].tolist(), heaviest]


def test_what_is_measured_from_predictions_is_what_is_measured_from_the_model(run: RunConfig, folder: Path) -> None:
    order = PredictionOrder(config=run, folder=str(folder / "again"), split="test")
    predict(order, predict_here, lambda _: None)
    whole = read_numbers(run.out, "test")
    found = evaluate_run(run, "test", predictions=order.folder)
    assert found["tasks"]["writing"]["clusters"] == whole["tasks"]["writing"]["clusters"]
    assert found["tasks"]["writing"]["evidence"] == whole["tasks"]["writing"]["evidence"]
    assert found["metrics"] == whole["metrics"]


def test_records_and_samples_tell_whose_review_of_what_it_is_its_ratings_and_its_cluster(run: RunConfig) -> None:
    data, records = open_prepared(run), pq.read_table(f"{run.out}/evaluation/test/writing.parquet")
    for name in ("user", "item"):
        ids, rows = data.entity(name)["id"].to_pylist(), data.rows("test")[name].to_pylist()
        assert records[f"{name}_id"].to_pylist() == [ids[row] for row in rows]
    sections = Storage(run.out).read_json("evaluation/test/sections.json")
    tables = [part for section in sections if section["title"] == "Some texts" for part in section["parts"]]
    (table, *_) = [part for part in tables if "head" in part]
    assert table["head"][:7] == ["user", "item", "rating", "predicted", "cluster", "written", "by the model"]
    given = pq.read_table(f"{run.out}/evaluation/test/rating.parquet")
    known = set()
    for row, rated in zip(records.to_pylist(), given.to_pylist(), strict=True):
        ratings = [f"{rated[name]:.3g}" for name in ("rating", "predicted")]
        known.add((row["user_id"], row["item_id"], *ratings, str(row[CLUSTER]), row["reference"], row["text"]))
    assert {tuple(cells[:7]) for cells in table["rows"]} <= known


def test_likelihoods_of_reviews_are_told_with_an_interval_and_compared_between_runs(
    run: RunConfig, folder: Path
) -> None:
    numbers, records = read_numbers(run.out, "test"), pq.read_table(f"{run.out}/evaluation/test/writing.parquet")
    found = numbers["interval"]["nll"]
    assert found["low"] < found["mean"] == numbers["metrics"]["nll"] < found["high"]
    assert found["mean"] == pytest.approx(column(records, "nll").sum() / column(records, "nll_tokens").sum())
    other = trained(folder, "shorter", PHASES | {"writer": {"epochs": 1}})
    evaluate_run(other, "test")
    told = {row["metric"]: row for row in compare(run.out, other.out, 200)}["nll"]
    assert told["higher_is_better"] is False
    assert told["b"] == read_numbers(other.out, "test")["metrics"]["nll"] > told["a"] == found["mean"]
    assert told["difference"]["mean"] == pytest.approx(told["a"] - told["b"])
    assert told["difference"]["high"] < 0


def test_a_measurement_and_its_report_tell_of_clusters(run: RunConfig) -> None:
    told = read_numbers(run.out, "test")["tasks"]["writing"]["clusters"]
    assert set(told["parts"]) == {"train", "test"}
    assert sum(told["parts"]["train"]["size"]) == open_prepared(run).split_rows("train")
    assert sum(told["parts"]["test"]["size"]) == open_prepared(run).split_rows("test")
    assert list(told["bic"]) == [str(k) for k in range(1, 9)]
    assert 0 <= told["agreement"]["same"] <= 1
    assert all(0 <= share <= 1 for share in told["stability"].values())
    evidence = read_numbers(run.out, "test")["tasks"]["writing"]["evidence"]
    assert evidence["reviews"] == open_prepared(run).split_rows("test")
    assert evidence["swap"]["right"] == pytest.approx(read_numbers(run.out, "test")["metrics"]["nll"], rel=1e-5)
    page = Path(write_report(run.out, "test")).read_text()
    for title in ("Clusters of pairs", "The right gate and the wrong ones", "How much experts differ", "layer 0"):
        assert title in page
    assert "Experts of writer." not in page


def test_requests_of_strangers_are_answered_and_told_their_gate(run: RunConfig, folder: Path) -> None:
    answerer = Answerer(export(run, str(folder / "artifact"), lambda _: None))
    data = open_prepared(run)
    user, item = (str(data.entity(name)["id"][0]) for name in ("user", "item"))
    rows = [{"user": user, "item": item, "feature": "seal"}, {"user": "nobody", "item": item}, {}]
    found = answerer.respond("predict", {"rows": rows, "task": "rating"})
    assert [1 <= answer["rating"] <= 5 for answer in found["answers"]] == [True] * 3
    written = answerer.respond("predict", {"rows": rows, "task": "writing", "explain": True})["answers"]
    module = answerer.module
    assert isinstance(module, GaVaMoEModel)
    heaviest = int(module.prior.weight_C.argmax())
    assert [answer["gate"] for answer in written[1:]] == [f"cluster {heaviest}"] * 2
    assert all(answer["tokens"] for answer in written)


def test_the_clusters_of_users_are_their_pairs_most_probable_on_average(run: RunConfig) -> None:
    opened = open_run(run)
    module = opened.module.eval()
    assert isinstance(module, GaVaMoEModel)
    with torch.no_grad():
        parts = [(batch.user_B, module.responsibilities(batch)) for batch in opened.batches("train")]
    user_N, share_NC = (torch.cat(values) for values in zip(*parts, strict=True))
    module.cluster_U = torch.full((len(module.pairs.seen_user),), -1)
    assign(module, RankFeed(OneRank(), lambda split: ((batch, True) for batch in opened.batches(split))))
    for user in (0, 7, 23):
        wanted = int(share_NC[user_N == user].double().mean(0).argmax())
        assert int(module.cluster_U[user]) == wanted
    batch = next(opened.batches("test"))
    assert module.clusters(batch).tolist() == module.cluster_U[batch.user_B].tolist()
    assert float(module.share_C.sum()) == pytest.approx(1)


def test_memory_is_told_and_what_cannot_fit_is_refused_before_it_is_made(run: RunConfig, folder: Path) -> None:
    large = {"width": 8192, "layers": 80, "heads": 64, "hidden": 28_672}
    config = config_of(folder, "large").model_copy(update={"model": GaVaMoEConfig.model_validate({"language": large})})
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"parallel: a worker needs an estimated .* of memory, its machine has"):
        train_here(config, lambda _: None, said.append)
    assert any(text.startswith("memory of a worker, estimated: ") and "optimiser" in text for text in said)
