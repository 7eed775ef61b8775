import pickle

from rec.data.modalities.words import Words, sentences, stretches

SIX = "One two three four five six."


def test_words_that_differ_in_their_ending_case_or_accents_are_the_same():
    words = Words()
    assert words.hashes("Robberies") == words.hashes("robbery") == words.hashes("RÖBBERY") != words.hashes("rob")


def test_stop_words_say_nothing():
    assert Words().hashes("It's what the other was, and isn't.") == []


def test_hashes_are_the_same_in_another_process():
    words = Words()
    hashes = words.hashes("Heat of Los Angeles")
    assert pickle.loads(pickle.dumps(words)).hashes("Heat of Los Angeles") == hashes


def test_titles_and_initials_end_no_sentence():
    text = 'General Jack D. Ripper called Dr. Strange. "Really?" he asked. Nobody came!'
    assert sentences(text) == ["General Jack D. Ripper called Dr. Strange.", '"Really?" he asked.', "Nobody came!"]


def test_a_stretch_ends_where_a_sentence_does_and_repeats_the_last_ones():
    assert list(stretches(f"{SIX} A b c. D e f g.", 10, 3)) == [f"{SIX} A b c.", "A b c. D e f g."]


def test_a_sentence_that_is_too_long_is_cut():
    assert list(stretches(" ".join("abcdefgh"), 3, 1)) == ["a b c", "d e f", "g h"]


def test_every_word_of_a_text_is_in_a_stretch_and_none_is_longer_than_it_may_be():
    text = " ".join(f"w{n}{'.' if n % 7 == 0 or n % 11 == 0 else ''}" for n in range(500))
    found = list(stretches(text, 20, 8))
    assert {word for part in found for word in part.split()} == set(text.split())
    assert max(len(part.split()) for part in found) <= 20


def test_what_fits_is_one_stretch_and_nothing_is_none():
    assert list(stretches(SIX, 100, 20)) == [SIX]
    assert list(stretches("  ", 100, 20)) == []
