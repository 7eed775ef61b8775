"""Terms in texts: whole words, the longest first, in their order."""

import re
from pathlib import Path

import pytest

from rec.data.sources.medication.symptoms import read_terms, terms_of
from rec.errors import DataError
from rec.seeds import generator

TERMS = ["pain", "chest pain", "chest pain at rest", "n/v", "can't breathe", "fever"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Chest pain, later pain and CHEST PAIN", ("chest pain", "pain")),
        ("chest\n  pain at rest", ("chest pain at rest",)),
        ("chest pains and painful fevers", ()),
        ("he can't breathe; n/v.", ("can't breathe", "n/v")),
        ("chest fever", ("fever",)),
        ("", ()),
    ],
)
def test_terms_are_whole_words_the_longest_first(text: str, found: tuple[str, ...]) -> None:
    assert terms_of(TERMS).find(text) == found


def test_the_search_finds_what_one_pattern_of_all_terms_finds() -> None:
    rng, words = generator(0, "terms"), ["chest", "pain", "at", "rest", "n/v", "fever", "fevers", "breathe", "can't"]
    alternatives = "|".join(re.escape(term) for term in sorted(TERMS, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")
    for _ in range(300):
        text = " ".join(rng.choice(words, 12))
        assert terms_of(TERMS).find(text) == tuple(dict.fromkeys(pattern.findall(text)))


def test_a_list_is_json_or_a_term_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["Fever", "chest  pain"]')
    (tmp_path / "b.txt").write_text("Fever\n\nchest pain\n")
    assert (
        read_terms(str(tmp_path / "a.json")) == read_terms(str(tmp_path / "b.txt")) == terms_of(["fever", "chest pain"])
    )
    (tmp_path / "c.json").write_text('{"fever": 1}')
    with pytest.raises(DataError, match=r"c.json: found dict, expected the list of symptom terms"):
        read_terms(str(tmp_path / "c.json"))
    with pytest.raises(DataError, match="expected one that starts with a letter"):
        terms_of(["+ve"])
