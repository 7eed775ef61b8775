"""The command line, end to end without Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rec.cli import COMMANDS, main
from rec.evaluation.tasks.ranking.ranks import order_number

CONFIG = """
system = "rec.systems.msmrec:MSMRec"
out = "{folder}/run"
[data]
root = "{folder}/data"
source = "rec.data.generated.catalogue:PlantedCatalogue"
[data.read]
interactions = 6000
users = 300
items = 120
modalities = ["narrative", "visual", "audio"]
[data.text]
modalities = ["narrative", "visual", "audio"]
width = 16
[model]
width = 16
blocks = 1
temperature = 0.1
[train]
epochs = 2
batch_size = 32
learning_rate = 5e-3
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return str(path)


def test_prepare_train_evaluate_compare_report(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", config]) == 0
    assert main(["train", config, "--seeds", "2", "train.epochs=3"]) == 0
    assert main(["train", config, f"out={tmp_path}/sasrec", "model.gate=none"]) == 0
    capsys.readouterr()
    result = tmp_path / "result.json"
    assert main(["evaluate", config, "--seeds", "2", "--json", str(result), "train.epochs=3"]) == 0
    assert "he heaviest modality is a planted one for" in capsys.readouterr().out
    seeds = json.loads(result.read_text())["seeds"]
    assert len(seeds) == 2
    assert json.loads(result.read_text())["metrics"]["hit@10"] == pytest.approx(
        np.mean([s["metrics"]["hit@10"] for s in seeds])
    )
    assert main(["evaluate", config, f"out={tmp_path}/sasrec", "model.gate=none"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--compare", f"{tmp_path}/run", f"{tmp_path}/sasrec"]) == 0
    assert "ndcg@10" in capsys.readouterr().out
    assert main(["report", config]) == 0
    page = Path(capsys.readouterr().out.strip())
    text = page.read_text()
    for part in ("Learning curves", "popularity", "Planted preferences", "<svg"):
        assert part in text


def test_evaluation_says_what_is_missing(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", config]) == 1
    assert "no prepared data set here" in capsys.readouterr().err.strip().splitlines()[-1]
    assert main(["prepare", config]) == 0
    assert main(["evaluate", config]) == 1
    assert "never trained: run `rec train CONFIG` first" in capsys.readouterr().err.strip().splitlines()[-1]
    for command in ("export", "predict", "report"):
        assert main([command, config]) == 1
        told = capsys.readouterr()
        (line,) = told.err.splitlines()
        assert line.endswith("/run: never trained: run `rec train CONFIG` first")
        assert not told.out
    assert main(["train", config]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith("/run: trained")
    assert main(["train", config]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing left to train: all 2 epochs are trained" in line
    assert main(["report", config]) == 1
    assert "not evaluated on test" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("place", "told"),
    [("", "is a folder: name a file"), ("file.txt/a.json", "is a file, expected a folder"), (".", "is a folder")],
)
@pytest.mark.parametrize(
    "words", [["evaluate", "nowhere.toml"], ["evaluate", "--arrays", "no.npz"], ["benchmark", "moe"]]
)
def test_a_place_where_no_json_can_be_is_refused_before_the_work(
    words: list[str], place: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.txt").write_text("")
    assert main([*words, "--json", str(tmp_path / place)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --json ")
    assert told in line


@pytest.mark.parametrize("words", [["train", "CONFIG", "train.epoch=3"], ["train", "nowhere.toml"], ["evaluate"]])
def test_errors_are_one_last_line_and_exit_one(
    config: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([config if word == "CONFIG" else word for word in words]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")


def test_a_run_that_misses_what_it_must_reach_exits_one(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["prepare", config])
    main(["train", config])
    assert main(["evaluate", config, 'expect."hit@10"=0.0']) == 0
    assert main(["evaluate", config, 'expect."hit@10"=0.99']) == 1
    assert "expected at least 0.99" in capsys.readouterr().err.strip().splitlines()[-1]


def test_only_the_run_that_was_trained_is_measured(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["prepare", config])
    main(["train", config])
    for words in (
        ["evaluate", config],
        ["report", config],
        ["export", config],
        ["predict", config, "--to", f"{config}.predictions"],
    ):
        assert main([*words, "train.seed=7"]) == 1
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "train.seed: 7, but the run in" in line
        assert "was started with 0" in line
    assert main(["evaluate", config]) == 0
    capsys.readouterr()
    best = Path(config).parent / "run" / "checkpoints" / "best.json"
    best.write_text(json.dumps({"step": json.loads(best.read_text())["step"] + 1}))
    assert main(["report", config]) == 1
    assert "since; run `rec evaluate` again" in capsys.readouterr().err.strip().splitlines()[-1]


def test_arrays_from_outside_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    arrays = {"score": score, "target": [1, 0], "seen_offset": [0, 1, 1], "seen_item": [0]}
    np.savez(tmp_path / "f.npz", **arrays)
    words = ["evaluate", "--arrays", str(tmp_path / "f.npz"), "--k", "1,2", "--json", str(tmp_path / "o.json")]
    assert main(words) == 0
    metrics = json.loads((tmp_path / "o.json").read_text())["metrics"]
    # User 0: item 0 is masked, so the target leads. User 1: one score for all three, in an order drawn for user 1.
    number = [int(order_number(torch.tensor(1), torch.tensor(item))) for item in (1, 2, 3)]
    rank = 1 + sum(other < number[0] for other in number[1:])
    assert metrics["mrr"] == pytest.approx((1 + 1 / rank) / 2)
    assert (metrics["hit@1"], metrics["hit@2"]) == ((1 + (rank == 1)) / 2, (1 + (rank <= 2)) / 2)
    np.savez(tmp_path / "bad.npz", scores=score, target=[1, 0])
    assert main(["evaluate", "--arrays", str(tmp_path / "bad.npz")]) == 1
    assert "unknown array 'scores'" in capsys.readouterr().err


def test_every_command_helps_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("prepare", "train", "evaluate", "report", "results", "benchmark"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert f"rec {command}" in text
        assert "examples:" in text
    with pytest.raises(SystemExit) as main_help:
        main(["evaluate", "--help"])
    assert main_help.value.code == 0
    assert "an order drawn for each user from fixed numbers" in " ".join(capsys.readouterr().out.split())


def test_a_runs_folder_is_measured_reported_and_predicted_like_its_file(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["prepare", config])
    main(["train", config, "--seeds", "2"])
    folder = tmp_path / "run"
    capsys.readouterr()
    assert main(["evaluate", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "standard deviation over 2 seeds" in " ".join(told.split())
    assert main(["report", str(folder)]) == 0
    assert Path(capsys.readouterr().out.strip()) == folder / "report-2-seeds.html"
    assert main(["evaluate", str(folder / "seed-1")]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0].split() == ["metric", "value", "95", "%", "interval", "popularity"]
    assert " sd" not in told
    assert max(map(len, told.splitlines())) <= 100
    assert main(["predict", str(folder / "seed-1"), "--to", str(tmp_path / "answers")]) == 0
    assert main(["evaluate", str(tmp_path / "data")]) == 1
    assert "never trained: found no config.json" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_fits_the_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    for line in capsys.readouterr().out.splitlines():
        assert len(line) <= 100, line


def test_the_help_on_arrays_has_paragraphs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = capsys.readouterr().out.split("--arrays FILE.npz:\n")[1]
    assert [part.split()[0] for part in told.strip().split("\n\n")] == [
        "Scores",
        "FILE.npz",
        "Masking:",
        "Ties:",
        "Averaging:",
    ]
