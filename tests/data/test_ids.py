from hypothesis import given
from hypothesis import strategies as st

from rec.data.ids import Ids
from rec.storage import Storage

NAMES = st.lists(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=8), unique=True
)


@given(NAMES, st.lists(st.text(max_size=8), max_size=20))
def test_every_id_is_found_and_no_other(names: list[str], others: list[str]) -> None:
    ids = Ids.of(names)
    assert ids.find(names).tolist() == list(range(len(names)))
    assert [ids.name(i) for i in range(len(names))] == names
    unknown = [name for name in others if name.rstrip("\0") not in names]
    assert ids.find(unknown).tolist() == [-1] * len(unknown)


def test_ids_are_the_same_from_a_file(tmp_path) -> None:
    Ids.of(["", "b", "añ", "a"]).write(Storage(str(tmp_path)), "items")
    ids = Ids.open(str(tmp_path / "items"))
    assert ids.find(["a", "añ", "x", "b"]).tolist() == [3, 2, -1, 1]
    assert ids.search("a", 5) == ["a", "añ"]
    assert ids.search("a", 1) == ["a"]
    assert ids.search("zz", 5) == []
