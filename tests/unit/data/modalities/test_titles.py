import pytest

from rec.data.modalities.titles import names_of, spoken


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Heat, The (1995)", "The Heat (1995)"),
        ("City of Lost Children, The (Cité des enfants perdus, La) (1995)", "La Cite des Enfants Perdus (1995)"),
        ("Seven (Se7en) (1995)", "Se7en (1995)"),
        ("Misérables, Les (1995)", "Les Miserables (1995)"),
        ("Shawshank Redemption, The (1994)", "Shawshank Redemption (1994)"),
        ("Legends of the Fall (a.k.a. The Fall) (1994)", "Fall, The (1994)"),
        ("Fast & Furious", "Fast and  furious!"),
        ("L'Appartement", "Appartement, L'"),
    ],
)
def test_a_thing_is_the_same_under_all_of_its_titles(one: str, other: str):
    assert set(names_of(one, "").all) & set(names_of(other, "").all)
    assert names_of(one, "").year == names_of(other, "").year


@pytest.mark.parametrize(
    ("one", "other"), [("Heat", "Heathers"), ("Heat", "Body Heat"), ("2001", "2010"), ("東京物語", "七人の侍")]
)
def test_other_titles_are_other_things(one: str, other: str):
    assert not set(names_of(one, "").all) & set(names_of(other, "").all)


def test_a_year_of_its_own_column_counts_before_that_of_the_title():
    assert (names_of("Heat (1995)", "1986").year, names_of("Heat (1995)", "").year) == (1986, 1995)
    assert names_of("1984", "").year == 0
    assert names_of("Heat", "released 15 Dec 1995").year == 1995


def test_a_title_with_an_article_is_told_from_one_without():
    assert names_of("Heat, The", "").main != names_of("Heat", "").main


def test_nothing_has_no_title():
    assert names_of(" ", "").all == ()


def test_a_title_is_spoken_with_its_article_in_front():
    assert spoken("Heat, The (Hitze) (1995)") == "The Heat"
