"""Tables fit a page: what is too wide is laid out in several, each with the column that names its rows."""

import pytest

from rec.report.columns import BETWEEN, CHARACTER, PAGE, parted, widths
from rec.sections import Table

INTERVAL = "12.3456 (11.2345 to 13.4567)"


def table(columns: int, cell: str = INTERVAL, name: str = "group", caption: str = "") -> Table:
    head = ["", *(f"metric{column}" for column in range(columns))]
    return Table(head=head, rows=[[f"{name} {row}", *[cell] * columns] for row in range(3)], caption=caption)


@pytest.mark.parametrize(("columns", "parts"), [(1, [1]), (4, [4]), (5, [4, 1]), (13, [4, 4, 4, 1])])
def test_a_table_that_is_too_wide_is_cut_between_columns(columns: int, parts: list[int]) -> None:
    whole = table(columns, caption="what it is")
    found = parted(whole)
    assert [len(part.head) - 1 for part in found] == parts
    assert [name for part in found for name in part.head[1:]] == list(whole.head[1:])
    assert all([row[0] for row in part.rows] == [row[0] for row in whole.rows] for part in found)
    assert [part.caption for part in found] == ["what it is", *[""] * (len(parts) - 1)]
    assert all(sum(widths(part)) <= PAGE for part in found)


def test_words_break_and_numbers_do_not() -> None:
    found = widths(Table(head=["a", "b", "c"], rows=[["x", INTERVAL, "word " * 50]]))
    assert found == pytest.approx([BETWEEN + CHARACTER, BETWEEN + CHARACTER * len(INTERVAL), BETWEEN + 224])
    texts = table(4, "a long text that breaks between any two of its words wherever it has to " * 3)
    assert parted(texts) == [texts]


def test_one_column_that_is_too_wide_stays_whole() -> None:
    whole = table(2, "9" * 200)
    assert [part.head for part in parted(whole)] == [("", "metric0"), ("", "metric1")]
