import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rec.data.ids import MAX_ID, Ids, id_fault
from rec.data.members import Members
from rec.data.prepared import Entity
from rec.errors import DataError
from rec.evaluation.service import Id
from rec.storage import Storage

NAMES = st.lists(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=8), unique=True
)


@given(NAMES, st.lists(st.text(max_size=8), max_size=20))
def test_every_id_is_found_and_no_other(names: list[str], others: list[str]) -> None:
    ids = Ids.of(names)
    assert ids.find(names).tolist() == list(range(len(names)))
    assert [ids.name(i) for i in range(len(names))] == names
    unknown = [name for name in others if name not in names]
    assert ids.find(unknown).tolist() == [-1] * len(unknown)


def test_ids_are_the_same_from_a_file(tmp_path) -> None:
    Ids.of(["", "b", "añ", "a"]).write(Storage(str(tmp_path)), "items")
    ids = Ids.open(str(tmp_path / "items"))
    assert ids.find(["a", "añ", "x", "b"]).tolist() == [3, 2, -1, 1]
    assert ids.search("a", 5) == ["a", "añ"]
    assert ids.search("a", 1) == ["a"]
    assert ids.search("zz", 5) == []


def test_an_id_with_more_at_its_end_is_another_one() -> None:
    ids = Ids.of(["a", "b"])
    assert ids.find(["a\0", "a\0\0", "\0", "", "a", "\0a"]).tolist() == [-1, -1, -1, -1, 0, -1]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a\0", "id 'a\\x00' holds the character NUL, which no request can name"),
        ("a\0b", "id 'a\\x00b' holds the character NUL, which no request can name"),
        ("\ud800", "id '\\ud800' holds half of a surrogate pair, which is no character"),
        ("x" * 257, f"id '{'x' * 40}...' has 257 characters, expected at most 256"),
        ("\U0001f600" * 257, f"id '{chr(0x1F600) * 40}...' has 257 characters, expected at most 256"),
    ],
)
def test_what_can_be_no_id_is_refused(name: str, fault: str) -> None:
    assert id_fault(name) == fault
    with pytest.raises(DataError) as found:
        Ids.of(["a", name])
    assert str(found.value) == f"{fault}; prepare the data set again"


def test_a_member_without_an_id_is_refused() -> None:
    with pytest.raises(DataError, match=r"^item.parquet: row 2: an empty id, expected 1 to 256 characters"):
        Members.of(Entity("item", 2, 1), pa.table({"id": ["a", ""]}))


@given(st.text(max_size=300))
def test_what_can_be_an_id_of_a_data_set_can_be_one_of_a_request(name: str) -> None:
    try:
        TypeAdapter(Id).validate_python(name)
    except ValidationError:
        assert id_fault(name) is not None
    else:
        assert id_fault(name) is None


@pytest.mark.parametrize("name", ["\U0001f600" * MAX_ID, " ", "..", "a/b", "\n", "%2F", "1e20"])
def test_ids_of_any_other_characters_are_ids(name: str) -> None:
    assert id_fault(name) is None
    assert TypeAdapter(Id).validate_python(name) == name
    assert Ids.of(["a", name]).find([name]).tolist() == [1]


@pytest.mark.parametrize("index", [-1, -2, 2, 2**32, 2**32 + 1])
def test_no_index_counts_from_the_end_or_wraps(index: int) -> None:
    with pytest.raises(IndexError):
        Ids.of(["a", "b"]).name(index)
