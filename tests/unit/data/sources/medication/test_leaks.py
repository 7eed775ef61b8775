"""Treatments that name what is to be predicted go, others stay."""

import pytest

from rec.data.sources.medication.leaks import names_drug, substance_words

SUBSTANCES = substance_words(["Ondansetron", "zinc", "insulin (human)", "furosemide"])


def test_substances_are_names_of_one_word_of_five_letters() -> None:
    assert {"ondansetron", "furosemide"} == SUBSTANCES


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gastrointestinal|medications|antiemetic|ondansetron", True),
        ("x|Ondansetron 4 mg", True),
        ("cardiovascular|beta blocker", True),
        ("cardiovascular|ACE", True),
        ("gastrointestinal|H2 agent", True),
        ("pulmonary|chest x-ray", False),
        ("renal|ondansetrons", False),
        ("cardiovascular|valve replacement", False),
        ("surgery|zinc", False),
    ],
)
def test_a_treatment_goes_where_it_names_a_drug_or_a_class(text: str, found: bool) -> None:
    assert names_drug(text, SUBSTANCES) is found


def test_further_words_are_those_of_the_config() -> None:
    assert not names_drug("cardiovascular|Nitroglycerin", SUBSTANCES)
    assert names_drug("cardiovascular|Nitroglycerin", SUBSTANCES, ("nitroglyc",))
