"""The page of a run as a stranger reads it: parsed, not compared."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rec.cli import main
from rec.config import RunConfig, override, to_toml
from rec.evaluation.run import evaluate_run
from rec.report.page import write_report
from rec.storage import Storage


class Page(HTMLParser):
    """The texts of a page by section, and its tables."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.text = Path(path).read_text()
        self.sections: dict[str, str] = {"": ""}
        self.tables: dict[str, list[list[str]]] = {}
        self.title = self.lead = self.command = ""
        self.warnings: list[str] = []
        self.at, self.into, self.skip = "", "", 0
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("style", "svg"):
            self.skip += 1
        elif tag in ("h1", "h2", "pre", "tr", "th", "td") or (tag == "p" and given.get("class") in ("lead", "warning")):
            self.into = given.get("class") or tag if tag == "p" else tag
            if tag == "tr":
                self.tables.setdefault(self.at, []).append([])
            elif tag in ("th", "td"):
                self.tables[self.at][-1].append("")
            elif self.into == "warning":
                self.warnings.append("")

    def handle_endtag(self, tag: str) -> None:
        self.skip -= tag in ("style", "svg")
        if tag in ("h1", "h2", "pre", "p", "th", "td"):
            self.into = ""

    def handle_data(self, data: str) -> None:
        if self.skip or not data.strip():
            return
        if self.into == "h2":
            self.at = data
        elif self.into in ("th", "td"):
            self.tables[self.at][-1][-1] += data
        elif self.into == "warning":
            self.warnings[-1] += data
        elif self.into == "lead":
            self.lead += data
        elif self.into == "h1":
            self.title += data
        elif self.into == "pre" and self.at == "":
            self.command += data
        self.sections[self.at] = self.sections.get(self.at, "") + data


@pytest.fixture(scope="module")
def run(trained: RunConfig) -> RunConfig:
    """A run on generated data that was measured."""
    evaluate_run(trained, "test")
    return trained


@pytest.fixture(scope="module")
def page(run: RunConfig) -> Page:
    return Page(write_report(run.out))


@pytest.fixture(scope="module")
def numbers(run: RunConfig) -> dict[str, Any]:
    return Storage(run.out).read_json("evaluation/test/metrics.json")


def test_the_first_lines_say_how_good_beside_what_at_what_cost(page: Page, numbers: dict[str, Any]) -> None:
    assert page.title.startswith("MSMRec on planted")
    assert re.match(
        r"MSMRec, trained on planted\S* \(301 users, 120 items, [\d,]+ interactions\), reaches hit@10 0\.\d{4} "
        r"\(95 % interval 0\.\d{4} to 0\.\d{4}\) on 301 examples of the test split: ",
        page.lead,
    )
    assert re.search(r"Whether the mixture pays was not asked: rec sweep \S+ --verdict tells", page.lead)
    assert f"popularity ({numbers['baselines']['popularity']['hit@10']:.4f})" in page.lead
    assert re.search(
        r"Training took (\d+ s|less than 1 s) and [\d,.]+ [MG]iB of memory, measuring (\d+ s|less than 1 s)\.$",
        page.lead,
    )
    assert [w for w in page.warnings if w.startswith("Generated data: ")]
    assert "301 users, 120 items" in page.sections[""]


def test_the_page_names_no_whole_path(page: Page, run: RunConfig) -> None:
    assert not re.search(r"(?<![\w.<:])/(?:tmp|root|work|home)/", page.text)
    assert str(Path(run.out).parent) not in page.text


def test_a_row_is_one_fact_and_says_what_it_is(page: Page, numbers: dict[str, Any]) -> None:
    head, *rows = page.tables["Metrics"]
    assert head == ["metric", "this run", "popularity", "what it is"]
    assert [row[0] for row in rows] == ["hit@10 = recall@10", "ndcg@10", "mrr", "hit@100 = recall@100"]
    assert all(row[3] for row in rows)
    told = [cell for row in page.tables["All other numbers"][1:] for cell in row[0].split(" = ")]
    every = told + [name for row in rows for name in row[0].split(" = ")]
    assert sorted(every) == sorted(numbers["metrics"])
    assert "map@10 = mrr@10" in [row[0] for row in page.tables["All other numbers"]]


def test_groups_are_explained_and_told_where_there_are_several(run: RunConfig, page: Page, tmp_path: Path) -> None:
    assert not [title for title in page.sections if "Groups" in title or "per group" in title], "one group is all users"
    shutil.copytree(run.out, tmp_path / "run")
    evaluate_run(override(run, [f"out={tmp_path}/run", "evaluate.popular_share=0.012"]), "test")
    told = Page(write_report(str(tmp_path / "run")))
    for name in ("Niche", "Diverse", "Blockbuster"):
        assert f"{name}: users " in told.sections["Groups"]
    assert "Modality weights per group" in told.sections


def test_gates_are_explained(page: Page) -> None:
    assert "a user's weights add up to 1, so equal use would be 0.333" in page.sections["Modality weights per user"]
    assert "one that they truly follow; guessing would give" in page.sections["Planted preferences"]


def test_curves_are_drawn_over_whole_epochs(page: Page) -> None:
    axes = re.findall(r">(epoch|evaluation|epochs|evaluations)</text>", page.text)
    assert set(axes) == {"epoch"}
    assert len(axes) >= 5


def test_the_config_is_folded_and_tells_only_what_differs(page: Page) -> None:
    assert "<details>" in page.text.split("Config</h2>")[0].rsplit("<section", 1)[1]
    told = page.sections["Config"]
    assert "width = 16" in told
    assert "weight_decay" not in told


def test_a_folder_is_reported_wherever_it_lies(
    run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run.out, moved)
    assert main(["report", f"{moved}/"]) == 0
    assert Path(capsys.readouterr().out.strip()) == moved / "report.html"
    assert main(["report", str(moved), "train.seed=3"]) == 1
    assert "a folder has its own keys; found 'train.seed=3'" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 1
    assert "not evaluated on test" in capsys.readouterr().err


def test_another_run_than_the_measured_one_is_not_reported(
    run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(to_toml(run))
    assert main(["report", str(path), "model.gate=mean"]) == 1
    assert "was started with 'item'" in capsys.readouterr().err
    assert main(["report", str(path)]) == 0


def test_two_seeds_are_told_with_their_deviation(
    run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        shutil.copytree(run.out, tmp_path / f"seed-{seed}")
    told = Page(write_report(str(tmp_path), seeds=2))
    assert "± 0.0000 (standard deviation over 2 seeds)" in told.lead
    assert told.tables["Metrics"][0][1] == "mean of seeds"
    assert "--seeds 2" in told.command
    assert "over 3 seeds" in Page(write_report(str(tmp_path))).lead
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["report-2-seeds.html", "report-3-seeds.html"]


def test_a_verdict_that_was_made_stands_first(run: RunConfig, tmp_path: Path) -> None:
    moved = tmp_path / "judged"
    shutil.copytree(run.out, moved)
    Storage(str(moved)).write_json("verdict.json", {"said": "The mixture pays: x.", "sections": []})
    lead = Page(write_report(str(moved))).lead
    assert "The mixture pays: x." in lead
    assert "was not asked" not in lead
