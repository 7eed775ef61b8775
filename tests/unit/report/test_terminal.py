"""Sections on a terminal: aligned, at most 100 columns, nothing that steers it."""

import re

import pytest

from rec.report.terminal import render, size, table
from rec.sections import Code, Section, Table, Text
from tests.support.pages import full


def test_a_table_is_aligned_and_a_text_follows_it() -> None:
    found = Table(
        head=["metric", "this run", "beside", "empty"], rows=[["hit@10", "0.2", "a", ""], ["auc", "-", "b", " "]]
    )
    section = Section(title="Metrics", parts=[found, Text(text="Not good.", tone="warning"), Code(text="x = 1")])
    expected = "\n".join(
        [
            "Metrics",
            "-------",
            "metric  this run  beside",
            "hit@10       0.2  a",
            "auc            -  b",
            "Warning: Not good.",
            "",
        ]
    )
    assert render([section]) == expected


def test_no_line_is_longer_than_asked() -> None:
    for width in (100, 60):
        lines = render(full(), width).splitlines()
        assert max(map(len, lines)) <= width
    assert "Config" not in render(full()), "folded"


def test_columns_that_do_not_fit_go_on_below_beside_the_first() -> None:
    rows = [[f"row{i}", *(f"{i}.{j:04d}" for j in range(20))] for i in range(3)]
    lines = table(Table(head=["name", *(f"column{j:02d}" for j in range(20))], rows=rows), 100)
    assert max(map(len, lines)) <= 100
    found = {f"{i}.{j:04d}" for i in range(3) for j in range(20)}
    assert set(re.findall(r"\d\.\d{4}", "\n".join(lines))) == found
    blocks = "\n".join(lines).split("\n\n")
    assert len(blocks) == 3
    assert all([line.split()[0] for line in b.split("\n")] == ["name", "row0", "row1", "row2"] for b in blocks)


def test_a_long_cell_is_wrapped_and_keeps_its_words() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 6
    lines = table(Table(head=["name", "text", "n"], rows=[["a", text, "1"]]), 60)
    assert max(map(len, lines)) <= 60
    words = " ".join(lines[1:]).split()
    assert sorted(words) == sorted([*text.split(), "a", "1"])


def test_a_word_longer_than_the_line_is_cut() -> None:
    lines = table(Table(head=["a", "b"], rows=[["x" * 300, "/y" * 200]]), 100)
    assert max(map(len, lines)) <= 100
    assert "".join(lines).count("x") == 300


@pytest.mark.parametrize("text", ["天空之城" * 40, "e\u0301te\u0301 " * 60])
def test_wide_and_combining_characters_count_by_columns(text: str) -> None:
    lines = table(Table(head=["title", "n"], rows=[[text, "1"], ["short", "22"]]), 80)
    assert max(map(size, lines)) <= 80
    assert lines[1].endswith(" 1")
    assert size(lines[1]) == size(lines[-1])


def test_characters_that_steer_a_terminal_are_taken_out() -> None:
    section = Section(title="a\x1b[2Jb", parts=[Text(text="c\x07d\r"), Table(head=["\x1b]0;x\x07"], rows=[["\x9b1m"]])])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", render([section]))


def test_nothing_to_show_is_an_empty_text() -> None:
    assert render([]) == ""
    assert render([Section(title="a", parts=[Code(text="b")])]) == ""
    assert render([Section(title="a", parts=[Table(head=["x", "y"], rows=[])])]) == "a\n-\nx  y\n"
