import numpy as np
import pytest

from rec.data.modalities.entailment import Entailment
from rec.data.modalities.faithfulness import Checker, entities
from rec.data.modalities.rarity import SUPPORT, Rarity, evidence
from rec.errors import ConfigError
from tests.support.films import HEAT

OTHERS = [[f"Film {n}", f"{1950 + n}", f"A detective hunts a man in town {n}."] for n in range(40)]
RARITY = Rarity.learned([HEAT, *OTHERS])


def test_what_sources_say_in_other_forms_and_order_is_supported():
    one = Checker(RARITY).check(["The detective is hunting Neil McCauley, who robbed the banks."], HEAT)[0]
    assert (one.words, one.entities, one.unsupported) == (1.0, 1.0, ())
    assert one.score > 0.8


def test_what_no_source_says_is_told():
    one = Checker(RARITY).check(["Neil McCauley flees to Paris in 1972."], HEAT)[0]
    assert one.entities == pytest.approx(1 / 3)  # of Neil McCauley, Paris and 1972
    assert one.unsupported == ("Paris", "1972", "flees")


def test_a_share_of_words_weighs_rare_ones_more():
    checker = Checker(RARITY)
    rare, frequent = (checker.check([text], HEAT)[0] for text in ("McCauley dances", "detective dances"))
    assert rare.words > 0.4 > 0.1 > frequent.words
    assert rare.score > frequent.score


def test_a_text_is_as_faithful_as_its_least_supported_sentence():
    good, bad = "Neil McCauley robs banks in Los Angeles.", "Sharks attack swimmers on a sunny beach."
    both, alone = Checker(RARITY).check([f"{good} {bad}", bad], HEAT)
    assert both.score == alone.score < 0.3


def test_a_decade_of_a_year_in_the_sources_is_supported():
    yes, no = Checker(RARITY).check(["1990s", "1980s"], HEAT)
    assert (yes.entities, no.entities) == (1.0, 0.0)


def test_a_text_without_content_is_supported_and_one_without_sources_is_not():
    checker = Checker(RARITY)
    assert [one.score for one in checker.check(["", "It is what it is."], HEAT)] == [1.0, 1.0]
    assert checker.check(["Neil McCauley robs banks."], [])[0].score < 0.2
    assert checker.check(["Neil McCauley robs banks."], [])[0].words == 0.0


def test_evidence_is_the_logarithm_of_what_is_likelier():
    chance = (3 + 0.5) / (99 + 1)
    assert evidence(3, 99) == pytest.approx(np.log((SUPPORT + (1 - SUPPORT) * chance) / chance))


def test_a_word_that_all_sources_have_tells_nothing():
    assert evidence(10**6, 10**6) == pytest.approx(0, abs=1e-5)


def test_names_are_runs_of_capitals_and_what_has_digits():
    text = "Directed by Michael Mann in 1995. He met Ludwig van Beethoven at 12 Oak Street; Pacino left."
    assert entities(text, RARITY.common) == [
        "Directed", "Michael Mann", "1995", "Ludwig van Beethoven", "12", "Oak Street", "Pacino"
    ]  # fmt: skip


def test_the_first_word_of_a_sentence_is_no_name_where_it_stands_in_lower_case_elsewhere():
    assert entities("Detective Hanna hunts. Man is mortal. Hunts end. Hanna wins.", RARITY.common) == ["Hanna"]


def test_a_model_of_inference_is_half_of_the_score(classifier):
    name = classifier("CONTRADICTION", "ENTAILMENT", "NEUTRAL")
    model = Entailment(name, 64)
    text = "Neil McCauley robs banks. Sharks attack swimmers."
    with_model, without = Checker(RARITY, model).check([text], HEAT)[0], Checker(RARITY).check([text], HEAT)[0]
    least = min(model([(" ".join(HEAT), s) for s in ("Neil McCauley robs banks.", "Sharks attack swimmers.")]))
    assert 0 < least < 1
    assert with_model.score == pytest.approx((without.score + least) / 2)
    assert with_model.words == without.words


def test_a_model_without_a_class_of_entailment_is_refused(classifier):
    with pytest.raises(ConfigError, match=r"faithfulness.entailment: .* has the classes bad, good, expected one for"):
        Entailment(classifier("bad", "good"), 64)


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"faithfulness.entailment"):
        Entailment(str(tmp_path / "none"), 64)
