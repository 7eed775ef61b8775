"""Tables beside a model's weights: the rows asked for, wherever the tables lie, at the cost of one wait at most."""

import pytest
import torch
from torch import Tensor

from rec.benchmarks.counting import counting
from rec.nn import input_tables
from rec.nn.input_tables import InputTables

TABLES = {
    "text": torch.arange(20.0).view(5, 4),
    "there": torch.tensor([True, False, True, True, False]),
    "pixels": torch.arange(5 * 2 * 2 * 3, dtype=torch.uint8).view(5, 2, 2, 3),
}
ONE, OTHER = torch.tensor([4, 0, 4]), torch.tensor([1, 2])
WANTED = {"text": ONE, "there": ONE, "pixels": OTHER}


def check(found: dict[str, Tensor]) -> None:
    assert found.keys() == WANTED.keys()
    for name, index_X in WANTED.items():
        assert torch.equal(found[name], TABLES[name][index_X])


def test_rows_of_tables_that_fit_cost_no_wait() -> None:
    tables = InputTables(TABLES)
    with counting() as found:
        rows = tables.rows(WANTED)
    assert not found.syncs
    check(rows)


@pytest.mark.parametrize("names", [["text"], ["text", "there"], ["text", "there", "pixels"]])
def test_rows_of_tables_of_the_host_cost_one_wait_however_many_there_are(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_tables, "_room", lambda device: 0)
    tables = InputTables(TABLES)
    with counting() as found:
        rows = tables.rows({name: WANTED[name] for name in names})
    assert found.syncs.total() == found.syncs["wait"] == 1
    check(rows | {name: TABLES[name][WANTED[name]] for name in WANTED.keys() - names})


@pytest.mark.parametrize(
    ("room", "kept"),
    [(0, []), (5, ["there"]), (64, ["there"]), (65, ["pixels", "there"]), (145, ["pixels", "text", "there"])],
)
def test_the_smallest_tables_are_kept_as_long_as_all_together_fit(
    room: int, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_tables, "_room", lambda device: room)
    assert [table.nbytes for table in TABLES.values()] == [80, 5, 60]
    tables = InputTables(TABLES)
    assert sorted(tables.on(torch.device("meta"))) == kept
    assert tables.on(torch.device("meta")) is tables.on(torch.device("meta"))


def test_a_table_in_the_place_of_another_is_read_from_the_host() -> None:
    other = TABLES["pixels"] + 1
    found = InputTables(TABLES).rows(WANTED, {"pixels": other})
    assert torch.equal(found["pixels"], other[OTHER])
    assert torch.equal(found["text"], TABLES["text"][ONE])


def test_a_table_that_is_changed_on_the_host_is_read_as_it_is() -> None:
    tables = InputTables(TABLES)
    tables["text"] = TABLES["text"] + 1
    assert torch.equal(tables.rows({"text": ONE})["text"], TABLES["text"][ONE] + 1)
    assert tables.whole("text", torch.device("cpu")) is tables["text"]
