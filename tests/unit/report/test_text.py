"""Tables, sentences, counts and sizes in a terminal."""

import pytest

from rec.report.text import bytes_text, paragraph, table
from rec.sections import counted, sentence, spread


@pytest.mark.parametrize("columns", ["80", "100"])
def test_nothing_is_wider_than_the_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    keys = [f"model.feedforward_mixture.key_{i}" for i in range(16)]
    told = table(
        ["trial", "ndcg@10", *keys], [[f"t{row}", "0.1234", *(f"{i}.{row}" for i in range(16))] for row in "abc"]
    )
    lines = told.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert all(f"{i}.{row}" in told.split() for i in range(16) for row in "abc")
    assert sum(line.startswith("tb ") for line in lines) > 1, "every block names its rows"
    assert max(map(len, paragraph("word " * 100).splitlines())) <= int(columns)


def test_a_narrow_table_is_aligned() -> None:
    assert table(["metric", "value"], [["hit@10", "0.5000"], ["mrr", "-"]]) == (
        "metric   value\nhit@10  0.5000\nmrr          -"
    )


@pytest.mark.parametrize(
    ("count", "noun", "told"),
    [
        (1, "CPU", "1 CPU"),
        (2, "CPU", "2 CPUs"),
        (1.0, "CPU", "1 CPU"),
        (1.5, "CPU", "1.5 CPUs"),
        (0, "seed", "0 seeds"),
        (1200, "user", "1,200 users"),
        (2, "category", "2 categories"),
        (2, "day", "2 days"),
    ],
)
def test_a_noun_agrees_with_its_number(count: float, noun: str, told: str) -> None:
    assert counted(count, noun) == told


@pytest.mark.parametrize(
    ("note", "told"),
    [
        ("not dietary advice", "Not dietary advice."),
        ("ndcg@10 is lost", "ndcg@10 is lost."),
        ("data.root is there", "data.root is there."),
        ("labels are synthetic: nobody has judged", "Labels are synthetic: nobody has judged."),
        ("2.9 relevant items", "2.9 relevant items."),
        ("Is it?", "Is it?"),
        ("", ""),
    ],
)
def test_a_note_is_a_sentence(note: str, told: str) -> None:
    assert sentence(note) == told


def test_one_example_has_no_interval() -> None:
    found = {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert (spread(found, 1), spread(found, 2), spread(None, 2)) == ("0.5000", "0.5000 (0.5000 to 0.5000)", "-")


def test_sizes() -> None:
    assert [bytes_text(n) for n in (512 * 2**20, 2**30, 3.5 * 2**30)] == ["512 MiB", "1.0 GiB", "3.5 GiB"]
